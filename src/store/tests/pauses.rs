//! What is known of paused targets over restarts.

use super::*;
use crate::record::Pause;
use crate::store::backup::BackupProgress;
use crate::store::restore::restore;

#[test]
fn a_pause_is_there_after_a_restart_and_in_a_backup_until_it_ends() {
    let directory = tempfile::tempdir().unwrap();
    let pause = |why: &str, since| Pause { why: why.into(), since: UnixMillis(since) };
    let paused = |name: &str, pause| Change::TargetPaused(name.into(), Box::new(pause));
    let (store, _) = open_in(directory.path());
    assert_eq!(store.pause_of("shore").unwrap(), None);
    let changes = [paused("shore", pause("maintenance", 7)), paused("sho", pause("", 0))];
    store.submit(Record::of(changes)).unwrap();
    store.close();
    drop(store);
    let (store, _) = open_in(directory.path());
    assert_eq!(store.pause_of("shore").unwrap(), Some(pause("maintenance", 7)));
    let file = directory.path().join("backup");
    store.backup(&file, 0, &BackupProgress::default()).unwrap();
    store.submit(Record::of([Change::TargetResumed("shore".into())])).unwrap();
    store.close();
    drop(store);
    let (store, _) = open_in(directory.path());
    assert_eq!(store.pause_of("shore").unwrap(), None);
    assert_eq!(store.pause_of("sho").unwrap(), Some(pause("", 0)));
    let elsewhere = tempfile::tempdir().unwrap();
    restore(&file, elsewhere.path(), false).unwrap();
    let (store, _) = open_in(elsewhere.path());
    assert_eq!(store.pause_of("shore").unwrap(), Some(pause("maintenance", 7)));
}
