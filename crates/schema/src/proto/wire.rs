//! The wire format: varints, lengths and fields.

use super::ProtoError;

/// A buffer that fields are appended to.
#[derive(Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
}

/// A cursor over the fields of a message.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    message: &'static str,
}

/// What a field holds on the wire.
#[derive(Clone, Copy)]
pub(super) enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

// === impl Writer ===

impl Writer {
    pub(super) fn starting_with(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec() }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn number(&mut self, field: u32, value: i64) {
        self.tag(field, 0);
        self.varint(value.cast_unsigned());
    }

    pub(super) fn double(&mut self, field: u32, value: f64) {
        self.tag(field, 1);
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn text(&mut self, field: u32, value: &str) {
        self.bytes(field, value.as_bytes());
    }

    pub(super) fn bytes(&mut self, field: u32, value: &[u8]) {
        self.tag(field, 2);
        self.varint(value.len() as u64);
        self.bytes.extend_from_slice(value);
    }

    /// A message as a field: its length is put before it when it is known.
    pub(super) fn nested(&mut self, field: u32, fill: impl FnOnce(&mut Self)) {
        self.tag(field, 2);
        let start = self.bytes.len();
        // Most messages are short: one byte is kept for the length.
        self.bytes.push(0);
        fill(self);
        let length = self.bytes.len() - start - 1;
        if let Ok(short @ 0..0x80) = u8::try_from(length) {
            self.bytes[start] = short;
            return;
        }
        let mut prefix = Self::default();
        prefix.varint(length as u64);
        self.bytes.splice(start..=start, prefix.bytes);
    }

    fn tag(&mut self, field: u32, wire: u8) {
        self.varint(u64::from(field) << 3 | u64::from(wire));
    }

    fn varint(&mut self, mut value: u64) {
        loop {
            let byte = u8::try_from(value & 0x7f).unwrap_or(0);
            value >>= 7;
            if value == 0 {
                self.bytes.push(byte);
                return;
            }
            self.bytes.push(byte | 0x80);
        }
    }
}

// === impl Reader ===

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], message: &'static str) -> Self {
        Self { rest: bytes, message }
    }

    /// The next field with its number; nothing at the end.
    pub(super) fn field(&mut self) -> Result<Option<(u32, Wire<'a>)>, ProtoError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0).ok_or_else(|| self.illegal())?;
        let wire = match tag & 7 {
            0 => Wire::Varint(self.varint()?),
            1 => {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(self.take(8)?);
                Wire::Fixed64(u64::from_le_bytes(bytes))
            }
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| ProtoError::Truncated)?;
                Wire::Bytes(self.take(length)?)
            }
            5 => {
                self.take(4)?;
                Wire::Fixed32
            }
            _ => return Err(self.illegal()),
        };
        Ok(Some((number, wire)))
    }

    pub(super) fn varint(&mut self) -> Result<u64, ProtoError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.illegal())
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], ProtoError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(ProtoError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn illegal(&self) -> ProtoError {
        ProtoError::Illegal { message: self.message }
    }
}

// === impl Wire ===

impl<'a> Wire<'a> {
    pub(super) fn bytes(self, message: &'static str) -> Result<&'a [u8], ProtoError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(ProtoError::Illegal { message }),
        }
    }

    pub(super) fn text(self, message: &'static str) -> Result<String, ProtoError> {
        Ok(String::from_utf8_lossy(self.bytes(message)?).into_owned())
    }

    pub(super) fn number(self, message: &'static str) -> Result<i64, ProtoError> {
        match self {
            Self::Varint(value) => Ok(value.cast_signed()),
            _ => Err(ProtoError::Illegal { message }),
        }
    }
}
