//! The rules in force, and the decisions made by them.
//!
//! Invariant: [`Authenticator::version`] moves after new rules are in force, so that rights that carry the
//! current version were made from the current rules.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::{
    Acl, AuthFileError, Identity, PasswordFile, Rights,
    identity::Proof,
    scram_verifier::{SCRAM_ITERATIONS, ScramVerifier},
};
use crate::{codec::ReasonCode, config::AuthConfig};

/// Answers who may connect and with what rights, by the files that were read last.
pub struct Authenticator {
    rules: ArcSwap<RuleSet>,
    version: AtomicU64,
    /// What decoys are made from.
    secret: [u8; 32],
    /// Held while files are read, so that two reloads come one after the other.
    reloading: Mutex<()>,
}

/// What was read at one time.
struct RuleSet {
    version: u64,
    config: AuthConfig,
    passwords: Option<PasswordFile>,
    acl: Option<Acl>,
}

impl Authenticator {
    /// Reads the files. Blocks on the disk.
    pub fn load(config: AuthConfig) -> Result<Self, AuthFileError> {
        let rules = RuleSet::load(config, 1)?;
        Ok(Self {
            version: AtomicU64::new(rules.version),
            rules: ArcSwap::from_pointee(rules),
            secret: rand::random(),
            reloading: Mutex::new(()),
        })
    }

    /// With a secret that outlives the process: users who do not exist look the same after a restart, as those
    /// who exist do.
    pub fn with_secret(self, secret: [u8; 32]) -> Self {
        Self { secret, ..self }
    }

    /// Reads the files again. On any error the rules in force stay. Blocks on the disk.
    pub fn reload(&self) -> Result<(), AuthFileError> {
        let _guard = self.reloading.lock();
        self.replace(self.rules.load().config.clone())
    }

    /// As [`Authenticator::reload`], with another configuration; on any error the old one stays in force.
    pub fn reconfigure(&self, config: AuthConfig) -> Result<(), AuthFileError> {
        let _guard = self.reloading.lock();
        self.replace(config)
    }

    /// Moves with every reload. When it differs from [`Rights::version`], a session asks for its
    /// [rights](Self::rights) again.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Whether [`authenticate`](Self::authenticate) will check a password for this user, and so block.
    pub fn checks_password(&self, user: Option<&str>) -> bool {
        user.is_some() && self.rules.load().passwords.is_some()
    }

    /// Decides about a CONNECT. Checking a password blocks for some 20 ms: call this on a bounded blocking
    /// pool then. `listener` is the address that the listener is bound to, never what a client or a proxy
    /// says. A password without a user name is not looked at.
    ///
    /// # Errors
    /// [`ReasonCode::BadUserNameOrPassword`] for an unknown user or a wrong or missing password,
    /// [`ReasonCode::NotAuthorized`] when a user is asked for and none was given.
    pub fn authenticate(
        &self,
        listener: SocketAddr,
        user: Option<&str>,
        password: Option<&[u8]>,
    ) -> Result<Identity, ReasonCode> {
        let rules = self.rules.load();
        if let (Some(user), Some(passwords)) = (user, &rules.passwords) {
            let hash = passwords.check(user, password.unwrap_or_default());
            let hash = hash.ok_or(ReasonCode::BadUserNameOrPassword)?;
            return Ok(Identity { user: Some(user.into()), proof: Proof::Password(hash) });
        }
        if !rules.config.anonymous_at(listener) {
            return Err(ReasonCode::NotAuthorized);
        }
        Ok(Identity { user: user.map(Into::into), proof: Proof::Nothing { listener } })
    }

    /// What a client may do. A user name that nobody has checked gives no rights: such a client has those
    /// of a client without a user. Does not block.
    ///
    /// # Errors
    /// [`ReasonCode::NotAuthorized`] when the client may not stay: its user was removed or has another
    /// password, or a user is asked for now.
    pub fn rights(&self, identity: &Identity, client_id: &str) -> Result<Rights, ReasonCode> {
        let rules = self.rules.load();
        if !rules.admits(identity) {
            return Err(ReasonCode::NotAuthorized);
        }
        let rights = match &rules.acl {
            None => Rights::all(),
            Some(acl) => acl.rights(identity.verified_user(), client_id),
        };
        Ok(rights.at_version(rules.version))
    }

    /// What a client that is not there may do, by its user name: for its will.
    ///
    /// # Errors
    /// [`ReasonCode::NotAuthorized`] when its user was removed.
    pub fn rights_of_absent(&self, user: Option<&str>, client_id: &str) -> Result<Rights, ReasonCode> {
        let rules = self.rules.load();
        let removed = |user| rules.passwords.as_ref().is_some_and(|file| file.hash(user).is_none());
        if user.is_some_and(removed) {
            return Err(ReasonCode::NotAuthorized);
        }
        Ok(rules.acl.as_ref().map_or_else(Rights::all, |acl| acl.rights(user, client_id)))
    }

    /// What a client is told that may not have a subscription.
    pub fn refused_subscription(&self) -> ReasonCode {
        match self.rules.load().config.vague_refusals {
            true => ReasonCode::UnspecifiedError,
            false => ReasonCode::NotAuthorized,
        }
    }

    pub(super) fn has_users(&self) -> bool {
        self.rules.load().passwords.is_some()
    }

    /// The verifier of a user; a decoy, and false, when there is none.
    pub(super) fn verifier(&self, user: &str) -> (Arc<ScramVerifier>, bool) {
        match &self.rules.load().passwords {
            Some(file) => file.verifier(user, &self.secret),
            None => (ScramVerifier::decoy(SCRAM_ITERATIONS, self.secret.into()).into(), false),
        }
    }

    fn replace(&self, config: AuthConfig) -> Result<(), AuthFileError> {
        let version = self.version() + 1;
        self.rules.store(Arc::new(RuleSet::load(config, version)?));
        self.version.store(version, Ordering::Release);
        Ok(())
    }
}

impl RuleSet {
    fn load(config: AuthConfig, version: u64) -> Result<Self, AuthFileError> {
        let passwords = config.password_file.as_deref().map(PasswordFile::load).transpose()?;
        let acl = config.acl_file.as_deref().map(Acl::load).transpose()?;
        Ok(Self { version, config, passwords, acl })
    }

    /// Whether a client with this identity would still be let in. A password may take 20 ms to check, so
    /// that even a client that has just connected may have been checked against older rules.
    fn admits(&self, identity: &Identity) -> bool {
        match &identity.proof {
            Proof::Nothing { listener } => self.config.anonymous_at(*listener),
            Proof::Password(hash) => {
                let user = identity.user().unwrap_or_default();
                self.passwords.as_ref().and_then(|file| file.hash(user)).is_some_and(|now| now == hash)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        net::{IpAddr, Ipv4Addr},
    };

    use tempfile::TempDir;

    use super::*;
    use crate::topic::TopicName;

    const ADA: &str = "ada:$7$1000$AAECAwQFBgcICQoL$JjKBbnHH93+2rrkzTmJ3wIXVEk6OzFra1FnlJU6uOfWU6FjrXLCsxiDlTTnm57zXdc1G9ZZ2iYfUHmZ+lJf7oQ==";
    const OTHER_HASH: &str = "ada:$6$AAECAwQFBgcICQoL$UVESpOtJwvHS8+UwVD+/3VLCuQj8a98S/jorI3aOJiZkSylcjpyrQ0sQD+5dKpk7w3+QkxsCk8xg0/f+N/yvaQ==";
    const PASSWORD: Option<&[u8]> = Some(b"tide and harbour");
    const INSIDE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 1883);
    const OUTSIDE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 1883);
    const REFUSED: Option<ReasonCode> = Some(ReasonCode::NotAuthorized);

    fn name(text: &str) -> TopicName<'_> {
        TopicName::parse(text, u16::MAX).unwrap()
    }

    /// Both files in a folder of their own, with these texts.
    fn files(users: &str, acl: &str) -> (TempDir, AuthConfig) {
        let folder = tempfile::tempdir().unwrap();
        let config = AuthConfig {
            vague_refusals: false,
            anonymous: None,
            password_file: Some(folder.path().join("users")),
            acl_file: Some(folder.path().join("acl")),
        };
        fs::write(folder.path().join("users"), users).unwrap();
        fs::write(folder.path().join("acl"), acl).unwrap();
        (folder, config)
    }

    #[test]
    fn without_config_anonymous_clients_connect_on_loopback_only() {
        let auth = Authenticator::load(AuthConfig::default()).unwrap();
        assert!(auth.authenticate(INSIDE, None, None).is_ok());
        assert_eq!(auth.authenticate(OUTSIDE, None, None).err(), REFUSED);
        assert_eq!(auth.authenticate(OUTSIDE, Some("ada"), PASSWORD).err(), REFUSED);
    }

    #[test]
    fn an_unchecked_user_name_is_kept_and_gives_no_rights() {
        let (_folder, mut config) = files("", "topic read a\nuser ada\ntopic b\npattern read %u/x");
        config.password_file = None;
        let auth = Authenticator::load(config).unwrap();
        let ada = auth.authenticate(INSIDE, Some("ada"), PASSWORD).unwrap();
        assert_eq!((ada.user(), ada.verified_user()), (Some("ada"), None));
        assert_eq!(ada.to_string(), "ada (not checked)");
        let rights = auth.rights(&ada, "1").unwrap();
        assert!(
            rights.may_receive(&name("a"))
                && !rights.may_receive(&name("b"))
                && !rights.may_receive(&name("ada/x"))
        );
    }

    #[test]
    fn anonymous_can_be_set() {
        let with = |anonymous| Authenticator::load(AuthConfig { anonymous, ..Default::default() }).unwrap();
        assert!(with(Some(true)).authenticate(OUTSIDE, None, None).is_ok());
        assert_eq!(with(Some(false)).authenticate(INSIDE, None, None).err(), REFUSED);
    }

    #[test]
    fn with_a_password_file_a_user_and_the_password_are_needed() {
        let (_folder, config) = files(ADA, "");
        let auth = Authenticator::load(config.clone()).unwrap();
        let refused = Some(ReasonCode::BadUserNameOrPassword);
        assert_eq!(auth.authenticate(OUTSIDE, Some("ada"), PASSWORD).unwrap().verified_user(), Some("ada"));
        assert_eq!(auth.authenticate(INSIDE, Some("ada"), Some(b"wrong")).err(), refused);
        assert_eq!(auth.authenticate(INSIDE, Some("ada"), None).err(), refused);
        assert_eq!(auth.authenticate(INSIDE, Some("eve"), PASSWORD).err(), refused);
        assert_eq!(auth.authenticate(INSIDE, Some(""), PASSWORD).err(), refused);
        assert_eq!(auth.authenticate(INSIDE, None, None).err(), REFUSED);
        assert_eq!(auth.authenticate(INSIDE, None, PASSWORD).err(), REFUSED);
        assert!(auth.checks_password(Some("eve")) && !auth.checks_password(None));

        let both = AuthConfig { anonymous: Some(true), ..config };
        let auth = Authenticator::load(both).unwrap();
        assert!(auth.authenticate(OUTSIDE, None, None).is_ok());
        assert_eq!(auth.authenticate(INSIDE, Some("eve"), PASSWORD).err(), refused, "not as anonymous");
    }

    #[test]
    fn a_reload_moves_the_version_and_the_rights() {
        let (folder, config) = files(ADA, "user ada\ntopic a");
        let auth = Authenticator::load(config).unwrap();
        let ada = auth.authenticate(OUTSIDE, Some("ada"), PASSWORD).unwrap();
        let before = auth.rights(&ada, "1").unwrap();
        assert!(before.version() == auth.version() && before.may_publish(&name("a")));

        fs::write(folder.path().join("acl"), "").unwrap();
        auth.reload().unwrap();
        assert_ne!(before.version(), auth.version());
        let after = auth.rights(&ada, "1").unwrap();
        assert!(after.version() == auth.version() && !after.may_publish(&name("a")));
    }

    #[test]
    fn a_reload_that_fails_keeps_the_old_rules() {
        let (folder, config) = files(ADA, "user ada\ntopic a");
        let auth = Authenticator::load(config).unwrap();
        let version = auth.version();
        let unchanged = || {
            assert!(auth.reload().is_err());
            let ada = auth.authenticate(OUTSIDE, Some("ada"), PASSWORD).unwrap();
            let rights = auth.rights(&ada, "1").unwrap();
            assert!(
                rights.may_publish(&name("a"))
                    && !rights.may_publish(&name("b"))
                    && auth.version() == version
            );
            assert!(auth.authenticate(INSIDE, None, None).is_err());
        };
        fs::write(folder.path().join("acl"), "user ada\ntopic b\noops").unwrap();
        unchanged();
        fs::write(folder.path().join("users"), "ada:").unwrap();
        unchanged();
        fs::remove_file(folder.path().join("users")).unwrap();
        unchanged();
        fs::remove_file(folder.path().join("acl")).unwrap();
        unchanged();
        let elsewhere = AuthConfig { acl_file: Some("/nowhere".into()), ..Default::default() };
        assert!(auth.reconfigure(elsewhere).is_err());
        unchanged();
    }

    #[test]
    fn a_start_with_a_missing_file_is_refused() {
        let (folder, config) = files(ADA, "");
        fs::remove_file(folder.path().join("acl")).unwrap();
        let error = Authenticator::load(config).err().unwrap();
        assert!(error.to_string().starts_with("cannot read "), "{error}");
    }

    #[test]
    fn who_was_removed_or_has_a_new_password_may_not_stay() {
        let (folder, config) = files(ADA, "");
        let auth = Authenticator::load(config).unwrap();
        let ada = auth.authenticate(OUTSIDE, Some("ada"), PASSWORD).unwrap();
        auth.reload().unwrap();
        assert!(auth.rights(&ada, "1").is_ok(), "nothing has changed");
        fs::write(folder.path().join("users"), OTHER_HASH).unwrap();
        auth.reload().unwrap();
        assert_eq!(auth.rights(&ada, "1").err(), REFUSED, "the password has changed");
        fs::write(folder.path().join("users"), "").unwrap();
        auth.reload().unwrap();
        assert_eq!(auth.rights(&ada, "1").err(), REFUSED, "the user is gone");
    }

    #[test]
    fn anonymous_clients_may_not_stay_when_users_are_asked_for() {
        let (_folder, config) = files(ADA, "");
        let auth = Authenticator::load(AuthConfig::default()).unwrap();
        let nobody = auth.authenticate(INSIDE, None, None).unwrap();
        assert!(auth.rights(&nobody, "1").unwrap().unrestricted());
        auth.reconfigure(config).unwrap();
        assert_eq!(auth.rights(&nobody, "1").err(), REFUSED);
    }
}
