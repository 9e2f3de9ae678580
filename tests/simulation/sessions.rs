//! What the simulation knows of the broker's side of each session: who has the seat, when it was left, when it may
//! expire, and what has to become of its will.

use std::collections::BTreeMap;

use super::client::Accepted;
use super::history::{History, Verdict};
use super::network::Pipe;
use super::plan::{DAY, Profile};
use crate::record::Lsn;

/// Every connection that the broker has, and how every session was left.
#[derive(Default)]
pub struct Sessions {
    /// By task.
    connections: BTreeMap<u64, Connection>,
    /// By client.
    left: BTreeMap<usize, Left>,
    /// What has become of wills, once a record is durable.
    fates: Vec<(Lsn, usize, Fate)>,
    /// Wills of which nobody knows what has become of them.
    unknown: Vec<usize>,
    /// When the broker's timers have looked last.
    timers_looked_at: u64,
}

/// A connection that begins.
pub struct Opening<'a> {
    pub client: usize,
    pub profile: &'a Profile,
    pub pipe: Pipe,
    /// The number of the will in its CONNECT.
    pub will: Option<usize>,
    /// A session that is there ends, which publishes its will.
    pub is_clean: bool,
}

struct Connection {
    client: usize,
    is_clean: bool,
    pipe: Pipe,
    will: Option<LeftWill>,
    /// Seconds that the session is kept.
    expiry: u32,
    is_seated: bool,
    /// The client has its CONNACK.
    is_accepted: bool,
    said_goodbye: bool,
    found: Option<Found>,
}

/// How a connection found the session.
#[derive(Clone, Debug)]
struct Found {
    left: Left,
    at: u64,
    /// When the timers had looked last.
    timers_looked_at: u64,
}

/// A session without a connection.
#[derive(Clone, Debug)]
struct Left {
    /// It counts as left at the earliest then; never, while that is for the next start to say,
    from: u64,
    /// and at the latest then.
    until: u64,
    /// The record that says so; zero when it did not reach the disk.
    lsn: Lsn,
    expiry: u32,
    will: Option<LeftWill>,
}

#[derive(Clone, Copy, Debug)]
struct LeftWill {
    number: usize,
    /// Milliseconds that it waits: the end of the session publishes it, too.
    waits: u64,
    /// It is sure that it was stored.
    is_certain: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Published,
    Cancelled,
}

const UNKNOWN: u64 = u64::MAX;

impl Connection {
    /// It has ended and was never seen to have the session.
    fn judge_unseated(&self, now: u64, history: &mut History) -> Verdict {
        let Some(will) = self.will else { return Ok(()) };
        if self.expiry == 0 || self.is_accepted {
            // It may have come and gone within one turn, or after one that had not left in time.
            history.will_not_before(will.number, now);
            return Ok(());
        }
        history.will_is_void(will.number)
    }
}

impl Left {
    /// The will that waits there when nobody knows whether the connection that found it has taken it away.
    fn waiting_will(self) -> Option<LeftWill> {
        self.will.map(|will| LeftWill { is_certain: false, ..will })
    }

    fn keeps(&self) -> u64 {
        u64::from(self.expiry) * 1000
    }

    fn may_have_expired(&self, now: u64) -> bool {
        now >= self.from.saturating_add(self.keeps())
    }
}

impl Sessions {
    /// A client begins a connection.
    pub fn connecting(&mut self, task: u64, now: u64, opening: Opening<'_>, history: &mut History) {
        let Opening { client, profile, pipe, will, is_clean } = opening;
        // From now on the connections before may be overtaken, without a sign if they are slow.
        let before = self.connections.values().filter(|known| known.client == client);
        for will in before.filter_map(|known| known.will) {
            history.will_not_before(will.number, if is_clean { now } else { now + will.waits });
        }
        if is_clean && let Some(will) = self.left.get(&client).and_then(|left| left.will) {
            history.will_not_before(will.number, now);
        }
        let expiry = match (profile.is_durable, profile.version) {
            (false, _) => 0,
            (true, 4) => DAY,
            (true, _) => profile.expiry,
        };
        let delay = profile.will.filter(|_| profile.version > 4).map_or(0, |(_, delay)| delay);
        let waits = u64::from(delay.min(expiry)) * 1000;
        let connection = Connection {
            client,
            is_clean,
            pipe,
            will: will.map(|number| LeftWill { number, waits, is_certain: false }),
            expiry,
            is_seated: false,
            is_accepted: false,
            said_goodbye: false,
            found: None,
        };
        self.connections.insert(task, connection);
    }

    pub fn said_goodbye(&mut self, task: u64) {
        self.connections.get_mut(&task).into_iter().for_each(|connection| connection.said_goodbye = true);
    }

    /// The client of a connection, while that is not over.
    pub fn client_of(&self, task: u64) -> Option<usize> {
        self.connections.get(&task).map(|connection| connection.client)
    }

    /// The broker's timers have looked, and submitted everything up to this record: who has not come back in time has
    /// left a will, and perhaps no session.
    pub fn timers_looked(&mut self, now: u64, last: Lsn, history: &mut History) {
        self.timers_looked_at = now;
        for (client, left) in &mut self.left {
            if left.may_have_expired(now) {
                history.session_may_be_gone(*client, true);
            }
            if let Some(will) = left.will.take_if(|will| will.is_certain && now >= left.until + will.waits) {
                self.fates.push((last, will.number, Fate::Published));
            }
        }
    }

    /// A connection's task has run. `is_online` says whether its client's session has a connection now, `last` is the
    /// number of the record that was submitted last.
    pub fn has_run(
        &mut self,
        task: u64,
        is_online: bool,
        has_ended: bool,
        (now, last): (u64, Lsn),
        history: &mut History,
    ) -> Verdict {
        let Some(connection) = self.connections.get(&task) else { return Ok(()) };
        let client = connection.client;
        let mut others = self.connections.values().filter(|other| other.client == client);
        if is_online && !connection.is_seated && !has_ended && others.all(|other| !other.is_seated) {
            self.is_seated(task, now, last, history)?;
        } else if !is_online && connection.is_seated {
            self.has_left(task, now, last, history)?;
        }
        if has_ended && let Some(connection) = self.connections.remove(&task).filter(|known| !known.is_seated)
        {
            return connection.judge_unseated(now, history);
        }
        Ok(())
    }

    /// A connection has taken the session: what it finds is decided now.
    fn is_seated(&mut self, task: u64, now: u64, last: Lsn, history: &mut History) -> Verdict {
        let Some(connection) = self.connections.get_mut(&task) else { return Ok(()) };
        connection.is_seated = true;
        let Some(left) = self.left.remove(&connection.client) else { return Ok(()) };
        if left.may_have_expired(now) {
            history.session_may_be_gone(connection.client, true);
        }
        connection.found =
            Some(Found { left: left.clone(), at: now, timers_looked_at: self.timers_looked_at });
        let Some(will) = left.will else { return Ok(()) };
        if !will.is_certain {
            self.unknown.push(will.number);
        } else if connection.is_clean || now >= left.until + will.waits {
            self.fates.push((last, will.number, Fate::Published));
        } else if now < left.from + will.waits {
            self.fates.push((last, will.number, Fate::Cancelled));
            return history.will_is_void(will.number);
        } else {
            self.unknown.push(will.number);
        }
        Ok(())
    }

    /// A connection has left the session.
    fn has_left(&mut self, task: u64, now: u64, last: Lsn, history: &mut History) -> Verdict {
        let Some(connection) = self.connections.remove(&task) else { return Ok(()) };
        let Connection { client, pipe, will, is_accepted, said_goodbye, expiry, found, .. } = connection;
        // Without a CONNACK the client does not know what the connection has found: it may have been gone.
        let before = found.filter(|_| !is_accepted).map(|found| found.left);
        let from = before.as_ref().map_or(now, |before| before.from);
        let will_before = before.and_then(Left::waiting_will);
        let mut left = Left { from, until: now, lsn: last, expiry, will: will_before };
        if let Some(mut will) = will {
            will.is_certain = is_accepted && !said_goodbye;
            // One that begins anew may wait already, and publishes it at once.
            let is_followed = self.connections.values().any(|known| known.client == client && known.is_clean);
            history.will_not_before(will.number, if is_followed { now } else { now + will.waits });
            if said_goodbye && pipe.was_heard() {
                self.fates.push((last, will.number, Fate::Cancelled));
                history.will_is_void(will.number)?;
            } else if expiry == 0 && will.is_certain {
                self.fates.push((last, will.number, Fate::Published));
            } else {
                left.will = Some(will);
            }
        }
        self.left.insert(client, left);
        Ok(())
    }

    /// A client has its CONNACK.
    ///
    /// # Errors
    /// When the session cannot be gone, or cannot be there.
    pub fn accepted(&mut self, task: u64, accepted: Accepted, history: &mut History) -> Verdict {
        let Some(connection) = self.connections.get_mut(&task).filter(|known| !known.is_accepted) else {
            return Ok(());
        };
        connection.is_accepted = true;
        let (client, found) = (connection.client, connection.found.clone());
        // One that was overtaken after all patience has left by now, at a time that nobody knows.
        let is_overtaken = |(other, known): (&u64, &Connection)| *other < task && known.client == client;
        let overtaken: Vec<_> = self
            .connections
            .iter()
            .filter(|(other, known)| is_overtaken((other, known)))
            .map(|(task, _)| *task)
            .collect();
        for other in overtaken {
            let will = self.connections.remove(&other).and_then(|known| known.will);
            for will in will.iter() {
                history.will_not_before(will.number, 0);
                self.unknown.push(will.number);
            }
        }
        let Accepted { present, was_known } = accepted;
        if present {
            history.session_may_be_gone(client, false);
        }
        match found {
            None if was_known && !present => Err(format!("c{client}: its session is lost")),
            Some(Found { left, at, .. }) if was_known && !present && !left.may_have_expired(at) => {
                Err(format!("c{client}: its session is lost at {at}: {left:?}"))
            }
            Some(Found { left, at, timers_looked_at })
                if present && timers_looked_at > left.until + left.keeps() =>
            {
                Err(format!("c{client}: its session should have expired at {at}: {left:?}"))
            }
            _ => Ok(()),
        }
    }

    /// The process has ended, with everything up to this record on disk.
    pub fn crashed(&mut self, durable: Lsn, history: &mut History) {
        self.committed(durable, history);
        history.process_ended();
        for (_, number, fate) in std::mem::take(&mut self.fates) {
            match fate {
                Fate::Published => history.will_may_come_again(number),
                Fate::Cancelled => {
                    history.will_may_come(number);
                    self.unknown.push(number);
                }
            }
        }
        // Of some it is not known whether they were published.
        let left = self.left.values().filter_map(|left| left.will).map(|will| will.number);
        left.chain(self.unknown.iter().copied()).for_each(|number| history.will_may_come_again(number));
        for left in self.left.values_mut().filter(|left| left.lsn > durable) {
            left.lsn = Lsn::ZERO;
        }
        for (_, connection) in std::mem::take(&mut self.connections) {
            let Connection { client, will, is_seated, is_accepted, said_goodbye, expiry, found, .. } =
                connection;
            if !is_seated {
                continue;
            }
            let is_certain = is_accepted && !said_goodbye && expiry > 0;
            let will = will.map(|will| LeftWill { is_certain, ..will });
            // Until the record that opens it is durable the session is as it was left before.
            let before = found.filter(|_| !is_accepted).map(|found| found.left);
            let from = before.as_ref().map_or(UNKNOWN, |before| before.from);
            let will_before = before.and_then(Left::waiting_will);
            if let (Some(_), Some(will)) = (&will, &will_before) {
                // Which of the two is stored is not known: whatever ends the session may publish that one.
                history.will_not_before(will.number, 0);
            }
            let will = will.or(will_before);
            let left = Left { from, until: UNKNOWN, lsn: Lsn::ZERO, expiry, will };
            self.left.insert(client, left);
        }
    }

    /// The broker runs again; the record that it has written last is this one. Whoever was connected counts as having
    /// left now.
    pub fn started(&mut self, now: u64, last: Lsn, history: &mut History) {
        self.timers_looked_at = 0;
        for left in self.left.values_mut().filter(|left| left.lsn == Lsn::ZERO) {
            left.from = left.from.min(now);
            (left.until, left.lsn) = (now, last);
            if let Some(will) = left.will {
                history.will_is_left_again(will.number, now, left.from + will.waits);
            }
        }
    }

    /// Everything up to this record is durable, also what has become of wills.
    pub fn committed(&mut self, durable: Lsn, history: &mut History) {
        self.fates.retain(|(lsn, number, fate)| {
            let is_durable = *lsn <= durable;
            if is_durable && *fate == Fate::Published {
                history.will_is_due(*number);
            }
            !is_durable
        });
    }
}
