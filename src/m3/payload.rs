//! What lies in the chunks of a commit log: one stream of records, each behind its length.
//!
//! Invariants
//! * A chunk is compared with its checksums before a byte of it is used.
//! * Records do not heed chunks, and may span them. Nothing behind damage is read: where a record begins only those before it tell.
//!
//! Its tests are those of `commit_log`.

use crate::fileset::Damage;

/// The size of the payload, the checksum of that size, the checksum of the payload.
pub(super) const CHUNK_HEADER_BYTES: usize = 12;
const LENGTH_BYTES_MAX: u32 = 10;

/// The payloads of the chunks as one stream of bytes, and the records in it.
#[derive(Debug)]
pub(super) struct Payload<'l> {
    /// The file.
    bytes: &'l [u8],
    /// What is left of the current chunk's payload, as places in the file.
    at: usize,
    chunk_end: usize,
    /// A record that lies in parts.
    joined: Vec<u8>,
    torn: bool,
}

impl<'l> Payload<'l> {
    pub(super) fn new(bytes: &'l [u8]) -> Self {
        Payload { bytes, at: 0, chunk_end: 0, joined: Vec::new(), torn: false }
    }

    /// The next record and where in the file it begins; `None` at the end.
    pub(super) fn record(&mut self) -> Result<Option<(u64, &[u8])>, Damage> {
        if !self.fill()? {
            return Ok(None);
        }
        let begin = self.at;
        let length = self.length(begin)?;
        // Payloads have no more than the file has behind this place.
        let length = usize::try_from(length).ok().filter(|length| *length <= self.bytes.len() - self.at);
        let Some(length) = length else {
            return Err(self.torn_at(begin, "a record is longer than what is left of the file"));
        };
        if length <= self.chunk_end - self.at {
            let record = self.bytes.get(self.at..self.at + length).unwrap_or_default();
            self.at += length;
            return Ok(Some((begin as u64, record)));
        }
        self.joined.clear();
        while self.joined.len() < length {
            if !self.fill()? {
                return Err(self.torn_at(begin, "the file ends within a record"));
            }
            let end = self.chunk_end.min(self.at + (length - self.joined.len()));
            self.joined.extend(self.bytes.get(self.at..end).unwrap_or_default());
            self.at = end;
        }
        Ok(Some((begin as u64, &self.joined)))
    }

    /// Whether it ended in damage that reaches the end of the file.
    pub(super) fn is_torn(&self) -> bool {
        self.torn
    }

    /// Where in the file the current chunk ends.
    pub(super) fn position(&self) -> u64 {
        self.chunk_end as u64
    }

    /// The length of the record that begins at `begin`: seven bits to a byte, the lowest first.
    fn length(&mut self, begin: usize) -> Result<u64, Damage> {
        let mut length = 0_u64;
        for place in 0..LENGTH_BYTES_MAX {
            if !self.fill()? {
                return Err(self.torn_at(begin, "the file ends within a record"));
            }
            let byte = self.bytes.get(self.at).copied().unwrap_or_default();
            self.at += 1;
            let bits = u64::from(byte & 0x7f);
            if bits.leading_zeros() < 7 * place {
                break;
            }
            length |= bits << (7 * place);
            if byte & 0x80 == 0 {
                return Ok(length);
            }
        }
        Err(Damage::at(begin, "a record's length is no number"))
    }

    /// Makes sure that there are bytes left of the current chunk: checks the next one if not. `false` at the end of the file.
    fn fill(&mut self) -> Result<bool, Damage> {
        while self.at == self.chunk_end {
            let begin = self.chunk_end;
            let rest = self.bytes.get(begin..).unwrap_or_default();
            if rest.is_empty() {
                return Ok(false);
            }
            let Some((header, rest)) = rest.split_first_chunk::<CHUNK_HEADER_BYTES>() else {
                return Err(self.torn_at(begin, "the file ends within a chunk's header"));
            };
            let [size, size_checksum, checksum] = header_fields(*header);
            if simd_adler32::adler32(&&size.to_le_bytes()[..]) != size_checksum {
                // Room that the file system gave and nobody wrote to.
                self.torn = header.iter().chain(rest).all(|byte| *byte == 0);
                return Err(Damage::at(begin, "a chunk's size differs from its checksum"));
            }
            let Some(payload) = usize::try_from(size).ok().and_then(|size| rest.get(..size)) else {
                return Err(self.torn_at(begin, "the file ends within a chunk"));
            };
            if simd_adler32::adler32(&payload) != checksum {
                self.torn = payload.len() == rest.len();
                return Err(Damage::at(begin, "a chunk differs from its checksum"));
            }
            self.at = begin + CHUNK_HEADER_BYTES;
            self.chunk_end = self.at + payload.len();
        }
        Ok(true)
    }

    /// Damage that reaches the end of the file.
    fn torn_at(&mut self, at: usize, reason: &'static str) -> Damage {
        self.torn = true;
        Damage::at(at, reason)
    }
}

fn header_fields(header: [u8; CHUNK_HEADER_BYTES]) -> [u32; 3] {
    let (fields, _) = header.as_chunks();
    std::array::from_fn(|at| fields.get(at).copied().map_or(0, u32::from_le_bytes))
}
