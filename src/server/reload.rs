//! SIGHUP: certificates, passwords, ACL and the redirect are read again. What is wrong stays out, and is said.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::auth::Authenticator;
use crate::broker::Broker;
use crate::config::Config;
use crate::transport::TlsSettings;

/// What can be read again.
pub(super) struct Reloader {
    pub(super) auth: Arc<Authenticator>,
    pub(super) tls: Vec<Arc<TlsSettings>>,
    pub(super) broker: Arc<Broker>,
    /// The configuration file, if there is one.
    pub(super) file: Option<PathBuf>,
}

impl Reloader {
    pub(super) async fn reload(&self) {
        let (auth, tls) = (Arc::clone(&self.auth), self.tls.clone());
        let (broker, file) = (Arc::clone(&self.broker), self.file.clone());
        let reload = move || {
            match auth.reload() {
                Ok(()) => tracing::info!("passwords and ACL were read again"),
                Err(error) => tracing::error!(%error, "passwords and ACL stay as they were"),
            }
            for settings in tls {
                match settings.reload() {
                    Ok(()) => {
                        tracing::info!(file = %settings.certificate().display(), "a certificate was read again")
                    }
                    Err(error) => tracing::error!(%error, "a certificate stays as it was"),
                }
            }
            if let Some(file) = file {
                reload_redirect(&broker, &file);
            }
        };
        if tokio::task::spawn_blocking(reload).await.is_err() {
            tracing::error!("reading the files again has panicked");
        }
    }
}

/// The file is judged as a whole, though the rest of it counts from the next start on only.
fn reload_redirect(broker: &Broker, file: &Path) {
    match Config::load(file) {
        Ok(config) => broker.set_redirect(config.redirect),
        Err(error) => tracing::error!(%error, "redirect stays as it was"),
    }
}
