//! Jumps while the broker runs.

use std::time::{Duration, Instant};

use crate::broker::{Broker, Start};
use crate::client::{is_retained, next, publish, resume, subscribe, terms};
use crate::wall_clock::WallClock;
use crate::wire::{Terms, Wire};

/// Long enough for everything that looks once a second.
const A_LOOK: Duration = Duration::from_millis(1500);

#[test]
fn an_hour_forth_and_back_changes_nothing() {
    let Some(clock) = WallClock::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    let start =
        || clock.with(|environment| Broker::start(&Start { environment, ..Start::on(folder.path()) }));
    let broker = start();
    let mut online = subscribe(&broker, "online", 3600);
    subscribe(&broker, "away", 100).disconnect();
    publish(&broker, "q/kept", "kept", 100, true);
    assert_eq!(next(&mut online), "kept");
    for jump in ["+1h", "+0", "-1h", "+0", "+1h"] {
        clock.set(jump);
        std::thread::sleep(A_LOOK);
        publish(&broker, "q/a", jump, 100, false);
        assert_eq!(next(&mut online), jump, "the client is still connected");
        assert!(is_retained(&broker));
    }
    let mut away = resume(&broker, "away", 100);
    let payloads: Vec<_> = (0..6).map(|_| next(&mut away)).collect();
    assert_eq!(payloads[1..], ["+1h", "+0", "-1h", "+0", "+1h"]);
    away.disconnect();
    // A restart knows that the clock was an hour ahead of what it has stored.
    publish(&broker, "q/a", "later", 100, false);
    drop(broker);
    let broker = start();
    let mut away = resume(&broker, "away", 100);
    assert_eq!(next(&mut away), "later");
}

#[test]
fn a_will_waits_for_its_delay_whatever_the_clock_does() {
    let Some(clock) = WallClock::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    let broker = clock.with(|environment| Broker::start(&Start { environment, ..Start::on(folder.path()) }));
    let mut watcher = subscribe(&broker, "watcher", 3600);
    let will = Some(("q/will".to_owned(), 3));
    let leaver = Wire::connect(broker.address, &Terms { will, ..terms("leaver", 3600) }).unwrap();
    clock.set("+1h");
    drop(leaver);
    let left = Instant::now();
    std::thread::sleep(Duration::from_secs(1));
    clock.set("-1h");
    assert_eq!(next(&mut watcher), "gone");
    let waited = left.elapsed();
    assert!(waited > Duration::from_millis(2900) && waited < Duration::from_secs(8), "{waited:?}");
}
