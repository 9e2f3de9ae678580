//! The run: clients, network, broker and disk, one step of one of them at a time, as the seed says.

use super::client::{Client, Link, Turn};
use super::history::{History, Verdict};
use super::network::{End, Pipe};
use super::packets;
use super::plan::Plan;
use super::process::Process;
use super::trace::Trace;
use crate::record::UnixMillis;
use crate::store::set_delay;
use crate::store::tests::{Dice, Disk, Fault, Step, Unsynced};
use std::time::Duration;

/// When the first broker starts: milliseconds since 1970.
const BEGINNING: u64 = 1_700_000_000_000;

/// Rounds after which a broker that is left in peace has done everything.
const ROUNDS_MAX: usize = 3000;

pub struct World {
    plan: Plan,
    dice: Dice,
    trace: Trace,
    /// Milliseconds since the beginning.
    now: u64,
    disk: Disk,
    process: Option<Process>,
    starts_at: u64,
    clients: Vec<Client>,
    /// Connections that their clients have forgotten.
    orphans: Vec<Pipe>,
    history: History,
    is_winding_up: bool,
}

/// What is left of a disk when the process is gone.
#[derive(Clone, Copy, Debug)]
enum Loss {
    /// Nothing is lost: the machine goes on.
    Process,
    /// The power.
    Power(Unsynced),
}

/// Plays a seed to its end. Gives the hash of everything that happened.
pub fn play(seed: u64) -> Result<u64, String> {
    let mut dice = Dice(seed);
    let plan = Plan::draw(&mut dice);
    let mut delays = Dice(seed ^ 0x5eed);
    set_delay(Some(Box::new(move || Duration::from_millis(delays.roll(4) as u64))));
    let clients: Vec<_> = plan
        .clients
        .iter()
        .enumerate()
        .map(|(number, profile)| Client::new(number, profile.clone()))
        .collect();
    let history = History::new(plan.clients.iter().map(|profile| profile.is_durable));
    let mut world = World {
        plan,
        dice,
        trace: Trace::new(),
        now: 0,
        disk: Disk::default(),
        process: None,
        starts_at: 0,
        clients,
        orphans: Vec::new(),
        history,
        is_winding_up: false,
    };
    world.trace.add(0, format_args!("{:?}", world.plan));
    let verdict = world.run();
    world.kill(Loss::Process);
    set_delay(None);
    verdict.map(|()| world.trace.hash())
}

impl World {
    fn run(&mut self) -> Verdict {
        self.start()?;
        for _ in 0..self.plan.steps {
            self.step()?;
        }
        self.wind_up()
    }

    /// One step of somebody.
    fn step(&mut self) -> Verdict {
        match self.dice.roll(20) {
            0..=7 => self.run_task(),
            8..=11 => {
                let client = self.dice.roll(self.clients.len());
                self.move_bytes(client);
            }
            12..=15 => {
                let client = self.dice.roll(self.clients.len());
                self.act(client)?;
            }
            16..=17 => self.step_store(),
            18 => self.pass_time(),
            _ => self.misfortune(),
        }
        if self.process.is_none() && self.now >= self.starts_at {
            self.start()?;
        }
        Ok(())
    }

    fn start(&mut self) -> Verdict {
        let is_first = self.disk.count() == 0 && self.now == 0;
        if !is_first && !self.is_winding_up && self.dice.one_in(4) {
            // A crash during recovery.
            self.disk.fail_at(1 + self.dice.roll(30) as u64, Fault::Crash);
        }
        match Process::start(&self.disk, &self.plan, UnixMillis(BEGINNING + self.now)) {
            Ok(process) => self.process = Some(process),
            Err(error) if self.disk.has_crashed() => {
                self.trace.add(self.now, format_args!("start fails: {error}"));
                self.lose(Loss::Power(Unsynced::Torn));
                return Ok(());
            }
            Err(error) => return Err(format!("the broker does not start: {error}")),
        }
        self.trace.add(self.now, format_args!("started after {} writes", self.disk.count()));
        if !self.disk.has_crashed() {
            self.arm_disk();
        }
        Ok(())
    }

    /// Says when the disk fails next.
    fn arm_disk(&mut self) {
        if self.is_winding_up || self.plan.disk_faults == 0 {
            return self.disk.fail_at(u64::MAX / 2, Fault::Crash);
        }
        let after = 1 + self.dice.roll(self.plan.disk_faults) as u64;
        let fault = if self.dice.one_in(3) { Fault::Once } else { Fault::Crash };
        self.disk.fail_at(after, fault);
    }

    fn run_task(&mut self) {
        let Some(process) = &mut self.process else { return };
        if let Some(task) = self.dice.pick(&process.ready()).copied() {
            let has_ended = process.run(task);
            self.trace.add(self.now, format_args!("task {task} ends: {has_ended}"));
        }
    }

    /// Lets some bytes of a connection arrive, and perhaps breaks it there.
    fn move_bytes(&mut self, number: usize) {
        let (now, max) = (self.now, if self.is_winding_up { 1 << 20 } else { 1 + self.dice.roll(100) });
        self.orphans.retain(|pipe| {
            pipe.raise(max);
            pipe.is_busy()
        });
        let client = &mut self.clients[number];
        let Some(link) = &mut client.link else { return };
        if link.stalled_until > now {
            return;
        }
        let rises = self.dice.one_in(2) || self.is_winding_up;
        let max = max.min(link.breaks_after);
        let up = if rises { link.pipe.raise(max) } else { 0 };
        let down = if rises && !self.is_winding_up { 0 } else { link.pipe.lower(max, &mut link.inbox) };
        link.breaks_after -= up.max(down);
        if up + down > 0 {
            self.trace.add(now, format_args!("c{number} moves {up} up, {down} down"));
        }
        if link.breaks_after == 0 {
            self.cut(number);
        } else if link.pipe.is_over() && packets::is_rest(&link.inbox) {
            self.trace.add(now, format_args!("c{number} sees the end"));
            link.pipe.end(End::Reset);
            client.disconnected(now + self.dice.roll(200) as u64);
        }
    }

    /// Breaks a connection: both ends hear of it at once, or one does not.
    fn cut(&mut self, client: usize) {
        let returns_at = self.now + [0, 5, 500, 20_000][self.dice.roll(4)];
        let client = &mut self.clients[client];
        let Some(link) = &client.link else { return };
        let how = self.dice.roll(4);
        match how {
            0 => link.pipe.end(End::Reset),
            1 => link.pipe.end(End::Closed),
            2 => {
                link.pipe.close();
                self.orphans.push(link.pipe.clone());
            }
            // The client has vanished: only another connection tells.
            _ => self.orphans.push(link.pipe.clone()),
        }
        self.trace.add(self.now, format_args!("c{} is cut ({how})", client.number));
        client.disconnected(returns_at);
    }

    fn act(&mut self, client: usize) -> Result<bool, String> {
        if self.connect(client) {
            return Ok(true);
        }
        let mut turn = Turn {
            dice: &mut self.dice,
            history: &mut self.history,
            trace: &mut self.trace,
            now: self.now,
            window: self.plan.limits.session.receive_maximum.into(),
            inflight: self.plan.limits.session.inflight.into(),
            is_winding_up: self.is_winding_up,
        };
        self.clients[client].act(&mut turn)
    }

    /// Has a client connect when it is time; now and then beside the connection it has.
    fn connect(&mut self, number: usize) -> bool {
        let client = &mut self.clients[number];
        let restless = !self.is_winding_up && self.dice.one_in(client.profile.restless);
        let wants = if client.link.is_some() { restless } else { client.returns_at <= self.now };
        let Some(process) = self.process.as_mut().filter(|_| wants) else { return false };
        let (room, piece) = match self.is_winding_up {
            true => (1 << 16, 1 << 16),
            false => ([100, 1000, 1 << 16][self.dice.roll(3)], [7, 1000, 1 << 16][self.dice.roll(3)]),
        };
        let (pipe, end) = Pipe::new(room, piece);
        let task = process.accept(end);
        let is_doomed = !self.is_winding_up && self.dice.one_in(3);
        let breaks_after = if is_doomed { 1 + self.dice.roll(800) } else { usize::MAX };
        if let Some(old) = client.link.take() {
            self.orphans.push(old.pipe);
        }
        client.connect(Link::new(pipe, task, breaks_after), &mut self.history);
        self.trace.add(self.now, format_args!("c{number} connects as task {task}"));
        true
    }

    fn step_store(&mut self) {
        let Some(process) = &mut self.process else { return };
        let step = process.step_store();
        if step != Step::Nothing {
            self.trace.add(self.now, format_args!("store: {step:?} after {} writes", self.disk.count()));
        }
        if self.disk.has_crashed() {
            let unsynced = [Unsynced::Lost, Unsynced::Kept, Unsynced::Torn][self.dice.roll(3)];
            self.kill(Loss::Power(unsynced));
        } else if step == Step::Failed && self.dice.one_in(5) {
            // The process ends some time after it was told why.
            self.kill(Loss::Process);
        }
    }

    fn pass_time(&mut self) {
        let millis = match self.dice.one_in(self.plan.jumps) {
            true => 1000 * self.dice.roll(600),
            false => self.dice.roll(20),
        };
        self.advance(millis as u64);
    }

    fn advance(&mut self, millis: u64) {
        self.now += millis;
        if let Some(process) = &self.process {
            process.advance(Duration::from_millis(millis));
        }
        self.trace.add(self.now, format_args!("tick"));
    }

    fn misfortune(&mut self) {
        let client = self.dice.roll(self.clients.len());
        if self.dice.one_in(self.plan.cuts) {
            self.cut(client);
        }
        if self.dice.one_in(self.plan.cuts)
            && let Some(link) = &mut self.clients[client].link
        {
            link.stalled_until = self.now + self.dice.roll(3000) as u64;
        }
        if self.dice.one_in(self.plan.kills) {
            let power = [Unsynced::Lost, Unsynced::Kept, Unsynced::Torn][self.dice.roll(3)];
            let loss = if self.dice.one_in(2) { Loss::Process } else { Loss::Power(power) };
            self.kill(loss);
        }
    }

    /// The process ends here and now.
    fn kill(&mut self, loss: Loss) {
        let Some(process) = self.process.take() else { return };
        self.trace.add(self.now, format_args!("killed: {loss:?}"));
        // What it would write while it falls to pieces.
        if !self.disk.has_crashed() {
            self.disk.fail_at(1, Fault::Crash);
        }
        let disk = self.disk.clone();
        self.lose(loss);
        process.kill();
        drop(disk);
        self.orphans.clear();
        self.starts_at = self.now + [0, 10, 2000][self.dice.roll(3)];
    }

    /// What the next start finds.
    fn lose(&mut self, loss: Loss) {
        self.disk = Disk::with(match loss {
            Loss::Process => self.disk.content(),
            Loss::Power(unsynced) => self.disk.after_crash(unsynced, &mut self.dice),
        });
    }

    /// Nothing goes wrong any more: what was begun comes to its end.
    fn wind_up(&mut self) -> Verdict {
        self.is_winding_up = true;
        if self.process.as_ref().is_some_and(|process| process.broker.store.has_failed()) {
            self.kill(Loss::Process);
        }
        self.disk.fail_at(u64::MAX / 2, Fault::Crash);
        self.trace.add(self.now, format_args!("winding up"));
        for _ in 0..ROUNDS_MAX {
            let has_moved = self.round()?;
            if has_moved {
                continue;
            }
            if self.is_done() {
                return Ok(());
            }
            self.advance(50);
        }
        let clients = self.clients.iter().filter(|client| !client.is_done()).map(Client::state);
        let missing: Vec<_> = self.history.missing().into_iter().chain(clients).collect();
        let messages = self.process.as_ref().map(|process| process.broker.store.messages());
        Err(format!("it does not come to an end: {missing:#?}, the store has {messages:?}"))
    }

    /// Everybody once. False when there was nothing to do.
    fn round(&mut self) -> Result<bool, String> {
        let before = self.trace.hash();
        if self.process.is_none() {
            self.starts_at = self.now;
            self.start()?;
        }
        for client in 0..self.clients.len() {
            if let Some(link) = &mut self.clients[client].link {
                link.breaks_after = usize::MAX;
                link.stalled_until = 0;
            }
            self.move_bytes(client);
            while self.act(client)? {}
        }
        for task in self.process.iter().flat_map(Process::ready).collect::<Vec<_>>() {
            let Some(process) = &mut self.process else { break };
            let has_ended = process.run(task);
            self.trace.add(self.now, format_args!("task {task} ends: {has_ended}"));
        }
        self.step_store();
        Ok(self.trace.hash() != before)
    }

    fn is_done(&self) -> bool {
        let Some(process) = &self.process else { return false };
        process.broker.store.messages().0 == 0
            && self.history.missing().is_empty()
            && self.clients.iter().all(Client::is_done)
    }
}
