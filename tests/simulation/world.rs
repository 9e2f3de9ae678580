//! The run: clients, network, broker and disk, one step of one of them at a time, as the seed says.

use std::time::Duration;

use super::client::{Client, Did, Link, Turn};
use super::history::{History, Verdict};
use super::network::{End, Pipe};
use super::packets;
use super::plan::{Plan, Profile};
use super::process::{Process, TIMERS};
use super::sessions::{Opening, Sessions};
use super::trace::Trace;
use crate::codec::ReasonCode;
use crate::record::UnixMillis;
use crate::store::set_delay;
use crate::store::tests::{Dice, Disk, Fault, Step, Unsynced};

/// When the first broker starts: milliseconds since 1970.
const BEGINNING: u64 = 1_700_000_000_000;

/// For good: a client that does not come back by itself, a fault that does not happen.
pub const NEVER: u64 = u64::MAX / 2;

pub struct World {
    pub plan: Plan,
    pub dice: Dice,
    pub trace: Trace,
    /// Milliseconds since the beginning.
    pub now: u64,
    pub disk: Disk,
    pub process: Option<Process>,
    pub starts_at: u64,
    /// No two connections have the same task, not even in two lives of the process.
    next_task: u64,
    /// Those of the plan, and the inspector.
    pub clients: Vec<Client>,
    /// Connections that their clients have forgotten.
    pub orphans: Vec<Pipe>,
    pub history: History,
    pub sessions: Sessions,
    pub is_winding_up: bool,
}

/// What is left of a disk when the process is gone.
#[derive(Clone, Copy, Debug)]
pub enum Loss {
    /// Nothing is lost: the machine goes on.
    Process,
    /// The power.
    Power(Unsynced),
}

/// Plays a seed to its end. Gives the hash of everything that happened.
///
/// # Errors
/// What the broker did wrong.
pub fn play(seed: u64) -> Result<u64, String> {
    let mut delays = Dice(seed ^ 0x5eed);
    set_delay(Some(Box::new(move || Duration::from_millis(delays.roll(4) as u64))));
    let mut world = World::new(seed);
    let verdict = world.run();
    world.kill(Loss::Process);
    set_delay(None);
    verdict.map(|()| world.trace.hash())
}

impl World {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let plan = Plan::draw(&mut dice);
        let profiles = plan.clients.iter().cloned().chain([Profile::inspector()]);
        let mut clients: Vec<_> =
            profiles.enumerate().map(|(number, profile)| Client::new(number, profile)).collect();
        clients.last_mut().into_iter().for_each(|inspector| inspector.returns_at = NEVER);
        let history = History::new(clients.iter().map(|client| client.profile.is_durable), &plan);
        let mut trace = Trace::new();
        trace.add(0, format_args!("{plan:?}"));
        Self {
            plan,
            dice,
            trace,
            now: 0,
            disk: Disk::default(),
            process: None,
            starts_at: 0,
            next_task: TIMERS + 1,
            clients,
            orphans: Vec::new(),
            history,
            sessions: Sessions::default(),
            is_winding_up: false,
        }
    }

    fn run(&mut self) -> Verdict {
        self.start()?;
        for _ in 0..self.plan.steps {
            self.step()?;
        }
        self.wind_up()
    }

    /// One step of somebody.
    fn step(&mut self) -> Verdict {
        let client = self.dice.roll(self.plan.clients.len());
        match self.dice.roll(20) {
            0..=7 => self.run_some_task()?,
            8..=11 => self.move_bytes(client),
            12..=14 => drop(self.act(client)?),
            15 => drop(self.act_as_target()?),
            16..=17 => self.step_store(),
            18 => self.pass_time(),
            _ => self.misfortune(client)?,
        }
        if self.process.is_none() && self.now >= self.starts_at {
            self.start()?;
        }
        if self.dice.one_in(20) { self.judge_limits() } else { Ok(()) }
    }

    /// That nobody has more in memory than the limits say.
    fn judge_limits(&self) -> Verdict {
        let Some(process) = &self.process else { return Ok(()) };
        let limits = &self.plan.limits;
        for slot in process.broker.slots() {
            let (count, bytes) = slot.buffered();
            // What was taken from the outbox is counted until it is taken from again, so that one may be empty.
            if count > 1 && bytes > limits.outbox_bytes {
                return Err(format!("{}: {count} messages of {bytes} bytes in the outbox", slot.client_id));
            }
        }
        let used = process.broker.memory.used();
        if used > limits.memory { Err(format!("{used} bytes are buffered")) } else { Ok(()) }
    }

    /// Starts the broker, which may not come far.
    pub fn start(&mut self) -> Verdict {
        let is_first = self.disk.count() == 0 && self.now == 0;
        if !is_first && !self.is_winding_up && self.dice.one_in(4) {
            // A crash during recovery.
            self.disk.fail_at(1 + self.dice.roll(30) as u64, Fault::Crash);
        }
        let process =
            match Process::start(&self.disk, &self.plan, UnixMillis(BEGINNING + self.now), self.next_task) {
                Ok(process) => process,
                Err(error) if self.disk.has_crashed() => {
                    self.trace.add(self.now, format_args!("start fails: {error}"));
                    self.lose(Loss::Power(Unsynced::Torn));
                    return Ok(());
                }
                Err(error) => return Err(format!("the broker does not start: {error}")),
            };
        self.trace.add(self.now, format_args!("started after {} writes", self.disk.count()));
        self.sessions.started(self.now, process.broker.store.last_submitted(), &mut self.history);
        self.process = Some(process);
        if !self.disk.has_crashed() {
            self.arm_disk();
        }
        Ok(())
    }

    /// Says when the disk fails next.
    fn arm_disk(&mut self) {
        if self.is_winding_up || self.plan.disk_faults == 0 {
            return self.disk.fail_at(NEVER, Fault::Crash);
        }
        let after = 1 + self.dice.roll(self.plan.disk_faults) as u64;
        let fault = if self.dice.one_in(3) { Fault::Once } else { Fault::Crash };
        self.disk.fail_at(after, fault);
    }

    fn run_some_task(&mut self) -> Verdict {
        let ready = self.process.as_ref().map(Process::ready).unwrap_or_default();
        self.dice.pick(&ready).copied().map_or(Ok(()), |task| self.run_task(task))
    }

    pub fn run_task(&mut self, task: u64) -> Verdict {
        let Some(process) = &mut self.process else { return Ok(()) };
        let has_ended = process.run(task);
        self.trace.add(self.now, format_args!("task {task} ends: {has_ended}"));
        if task == TIMERS {
            let last = process.broker.store.last_submitted();
            self.sessions.timers_looked(self.now, last, &mut self.history);
        }
        let Some(client) = self.sessions.client_of(task) else { return Ok(()) };
        let is_online = process.is_online(&self.clients[client].profile.name);
        let at = (self.now, process.broker.store.last_submitted());
        self.sessions.has_run(task, is_online, has_ended, at, &mut self.history)
    }

    /// Lets some bytes of a connection arrive, and perhaps breaks it there.
    pub fn move_bytes(&mut self, number: usize) {
        let (now, max) = (self.now, if self.is_winding_up { 1 << 20 } else { 1 + self.dice.roll(100) });
        self.orphans.retain(|pipe| {
            pipe.raise(max);
            pipe.is_busy()
        });
        let client = &mut self.clients[number];
        let Some(link) = client.link.as_mut().filter(|link| link.stalled_until <= now) else { return };
        let max = max.min(link.breaks_after);
        let rises = self.is_winding_up || self.dice.one_in(2);
        let up = if rises { link.pipe.raise(max) } else { 0 };
        let down = if !rises || self.is_winding_up { link.pipe.lower(max, &mut link.inbox) } else { 0 };
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
    fn cut(&mut self, number: usize) {
        let returns_at = self.now + [0, 5, 500, 20_000][self.dice.roll(4)];
        let client = &mut self.clients[number];
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
        self.trace.add(self.now, format_args!("c{number} is cut ({how})"));
        client.disconnected(returns_at);
    }

    /// Has a client do something. False when there is nothing to do.
    pub fn act(&mut self, number: usize) -> Result<bool, String> {
        if self.connect(number) {
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
        let client = &mut self.clients[number];
        let did = client.act(&mut turn)?;
        let Some(link) = &client.link else { return Ok(false) };
        if let Some(accepted) = link.accepted {
            self.sessions.accepted(link.task, accepted, &mut self.history)?;
        }
        if did == Did::Goodbye {
            self.sessions.said_goodbye(link.task);
            link.pipe.close();
            self.orphans.push(link.pipe.clone());
            client.disconnected(self.now + self.dice.roll(2000) as u64);
        }
        Ok(did != Did::Nothing)
    }

    /// Has a client connect when it is time; now and then beside the connection it has.
    fn connect(&mut self, number: usize) -> bool {
        let client = &mut self.clients[number];
        let is_restless = !self.is_winding_up && self.dice.one_in(client.profile.restless);
        let wants = if client.link.is_some() { is_restless } else { client.returns_at <= self.now };
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
        let link = Link::new(pipe.clone(), task, self.now, breaks_after);
        let begins_anew = client.profile.may_begin_anew() && !self.is_winding_up && self.dice.one_in(12);
        let will = client.connect(link, begins_anew, &mut self.history);
        let opening =
            Opening { client: number, profile: &client.profile, pipe, will, is_clean: client.begins_anew };
        self.sessions.connecting(task, self.now, opening, &mut self.history);
        self.trace.add(self.now, format_args!("c{number} connects as task {task}"));
        true
    }

    pub fn act_as_target(&mut self) -> Result<bool, String> {
        let settles = self.is_winding_up || self.dice.one_in(2);
        let Some(process) = &mut self.process else { return Ok(false) };
        let has_acted = process.act_as_target(settles, &mut self.history)?;
        if has_acted {
            self.trace.add(self.now, format_args!("the target acts"));
        }
        Ok(has_acted)
    }

    pub fn step_store(&mut self) {
        let Some(process) = &mut self.process else { return };
        let step = process.step_store();
        if step != Step::Nothing {
            let (count, trace) = (self.disk.count(), self.disk.trace());
            self.trace.add(self.now, format_args!("store: {step:?} after {count} writes ({trace:016x})"));
        }
        self.sessions.committed(process.broker.store.watermark(), &mut self.history);
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
            true => 1000 * self.dice.roll(60),
            false => self.dice.roll(20),
        };
        self.advance(millis as u64);
    }

    pub fn advance(&mut self, millis: u64) {
        self.now += millis;
        if let Some(process) = &self.process {
            process.advance(Duration::from_millis(millis));
        }
        self.trace.add(self.now, format_args!("tick"));
    }

    fn misfortune(&mut self, client: usize) -> Verdict {
        if self.dice.one_in(self.plan.cuts) {
            self.cut(client);
        }
        if self.dice.one_in(self.plan.cuts)
            && let Some(link) = &mut self.clients[client].link
        {
            link.stalled_until = self.now + self.dice.roll(3000) as u64;
        }
        if self.dice.one_in(self.plan.fills)
            && let Some(process) = &self.process
        {
            let is_full = self.dice.one_in(2);
            self.trace.add(self.now, format_args!("the disk is full: {is_full}"));
            process.broker.store.set_disk_full(is_full);
            self.history.disk_is_full(is_full);
        }
        if self.dice.one_in(2 * self.plan.kills) {
            self.shut_down()?;
        }
        if self.dice.one_in(self.plan.kills) {
            let power = [Unsynced::Lost, Unsynced::Kept, Unsynced::Torn][self.dice.roll(3)];
            let loss = if self.dice.one_in(2) { Loss::Process } else { Loss::Power(power) };
            self.kill(loss);
        }
        Ok(())
    }

    /// The process is told to stop: connections leave, and what waits is written.
    fn shut_down(&mut self) -> Verdict {
        let Some(process) = &self.process else { return Ok(()) };
        self.trace.add(self.now, format_args!("told to stop"));
        process.broker.evict_all(ReasonCode::ServerShuttingDown);
        for _ in 0..1 + self.dice.roll(30) {
            let client = self.dice.roll(self.plan.clients.len());
            self.move_bytes(client);
            for task in self.process.as_ref().map(Process::ready).unwrap_or_default() {
                self.run_task(task)?;
            }
            self.step_store();
            self.advance(1);
        }
        while let Some(process) = &mut self.process {
            let step = process.step_store();
            if matches!(step, Step::Nothing | Step::Failed) {
                self.kill(Loss::Process);
            }
        }
        Ok(())
    }

    /// The process ends here and now.
    pub fn kill(&mut self, loss: Loss) {
        let Some(process) = self.process.take() else { return };
        self.trace.add(self.now, format_args!("killed: {loss:?}"));
        // Nothing of what it does while it falls to pieces is written.
        if !self.disk.has_crashed() {
            self.disk.fail_at(1, Fault::Crash);
        }
        self.lose(loss);
        self.next_task = process.next;
        self.history.disk_is_full(false);
        self.sessions.crashed(process.broker.store.watermark(), &mut self.history);
        process.kill();
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
}
