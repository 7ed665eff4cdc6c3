//! Numbers one behind the other, little endian.

/// Takes fields off the front of bytes. What lies behind their end reads as zero: whoever asks has compared the length.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    pub(super) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let Some((field, rest)) = self.0.split_first_chunk() else {
            self.0 = &[];
            return [0; N];
        };
        self.0 = rest;
        *field
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.bytes())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    pub(super) fn i64(&mut self) -> i64 {
        i64::from_le_bytes(self.bytes())
    }

    pub(super) fn f64(&mut self) -> f64 {
        f64::from_le_bytes(self.bytes())
    }

    /// Whether nothing but zeros is left.
    pub(super) fn rest_is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }
}

/// Puts fields one behind the other into an array. What does not fit is a mistake of the caller, and left out.
#[derive(Debug)]
pub(super) struct FieldsMut<'a>(pub(super) &'a mut [u8]);

impl FieldsMut<'_> {
    pub(super) fn put<const N: usize>(&mut self, field: [u8; N]) {
        debug_assert!(self.0.len() >= N);
        if let Some((place, rest)) = std::mem::take(&mut self.0).split_first_chunk_mut() {
            *place = field;
            self.0 = rest;
        }
    }

    pub(super) fn skip(&mut self, len: usize) {
        self.0 = std::mem::take(&mut self.0).get_mut(len..).unwrap_or_default();
    }
}
