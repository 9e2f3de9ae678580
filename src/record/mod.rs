//! The values that become durable, and the numbers that name them.
//!
//! Plain data: no closure, no pointer to a connection, no handle of the database. The same record could
//! be replicated to another machine and applied there.

mod attempts;
mod change;
mod dead_letter;
mod dead_letter_form;
mod dead_letter_view;
mod message;
mod numbers;

pub use attempts::{ATTEMPTS_MAX, Attempt, AttemptOutcome, Attempts, EXCERPT_KEPT_MAX, SavedTries};
pub use change::{
    Change, Exchange, ExchangeState, InboundExchange, Leg, Pause, Publication, Record, SessionDelta,
    SessionOpened, SubscriptionIds, SubscriptionRow, WillRecord,
};
pub use dead_letter::{Addressee, DeadLetter, DeadLetterReason};
pub use dead_letter_form::DeadLetterError;
pub use dead_letter_view::{AddresseeView, AttemptView, AttemptsView, DeadLetterView, PropertiesView};
pub use message::{Message, MessageHead, MessageParts, Publisher, expiry};
pub use numbers::{Epoch, GlobalNo, Lsn, RecipientNo, UnixMillis};
