//! What is on disk: any bytes are read as a row or refused as damaged, and a row that was read is written
//! as one that reads the same. The first byte says which kind of row it is.
//!
//! Rows are private to the store, so that three of its files are compiled here once more, and this module
//! stands in for `src/store/mod.rs`.

#[path = "../../../../src/store/bytes.rs"]
#[allow(dead_code, reason = "not everything of the store is called from here")]
mod bytes;
#[path = "../../../../src/store/rows.rs"]
#[allow(clippy::module_inception, dead_code, reason = "it has the name that it has in the store")]
mod rows;
#[path = "../../../../src/store/runs.rs"]
#[allow(dead_code, reason = "as above")]
mod runs;

use causeway::record::{DeadLetter, Leg, Lsn, Message, RecipientNo};
use causeway::store::StoreError;

use super::Input;

pub fn run(input: &[u8]) {
    let mut input = Input(input);
    match input.below(7) {
        0 => check(message, put_message, input.0),
        1 => check(|bytes| rows::session(RecipientNo(3), bytes), rows::put_session, input.0),
        2 => check(rows::progress, rows::put_progress, input.0),
        3 => check(
            |bytes| rows::subscription("a/#", bytes),
            |out, row| rows::put_subscription(out, row.options, row.id),
            input.0,
        ),
        4 => check(rows::chunk, rows::put_chunk, input.0),
        5 => check(rows::indexed, |out, row| rows::put_indexed(out, *row), input.0),
        _ => {
            let Ok(letter) = DeadLetter::decode(input.0) else { return };
            let mut bytes = Vec::new();
            letter.encode(&mut bytes);
            assert_eq!(DeadLetter::decode(&bytes), Ok(letter));
        }
    }
}

/// Reads, writes and reads once more; a row that is cut short is never the same row.
fn check<T: PartialEq + std::fmt::Debug>(
    read: impl Fn(&[u8]) -> Result<T, StoreError>,
    put: impl Fn(&mut Vec<u8>, &T),
    bytes: &[u8],
) {
    let row = match read(bytes) {
        Ok(row) => row,
        Err(error) => return assert!(matches!(error, StoreError::Damaged(_)), "{error}"),
    };
    let mut written = Vec::new();
    put(&mut written, &row);
    let same = read(&written).unwrap_or_else(|error| panic!("{error}: {row:?}"));
    assert_eq!(same, row);
    for len in 0..written.len().min(256) {
        assert_ne!(read(&written[..len]).ok().as_ref(), Some(&row), "cut to {len} bytes");
    }
}

/// A message, the number it had before, and its legs.
type MessageRow = (Message, Option<Lsn>, Vec<Leg>);

fn message(bytes: &[u8]) -> Result<MessageRow, StoreError> {
    let (mut legs, mut same) = (Vec::new(), Vec::new());
    let legs_alone = rows::message_legs(bytes, |leg| same.push(leg));
    let row = rows::message(bytes, |leg| legs.push(leg))?;
    assert!(legs_alone.is_ok() && legs == same, "the legs alone are {same:?} and not {legs:?}");
    Ok((row.message, row.origin, legs))
}

fn put_message(out: &mut Vec<u8>, (message, origin, legs): &MessageRow) {
    rows::put_message(out, message, legs, *origin);
}
