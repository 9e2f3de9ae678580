//! Dead letters: what an operator does with them, and where copies of them go.
//!
//! Invariant: a letter leaves the store only at the word of an operator or of the configuration, and is replayed
//! once, however many ask for it at the same time.

pub(super) mod file;
mod filter;
mod import;
mod operator;

pub use filter::DeadLetterFilter;
pub use import::{Import, ImportError, Imported};
pub use operator::{DeadLetterPage, DeadLetters, DeadLettersError, FiledLetter};
