//! Sends every client to another server, so that this one can be stopped with nobody on it.

use super::Broker;
use crate::codec::ReasonCode;
use crate::config::RedirectConfig;

impl Broker {
    /// Sends everybody away from now on, those that are connected too; with `None` they are let in again.
    pub fn set_redirect(&self, redirect: Option<RedirectConfig>) {
        match &redirect {
            Some(redirect) => tracing::warn!(to = redirect.to, "every client is sent to another server"),
            None if self.redirect_reason().is_some() => tracing::info!("clients are let in again"),
            None => {}
        }
        // Before the look around: who comes later sees this.
        self.redirect.store(redirect.map(Into::into));
        if let Some(reason) = self.redirect_reason() {
            self.evict_connected(reason);
        }
    }

    /// Why clients are not let in, when they are sent to another server.
    pub fn redirect_reason(&self) -> Option<ReasonCode> {
        let permanent = self.redirect.load().as_ref()?.permanent;
        Some(if permanent { ReasonCode::ServerMoved } else { ReasonCode::UseAnotherServer })
    }

    /// The Server Reference that goes with a reason code to leave (4.11).
    pub fn server_reference(&self, reason: ReasonCode) -> Option<String> {
        let redirects = matches!(reason, ReasonCode::UseAnotherServer | ReasonCode::ServerMoved);
        let redirect = self.redirect.load();
        redirect.as_ref().filter(|_| redirects).map(|redirect| redirect.to.clone())
    }
}
