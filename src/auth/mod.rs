//! Who may connect, and who may publish and subscribe where.
//!
//! Users come from a password file and rights from an ACL file; both are read as a whole, and a file with
//! one line that cannot be understood is refused as a whole. [`Authenticator`] holds what was read last. A client
//! shows its password in CONNECT, or proves by SCRAM that it knows it ([`Exchange`]).
//! Nothing here knows a connection: the caller asks at CONNECT, at every path that can deliver, and again
//! when [`Authenticator::version`] has moved.
//!
//! Invariant: no error opens a door. A file that is missing, empty, half-written or unreadable refuses the
//! start or leaves the old rules in force; it never leaves fewer of them (CVE-2017-7652, CVE-2018-12550,
//! CVE-2018-12551).

mod acl;
mod authenticator;
mod credential;
mod enhanced;
mod filter_relation;
mod hash;
mod identity;
mod password_edit;
mod password_file;
mod rights;
mod scram;
mod scram_verifier;
mod text_file;

pub use acl::Acl;
pub use authenticator::Authenticator;
pub use enhanced::{Exchange, SCRAM_SHA_256, Step};
pub use identity::{Escaped, Identity};
pub use password_edit::{Change, Keep, PasswordEditError, remove_user, set_password};
pub use password_file::PasswordFile;
pub use rights::{Access, Explanation, Request, Rights, Rule, Subscribe};
pub use scram::ScramError;
pub use scram_verifier::{SCRAM_ITERATIONS, SCRAM_ITERATIONS_MAX, SCRAM_ITERATIONS_MIN};
pub use text_file::AuthFileError;
