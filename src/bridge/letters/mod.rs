//! Dead letters: what an operator does with them, and where copies of them go.
//!
//! Invariant: a letter leaves the store only at the word of an operator or of the configuration, and is replayed
//! once, however many ask for it at the same time.

mod filter;
mod operator;

pub use filter::DeadLetterFilter;
pub use operator::{DeadLetterPage, DeadLetters, DeadLettersError, FiledLetter};
