//! Starts with a clock that is far from the newest stored time.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::broker::{Broker, Start};
use crate::client::{has_session, is_retained, next, publish, resume, subscribe, terms};
use crate::wall_clock::WallClock;
use crate::wire::Wire;

/// How long the short-lived things live that a run leaves behind.
const SHORT: u8 = 3;

fn start(clock: &WallClock, data: &Path) -> Broker {
    start_with(clock, data, "")
}

fn start_with(clock: &WallClock, data: &Path, store: &str) -> Broker {
    clock.with(|environment| Broker::start(&Start { environment, store, ..Start::on(data) }))
}

/// Leaves a short session and a long one, a message in each that expires soon, such a retained message, and a
/// will; and then waits until all of it is overdue.
fn leave_and_die(clock: &WallClock, data: &Path) {
    let broker = start(clock, data);
    let long = subscribe(&broker, "long", 3600);
    let short = subscribe(&broker, "short", SHORT.into());
    let will = Some(("q/will".to_owned(), u32::from(SHORT)));
    let leaver =
        Wire::connect(broker.address, &crate::wire::Terms { will, ..terms("leaver", 3600) }).unwrap();
    long.disconnect();
    short.disconnect();
    drop(leaver);
    publish(&broker, "q/kept", "kept", SHORT, true);
    publish(&broker, "q/a", "expires", SHORT, false);
    let left = Instant::now();
    drop(broker);
    std::thread::sleep(Duration::from_secs(u64::from(SHORT) + 2).saturating_sub(left.elapsed()));
}

/// Nothing that was left has expired.
fn assert_all_there(broker: &Broker) {
    assert!(has_session(broker, "short", SHORT.into()));
    assert!(is_retained(broker));
    let mut long = resume(broker, "long", 3600);
    let payloads = [next(&mut long), next(&mut long)];
    assert_eq!(payloads, ["kept", "expires"]);
}

#[test]
fn what_is_overdue_at_a_start_with_a_right_clock_is_gone() {
    let Some(clock) = WallClock::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    leave_and_die(&clock, folder.path());
    let broker = start(&clock, folder.path());
    assert!(!has_session(&broker, "short", SHORT.into()));
    assert!(!is_retained(&broker));
    let mut long = resume(&broker, "long", 3600);
    assert_eq!(next(&mut long), "gone", "the will, and nothing before it");
    assert!(!broker.log().contains("the clock of the machine"), "{}", broker.log());
}

#[test]
fn a_gateway_wakes_in_1970_and_ntp_sets_its_clock() {
    let Some(clock) = WallClock::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    leave_and_die(&clock, folder.path());
    clock.set("-56y");
    let broker = start(&clock, folder.path());
    broker.until_it_says("which is before the newest stored time");
    // Longer than anything would have lived.
    std::thread::sleep(Duration::from_secs(u64::from(SHORT) + 1));
    // What comes now has the time that it was given.
    publish(&broker, "q/a", "new", 60, false);
    subscribe(&broker, "fleeting", 1).disconnect();
    std::thread::sleep(Duration::from_millis(2500));
    assert!(!has_session(&broker, "fleeting", 1));

    clock.set("+0");
    broker.until_it_says("is plausible now");
    assert!(!is_retained(&broker));
    let mut long = resume(&broker, "long", 3600);
    let payloads = [next(&mut long), next(&mut long)];
    assert!(payloads.contains(&"new".into()) && payloads.contains(&"gone".into()), "{payloads:?}");
    // Timers are looked at at once.
    assert!(!has_session(&broker, "short", SHORT.into()));
}

#[test]
fn nothing_expires_while_it_is_1970() {
    let Some(clock) = WallClock::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    leave_and_die(&clock, folder.path());
    clock.set("-56y");
    let broker = start(&clock, folder.path());
    std::thread::sleep(Duration::from_secs(u64::from(SHORT) + 1));
    assert_all_there(&broker);
}

#[test]
fn a_wrong_start_in_2100_does_no_harm() {
    let Some(clock) = WallClock::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    leave_and_die(&clock, folder.path());
    clock.set("+74y");
    let broker = start(&clock, folder.path());
    broker.until_it_says("which is far after the newest stored time");
    std::thread::sleep(Duration::from_secs(u64::from(SHORT) + 1));
    assert_all_there(&broker);
    publish(&broker, "q/a", "from 2100", 60, false);
    // The next start has the right time: what was published has most of its minute left.
    drop(broker);
    clock.set("+0");
    let broker = start(&clock, folder.path());
    assert!(!broker.log().contains("newest stored time"), "{}", broker.log());
    let mut long = resume(&broker, "long", 3600);
    let payloads = [next(&mut long), next(&mut long)];
    assert!(payloads.contains(&"from 2100".into()), "{payloads:?}");
}

#[test]
fn a_clock_that_stays_in_2100_is_believed_after_the_grace_period() {
    let Some(clock) = WallClock::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    leave_and_die(&clock, folder.path());
    clock.set("+74y");
    let broker = start_with(&clock, folder.path(), "clock_grace = \"2s\"");
    // A session that is younger than the start is not in doubt.
    subscribe(&broker, "young", 60).disconnect();
    publish(&broker, "q/a", "young", 60, false);
    broker.until_it_says("it is believed");
    assert!(!has_session(&broker, "long", 3600) && !is_retained(&broker));
    let mut young = resume(&broker, "young", 60);
    assert_eq!(next(&mut young), "young");
}
