//! When messages are due at a given rate.
//!
//! The schedule belongs to the whole run: message `g` is due at `g / rate` seconds, and client `i` of `n`
//! sends the messages `i, i + n, i + 2n, …`. It never slips: after a stall everything overdue is due at
//! once, so that the load offered does not depend on how the broker copes.

const SECOND_NS: u128 = 1_000_000_000;

/// One client's share of a rate.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    rate: u128,
    client: u128,
    clients: u128,
}

impl Pace {
    /// The share of client `client` (from 0) of `clients`, of `rate` messages a second in all.
    pub fn new(rate: u64, client: u32, clients: u32) -> Self {
        Self { rate: rate.max(1).into(), client: client.into(), clients: clients.max(1).into() }
    }

    /// How many messages of this client are due once `elapsed_ns` have passed since the start.
    pub fn due(&self, elapsed_ns: u64) -> u64 {
        let latest = u128::from(elapsed_ns) * self.rate / SECOND_NS;
        match latest.checked_sub(self.client) {
            Some(beyond) => u64::try_from(beyond / self.clients + 1).unwrap_or(u64::MAX),
            None => 0,
        }
    }

    /// When this client's message number `number` (from 0) is due, in nanoseconds after the start.
    pub fn due_at_ns(&self, number: u64) -> u64 {
        let global = u128::from(number) * self.clients + self.client;
        u64::try_from((global * SECOND_NS).div_ceil(self.rate)).unwrap_or(u64::MAX)
    }
}

/// The share of client `client` (from 0) of `clients`, of `total` things: the first ones get the rest.
pub fn share(total: u64, client: u32, clients: u32) -> u64 {
    let clients = u64::from(clients.max(1));
    total / clients + u64::from(u64::from(client) < total % clients)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn one_client_sends_at_the_rate() {
        let pace = Pace::new(1_000, 0, 1);
        assert_eq!(pace.due(0), 1, "the first message is due at once");
        assert_eq!(pace.due(MS - 1), 1);
        assert_eq!(pace.due(MS), 2);
        assert_eq!(pace.due(1_000 * MS), 1_001);
    }

    #[test]
    fn clients_take_turns() {
        let paces = [0, 1, 2].map(|client| Pace::new(1_000, client, 3));
        assert_eq!(paces.map(|pace| pace.due(0)), [1, 0, 0]);
        assert_eq!(paces.map(|pace| pace.due(MS)), [1, 1, 0]);
        assert_eq!(paces.map(|pace| pace.due(3 * MS)), [2, 1, 1]);
    }

    #[test]
    fn a_message_is_due_exactly_when_it_says() {
        for rate in [1, 3, 7, 999, 5_000, 3_000_000] {
            let pace = Pace::new(rate, 2, 5);
            for number in 0..50 {
                let at = pace.due_at_ns(number);
                assert!(pace.due(at) > number, "rate {rate}, number {number}");
                assert!(pace.due(at - 1) <= number, "rate {rate}, number {number}");
            }
        }
    }

    #[test]
    fn the_shares_of_all_clients_are_the_rate() {
        let due: u64 = (0..7).map(|client| Pace::new(5_000, client, 7).due(999_999_999)).sum();
        assert_eq!(due, 5_000);
    }

    #[test]
    fn a_stall_makes_everything_overdue_due() {
        assert_eq!(Pace::new(5_000, 0, 1).due(60_000 * MS), 300_001);
    }

    #[test]
    fn long_runs_do_not_overflow() {
        let pace = Pace::new(u64::MAX, 0, 1);
        assert_eq!(pace.due(u64::MAX), u64::MAX);
        assert_eq!(Pace::new(1, 0, 1).due_at_ns(u64::MAX), u64::MAX);
    }

    #[test]
    fn shares_add_up() {
        assert_eq!((0..3).map(|client| share(10, client, 3)).collect::<Vec<_>>(), [4, 3, 3]);
        assert_eq!(share(2, 2, 3), 0);
    }
}
