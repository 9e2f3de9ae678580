//! The end of a run: nothing goes wrong any more, everybody comes back, and everything that was begun comes to its
//! end. Then they leave for good, and nothing is left of them.

use std::sync::Arc;

use super::client::Client;
use super::history::Verdict;
use super::process::Process;
use super::world::{Loss, NEVER, World};
use crate::broker::Slot;
use crate::record::{DeadLetter, Lsn};
use crate::store::tests::Fault;

/// Rounds after which a broker that is left in peace has done everything.
const ROUNDS_MAX: usize = 3000;

impl World {
    pub fn wind_up(&mut self) -> Verdict {
        self.is_winding_up = true;
        self.trace.add(self.now, format_args!("winding up"));
        match &self.process {
            Some(process) if process.broker.store.has_failed() => self.kill(Loss::Process),
            Some(process) => {
                process.broker.store.set_disk_full(false);
                self.history.disk_is_full(false);
            }
            None => {}
        }
        self.disk.fail_at(NEVER, Fault::Crash);
        self.until("everything has come", Self::is_done)?;
        self.inspect()?;
        self.leave()?;
        self.kill(Loss::Process);
        self.start()?;
        self.judge_empty("after a restart")
    }

    /// A client that was not there before sees what is retained.
    fn inspect(&mut self) -> Verdict {
        let inspector = self.clients.len() - 1;
        self.clients[inspector].returns_at = 0;
        self.until("the inspector is done", Self::is_done)?;
        self.history.judge_retained_state(inspector)
    }

    /// Everybody says goodbye, comes back with a clean session, and says goodbye again.
    fn leave(&mut self) -> Verdict {
        self.say_goodbye();
        self.until("everybody has left", Self::is_deserted)?;
        for client in &mut self.clients {
            client.profile.is_durable = false;
            client.profile.will = None;
            client.profile.subscriptions.clear();
            client.returns_at = 0;
        }
        self.until("everybody has come back", |world| world.clients.iter().all(Client::is_done))?;
        self.say_goodbye();
        self.until("everybody has left for good", Self::is_deserted)?;
        self.until("nothing is stored", |world| world.judge_empty("").is_ok())?;
        self.judge_empty("when everybody has left")
    }

    fn say_goodbye(&mut self) {
        for client in &mut self.clients {
            client.leave_for_good();
            if let Some(link) = &client.link {
                self.sessions.said_goodbye(link.task);
                self.orphans.push(link.pipe.clone());
            }
            client.disconnected(NEVER);
        }
    }

    /// Goes on, round by round, until something is so.
    fn until(&mut self, what: &str, is_so: impl Fn(&Self) -> bool) -> Verdict {
        let mut calm = 0;
        for _ in 0..ROUNDS_MAX {
            if self.round()? {
                calm = 0;
                continue;
            }
            // A connection that has to leave looks a last time, a report waits for company.
            calm += 1;
            self.read_dead_letters()?;
            if calm > 8 && is_so(self) {
                return Ok(());
            }
            self.advance(50);
        }
        let clients = self.clients.iter().filter(|client| !client.is_done()).map(Client::state);
        let missing: Vec<_> = self.history.missing().into_iter().chain(clients).collect();
        Err(format!("it does not happen that {what}: {missing:#?}, {}", self.owed()))
    }

    /// Who is owed how much.
    fn owed(&self) -> String {
        let Some(process) = &self.process else { return String::new() };
        let broker = &process.broker;
        let count = |slot: &Arc<Slot>| slot.durable().map_or(0, |durable| durable.backlog.count());
        let slots: Vec<_> =
            broker.slots().iter().map(|slot| (slot.client_id.to_string(), count(slot))).collect();
        let routes: Vec<_> = broker.routes().iter().map(|route| route.backlog.count()).collect();
        format!("the store has {:?}, sessions {slots:?}, routes {routes:?}", broker.store.messages())
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
        while self.act_as_target()? {}
        for task in self.process.iter().flat_map(Process::ready).collect::<Vec<_>>() {
            self.run_task(task)?;
        }
        self.step_store();
        Ok(self.trace.hash() != before)
    }

    /// Looks at the dead letters: there are some only when queues are short.
    fn read_dead_letters(&mut self) -> Verdict {
        let Some(process) = &self.process else { return Ok(()) };
        let letters = process.broker.store.read_dead_letters(Lsn::ZERO, usize::MAX);
        for letter in letters.map_err(|error| error.to_string())? {
            let letter = DeadLetter::decode(&letter.bytes).map_err(|error| error.to_string())?;
            if !self.plan.has_short_queues() {
                return Err(format!("a dead letter without need: {letter:?}"));
            }
            let payload = String::from_utf8_lossy(letter.message.payload()).into_owned();
            self.history.died(&letter.addressee, &payload)?;
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        let Some(process) = &self.process else { return false };
        let mut present = self.clients.iter().filter(|client| client.returns_at < NEVER);
        process.broker.store.messages().0 == 0
            && self.history.missing().is_empty()
            && present.all(Client::is_done)
    }

    fn is_deserted(&self) -> bool {
        self.process.as_ref().is_some_and(Process::is_alone)
    }

    /// That nothing is left but what is retained.
    fn judge_empty(&self, when: &str) -> Verdict {
        let Some(process) = &self.process else { return Ok(()) };
        let broker = &process.broker;
        let sessions: Vec<_> = broker.slots().iter().map(|slot| slot.client_id.to_string()).collect();
        let left = (sessions, broker.store.messages(), broker.memory.used());
        if left == (Vec::new(), (0, 0), 0) { Ok(()) } else { Err(format!("{when} there is {left:?}")) }
    }
}
