//! The values that become durable, and the numbers that name them.
//!
//! Plain data: no closure, no pointer to a connection, no handle of the database. The same record could
//! be replicated to another machine and applied there.

mod change;
mod message;
mod numbers;

pub use change::{
    Change, Exchange, ExchangeState, Leg, Publication, Record, SessionDelta, SessionOpened, SubscriptionIds,
    SubscriptionRow, WillRecord,
};
pub use message::{Message, MessageHead, MessageParts, expiry};
pub use numbers::{Epoch, Lsn, RecipientNo, UnixMillis};
