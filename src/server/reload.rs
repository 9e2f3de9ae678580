//! SIGHUP and `causeway reload`: certificates, passwords, ACL, the redirect, targets and routes are read again.
//! What is wrong stays out, and is said.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::admin::{ReloadError, ReloadRequest, Reloaded};
use crate::auth::Authenticator;
use crate::bridge::{Bridge, Changed, Leftover};
use crate::broker::Broker;
use crate::config::Config;
use crate::transport::TlsSettings;

/// What can be read again.
pub(super) struct Reloader {
    pub(super) auth: Arc<Authenticator>,
    pub(super) tls: Vec<Arc<TlsSettings>>,
    pub(super) broker: Arc<Broker>,
    pub(super) bridge: Arc<Bridge>,
    /// The configuration file, if there is one.
    pub(super) file: Option<PathBuf>,
    /// From the admin listener.
    pub(super) requests: mpsc::Receiver<ReloadRequest>,
}

/// What is read, apart from who asks for it.
#[derive(Clone)]
struct Files {
    auth: Arc<Authenticator>,
    tls: Vec<Arc<TlsSettings>>,
    broker: Arc<Broker>,
    bridge: Arc<Bridge>,
    file: Option<PathBuf>,
}

impl Reloader {
    /// For a signal, which can be asked nothing: what waits for routes that are gone stays on disk.
    pub(super) async fn reload(&self) {
        let files = self.files();
        let reload = move || drop(files.reload(Some(Leftover::Keep)));
        if tokio::task::spawn_blocking(reload).await.is_err() {
            tracing::error!("reading the files again has panicked");
        }
    }

    /// For an operator who waits for the answer.
    pub(super) async fn answer(&self, request: ReloadRequest) {
        let files = self.files();
        let reload = move || {
            // Whoever asked may have gone.
            let _ = request.answer.send(files.reload(request.leftover));
        };
        if tokio::task::spawn_blocking(reload).await.is_err() {
            tracing::error!("reading the files again has panicked");
        }
    }

    fn files(&self) -> Files {
        Files {
            auth: Arc::clone(&self.auth),
            tls: self.tls.clone(),
            broker: Arc::clone(&self.broker),
            bridge: Arc::clone(&self.bridge),
            file: self.file.clone(),
        }
    }
}

impl Files {
    fn reload(&self, leftover: Option<Leftover>) -> Result<Reloaded, ReloadError> {
        let mut reloaded = Reloaded::default();
        note(&mut reloaded, "passwords and ACL".into(), self.auth.reload());
        for settings in &self.tls {
            let what = format!("certificate {}", settings.certificate().display());
            note(&mut reloaded, what, settings.reload());
        }
        if let Some(file) = &self.file {
            match self.reload_file(file, leftover) {
                Ok(routes) => {
                    tell(&routes);
                    reloaded.read.push("redirect, targets and routes".into());
                    reloaded.routes = routes;
                }
                Err(error) => {
                    tracing::error!(%error, "redirect, targets and routes stay as they were");
                    return Err(error);
                }
            }
        }
        Ok(reloaded)
    }

    /// The file is judged as a whole, though what else is in it counts from the next start on only.
    fn reload_file(&self, file: &Path, leftover: Option<Leftover>) -> Result<Changed, ReloadError> {
        let config = Config::load(file).map_err(|error| ReloadError::Configuration(error.to_string()))?;
        let changed = self.bridge.change(&config, leftover)?;
        self.broker.set_redirect(config.redirect);
        Ok(changed)
    }
}

fn note<E: std::fmt::Display>(reloaded: &mut Reloaded, what: String, result: Result<(), E>) {
    match result {
        Ok(()) => {
            tracing::info!(what, "files were read again");
            reloaded.read.push(what);
        }
        Err(error) => {
            tracing::error!(what, %error, "files were not read: they stay as they were");
            reloaded.kept.push(format!("{what}: {error}"));
        }
    }
}

/// One line, when something has changed.
fn tell(changed: &Changed) {
    if !changed.is_empty() {
        let removed: Vec<_> = changed.removed.iter().map(|route| &route.name).collect();
        tracing::info!(added = ?changed.added, changed = ?changed.changed, ?removed, "routes were read again");
    }
}
