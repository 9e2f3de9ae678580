//! SIGHUP: certificates, passwords and ACL are read again. What is wrong stays out, and is said.

use std::sync::Arc;

use crate::auth::Authenticator;
use crate::transport::TlsSettings;

/// What can be read again.
pub(super) struct Reloader {
    pub(super) auth: Arc<Authenticator>,
    pub(super) tls: Vec<Arc<TlsSettings>>,
}

impl Reloader {
    pub(super) async fn reload(&self) {
        let (auth, tls) = (Arc::clone(&self.auth), self.tls.clone());
        let reload = move || {
            match auth.reload() {
                Ok(()) => tracing::info!("passwords and ACL were read again"),
                Err(error) => tracing::error!(%error, "passwords and ACL stay as they were"),
            }
            for settings in tls {
                match settings.reload() {
                    Ok(()) => tracing::info!("a certificate was read again"),
                    Err(error) => tracing::error!(%error, "a certificate stays as it was"),
                }
            }
        };
        if tokio::task::spawn_blocking(reload).await.is_err() {
            tracing::error!("reading the files again has panicked");
        }
    }
}
