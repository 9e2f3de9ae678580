//! Files that somebody else has changed: a broker either finds everything, or refuses them and leaves them as
//! they are. Never does it begin with less than there was, and say nothing.

use std::fs;
use std::path::Path;
use std::time::Duration;

use causeway::record::{Lsn, RecipientNo};
use causeway::store::{Store, StoreError, StoreSettings, check_file};

use crate::golden;
use crate::wire::Dice;

const SETTINGS: StoreSettings = StoreSettings {
    cache_size: 1 << 20,
    commit_interval: Duration::ZERO,
    batch_bytes_max: 1 << 20,
    queue_bytes_max: 1 << 20,
    compact_at_start: false,
    recent_max: StoreSettings::RECENT_MAX,
};

/// Everything that a start finds, as text.
fn content(directory: &Path) -> Result<String, StoreError> {
    let (store, recovered) = Store::open(directory, &SETTINGS)?;
    let mut text = format!("{:?}\n{:?}\n{:?}\n", recovered.groups, recovered.routes, recovered.messages);
    for (session, subscriptions) in &recovered.sessions {
        let progress = store.progress(session.opened.recipient);
        text += &format!("{session:?} {subscriptions:?} {progress:?}\n");
    }
    recovered.retained.iter().for_each(|retained| text += &format!("{retained:?}\n"));
    for number in (1..32).map(RecipientNo) {
        let page = store.read_after(number, (Lsn::ZERO, Lsn(u64::MAX)), 1000, |_| false)?;
        page.messages.iter().for_each(|stored| text += &format!("{stored:?}\n"));
    }
    text += &format!("{:?}\n", store.read_dead_letters(Lsn::ZERO, 1000)?);
    store.close();
    Ok(text)
}

/// How often each file is damaged: some times, or as the environment says.
fn rounds() -> usize {
    std::env::var("CAUSEWAY_DAMAGE").map_or(120, |rounds| rounds.parse().unwrap())
}

/// Changes a part of a file.
fn damage(file: &mut Vec<u8>, dice: &mut Dice, round: usize) -> String {
    let at = dice.roll(file.len());
    match round % 4 {
        0 => {
            let bit = dice.roll(8);
            file[at] ^= 1 << bit;
            format!("bit {bit} of byte {at} flipped")
        }
        1 => {
            // A cut at the end of a page looks more like something else.
            let at = if dice.one_in(2) { at } else { at / 4096 * 4096 };
            file.truncate(at);
            format!("cut after {at} bytes")
        }
        2 => {
            let (start, end) = (at / 512 * 512, (at / 512 * 512 + 512).min(file.len()));
            file[start..end].fill(0);
            format!("zeros from {start} to {end}")
        }
        _ => {
            let (from, to) = (dice.roll(file.len() / 4096) * 4096, at / 4096 * 4096);
            file.copy_within(from..from + 4096, to);
            format!("page at {from} copied to {to}")
        }
    }
}

#[test]
fn a_damaged_file_opens_with_everything_or_is_refused_and_left_alone() {
    let (version, golden) = golden::files().pop().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("causeway.redb");
    fs::write(&path, &golden).unwrap();
    let whole = content(directory.path()).unwrap();
    // Once as it was killed, once as it was stopped in order.
    let stopped = fs::read(&path).unwrap();
    let (mut opened, mut refused) = (0, 0);
    for (name, file) in [("killed", &golden), ("stopped", &stopped)] {
        let mut dice = Dice::new(0x5EED ^ version);
        for round in 0..rounds() {
            let mut damaged = file.clone();
            let what = damage(&mut damaged, &mut dice, round);
            fs::write(&path, &damaged).unwrap();
            let checked = check_file(&path);
            assert_eq!(fs::read(&path).unwrap(), damaged, "{name}, {what}: a check changes nothing");
            match content(directory.path()) {
                Ok(found) => {
                    assert!(found == whole, "{name}, round {round}, {what}: something else was found");
                    opened += 1;
                }
                Err(StoreError::Damaged(_)) => {
                    let left = fs::read(&path).unwrap();
                    assert!(left == damaged, "{name}, round {round}, {what}: the file was changed");
                    let is_refused = checked.is_err() || checked.is_ok_and(|report| !report.is_good());
                    assert!(is_refused, "{name}, round {round}, {what}: the check has not seen it");
                    refused += 1;
                }
                Err(error) => panic!("{name}, round {round}, {what}: {error}"),
            }
        }
    }
    eprintln!("{opened} opened with everything, {refused} were refused");
    assert!(opened > 30 && refused > 30, "{opened} {refused}");
}
