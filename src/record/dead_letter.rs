//! A dead letter: a message that had to be given up, for whom, and why.
//!
//! Nothing of the message is lost, so that it can be delivered after all. How it is stored is in
//! `dead_letter_form`, how it is shown in `dead_letter_view`.

use super::{Attempts, GlobalNo, Lsn, Message, UnixMillis};

/// A message that was given up, for one recipient. It is filed under a number of the record that stores it,
/// which is not known yet when it is encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The number of the message, which a replay goes on using: a target then sees the same key. Zero when it
    /// had none yet.
    pub message_no: Lsn,
    /// Which limit, rule or event it fell to.
    pub reason: DeadLetterReason,
    /// What exactly, where there is more to say: why a template failed, how large it is. One line, safe to print.
    pub detail: Option<String>,
    /// The one recipient; others that were owed the message have letters of their own, or none.
    pub addressee: Addressee,
    /// Whole: its topic, the properties that are forwarded, and its payload.
    pub message: Message,
    /// `None` when the message was given up before it was tried.
    pub attempts: Option<Attempts>,
    /// When the message was given up.
    pub created_at: UnixMillis,
    /// What it was filed as before it was exported and imported again.
    pub imported_from: Option<GlobalNo>,
}

/// Whom a dead letter was for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addressee {
    /// A route and the target it named then.
    Route {
        /// Its name, as in the configuration.
        route: String,
        /// Its name, as in the configuration.
        target: String,
    },
    /// The session of this client, or the shared group of this name.
    Session {
        /// The Client Identifier, or the group's name.
        client_id: String,
    },
    /// Nobody was there to take it.
    Nobody,
}

impl DeadLetter {
    /// A message that was given up before it was tried, and before it had a number.
    pub fn new(
        reason: DeadLetterReason,
        addressee: Addressee,
        message: Message,
        created_at: UnixMillis,
    ) -> Self {
        Self {
            message_no: Lsn::ZERO,
            reason,
            detail: None,
            addressee,
            message,
            attempts: None,
            created_at,
            imported_from: None,
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)+) => {
        /// Why a message was given up. The numbers are stored: they never change their meaning.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum DeadLetterReason { $($(#[$doc])* $name = $value),+ }

        impl DeadLetterReason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// The word for JSON, metrics and the command line.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// The reason that this word stands for.
            pub fn from_word(word: &str) -> Option<Self> {
                Self::ALL.iter().find(|reason| reason.as_str() == word).copied()
            }

            pub(super) fn from_u8(value: u8) -> Option<Self> {
                match value { $($value => Some(Self::$name),)+ _ => None }
            }
        }
    };
}

reasons! {
    /// The target answered as often as its policy allows, and never took it.
    AttemptsExhausted = 1, "attempts_exhausted";
    /// It was older than the policy's `max_age`, mostly because its target was down.
    MaxAge = 2, "max_age";
    /// Its Message Expiry Interval ran out.
    Expired = 3, "expired";
    /// The target answered with a status that says "never".
    Rejected = 4, "rejected";
    /// The queue it was in, or should have entered, held its most messages.
    QueueFull = 5, "queue_full";
    /// The queue it was in, or should have entered, held its most bytes.
    QueueBytesFull = 6, "queue_bytes_full";
    /// Its route or target is no longer configured.
    TargetRemoved = 7, "target_removed";
    /// It waited in its queue for longer than that allows.
    QueueAge = 8, "queue_age";
    /// No request could be made from it: a template has no value for it, or its payload is not what the body needs.
    Unrenderable = 9, "unrenderable";
    /// The filter of its route could not be evaluated for it.
    FilterError = 10, "filter_error";
    /// It kept those behind it waiting for longer than its route allows.
    Blocked = 11, "blocked";
    /// It is larger than what its addressee takes.
    Oversize = 12, "oversize";
    /// Nobody was there to take it.
    Unroutable = 13, "unroutable";
    /// It has come back through routes too often.
    Loop = 14, "loop";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_a_word_of_its_own() {
        for reason in DeadLetterReason::ALL {
            let same = DeadLetterReason::ALL.iter().filter(|other| other.as_str() == reason.as_str());
            assert_eq!(same.count(), 1, "{reason:?}");
        }
    }
}
