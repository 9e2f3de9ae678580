//! Numbers and strings in rows: variable-length integers and length-prefixed bytes.

use super::StoreError;

/// Appends an integer, seven bits to a byte, lowest first.
pub(super) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends bytes behind their length.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads what the functions above wrote. A row that ends early or holds what was never written is damage,
/// and says so instead of being guessed at.
pub(super) struct RowReader<'a> {
    rest: &'a [u8],
    row: &'static str,
}

impl<'a> RowReader<'a> {
    /// A reader over a row; `row` names its kind in errors.
    pub(super) fn new(row: &'static str, bytes: &'a [u8]) -> Self {
        Self { rest: bytes, row }
    }

    pub(super) fn u8(&mut self) -> Result<u8, StoreError> {
        let (first, rest) = self.rest.split_first().ok_or_else(|| self.damaged())?;
        self.rest = rest;
        Ok(*first)
    }

    pub(super) fn varint(&mut self) -> Result<u64, StoreError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            // The tenth byte has room for one bit.
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.damaged())
    }

    pub(super) fn u32(&mut self) -> Result<u32, StoreError> {
        u32::try_from(self.varint()?).map_err(|_| self.damaged())
    }

    pub(super) fn u16(&mut self) -> Result<u16, StoreError> {
        u16::try_from(self.varint()?).map_err(|_| self.damaged())
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], StoreError> {
        let len = self.varint()?;
        let len = usize::try_from(len).map_err(|_| self.damaged())?;
        let (taken, rest) = self.rest.split_at_checked(len).ok_or_else(|| self.damaged())?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn str(&mut self) -> Result<&'a str, StoreError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| self.damaged())
    }

    /// A flag that is written as a whole byte.
    pub(super) fn bool(&mut self) -> Result<bool, StoreError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.damaged()),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The row has to end here.
    pub(super) fn finish(self) -> Result<(), StoreError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.damaged()) }
    }

    pub(super) fn rest(self) -> &'a [u8] {
        self.rest
    }

    pub(super) fn damaged(&self) -> StoreError {
        StoreError::Damaged(format!("a row of kind \"{}\" does not hold what was written", self.row))
    }
}
