//! `/api/v1/store/backup`: a copy of the database while the broker runs.
//!
//! The copy is made in the data folder, which only the broker's own user can enter: whoever fetches it from there
//! has shown by that that it is theirs. Nobody is given the content over the network, where the admin listener
//! asks for no password.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::{Json, extract::State};
use http::StatusCode;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{ApiError, Shared};
use crate::store::{BackupProgress, Store};

/// The name of a copy that waits to be fetched.
const NAME: &str = "backup.redb";

/// How far the last backup is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupState {
    /// What has become of it.
    pub phase: BackupPhase,
    /// Where the copy is, or will be: in the folder of the database, on the machine of the broker.
    pub file: PathBuf,
    /// Rows copied.
    pub rows: u64,
    /// Bytes of these rows.
    pub bytes: u64,
    /// Why there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What has become of a backup.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackupPhase {
    /// There was none since the broker started.
    #[default]
    None,
    /// It is being copied.
    Running,
    /// The copy is there.
    Done,
    /// It could not be copied.
    Failed,
}

/// The last backup, one at a time.
#[derive(Debug)]
pub(super) struct Backups(Arc<Mutex<Last>>);

#[derive(Debug, Default)]
struct Last {
    state: BackupState,
    progress: Arc<BackupProgress>,
}

impl Backups {
    /// For a database in this folder.
    pub(super) fn of(folder: &Path) -> Self {
        let file = folder.join(NAME);
        let file = std::path::absolute(&file).unwrap_or(file);
        // What one has left that was cut off is of no use to anybody.
        let _ = std::fs::remove_file(file.with_added_extension("new"));
        let state = BackupState { file, ..BackupState::default() };
        Self(Arc::new(Mutex::new(Last { state, ..Last::default() })))
    }

    fn state(&self) -> BackupState {
        let last = self.0.lock();
        let (rows, bytes) = last.progress.copied();
        BackupState { rows, bytes, ..last.state.clone() }
    }

    /// Begins a copy; false when one is being made.
    fn begin(&self, store: Store, free_min: u64) -> bool {
        let mut last = self.0.lock();
        if last.state.phase == BackupPhase::Running {
            return false;
        }
        let (file, progress) = (last.state.file.clone(), Arc::new(BackupProgress::default()));
        last.progress = Arc::clone(&progress);
        (last.state.phase, last.state.error) = (BackupPhase::Running, None);
        let shared = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || {
            let written = store.backup(&file, free_min, &progress);
            let mut last = shared.lock();
            match written {
                Ok(()) => {
                    tracing::info!("a backup was written to {}", file.display());
                    last.state.phase = BackupPhase::Done;
                }
                Err(error) => {
                    tracing::error!("no backup was written: {error}");
                    last.state.phase = BackupPhase::Failed;
                    last.state.error = Some(error.to_string());
                }
            }
        });
        true
    }
}

impl Drop for Backups {
    /// The store stays open for as long as somebody reads it.
    fn drop(&mut self) {
        self.0.lock().progress.stop();
    }
}

pub(super) async fn state(State(app): Shared) -> Json<BackupState> {
    Json(app.backups.state())
}

pub(super) async fn begin(State(app): Shared) -> Result<(StatusCode, Json<BackupState>), ApiError> {
    let store = app.state.broker.store.clone();
    if !app.backups.begin(store, app.state.free_space_min) {
        return Err(ApiError::new(StatusCode::CONFLICT, "a backup is being made already")
            .help("GET /api/v1/store/backup says how far it is"));
    }
    Ok((StatusCode::ACCEPTED, Json(app.backups.state())))
}
