//! Frames: how one record lies in a segment.
//!
//! A frame is a 40-byte header and a payload, padded with zeros to 8 bytes. A record is one frame of kind [`Kind::Whole`] or,
//! where a segment ends inside it, one [`Kind::First`], any number of [`Kind::Middle`] and one [`Kind::Last`].
//!
//! Invariants
//! * Offsets and the lengths of all pieces but the last of a record are multiples of 8, so splitting adds no padding.
//! * A header is bound to its place: its checksum starts from the segment's identity and it names its own offset. Neither a
//!   leftover of an earlier incarnation nor a frame that was copied elsewhere parses.
//!
//! Format: `design/commitlog.md`.

use super::Position;

/// Bytes of a frame's header.
pub(crate) const FRAME_HEADER_BYTES: u32 = 40;
/// Frames start at multiples of this, in bytes.
pub(crate) const FRAME_ALIGNMENT: u32 = 8;
/// The smallest rest of a segment that still takes a frame, in bytes. A shorter rest stays zero.
pub(crate) const FRAME_BYTES_MIN: u32 = FRAME_HEADER_BYTES + FRAME_ALIGNMENT;

const HEADER: usize = FRAME_HEADER_BYTES as usize;

/// The bytes that a record with a payload of this length takes in one piece: what a caller reserves before writing it.
pub(crate) const fn frame_bytes(payload_len: u64) -> u64 {
    FRAME_HEADER_BYTES as u64 + padded(payload_len)
}

/// The next multiple of [`FRAME_ALIGNMENT`].
const fn padded(len: u64) -> u64 {
    len.next_multiple_of(FRAME_ALIGNMENT as u64)
}

/// What part of a record a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A record in one piece.
    Whole,
    /// The first piece of a record.
    First,
    /// A piece that is neither the first nor the last.
    Middle,
    /// The last piece of a record.
    Last,
    /// No record: all versions from the one expected here to the frame's own were lost and given up by a salvage.
    Lost,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Kind::Whole,
            2 => Kind::First,
            3 => Kind::Middle,
            4 => Kind::Last,
            5 => Kind::Lost,
            _ => return None,
        })
    }

    fn byte(self) -> u8 {
        match self {
            Kind::Whole => 1,
            Kind::First => 2,
            Kind::Middle => 3,
            Kind::Last => 4,
            Kind::Lost => 5,
        }
    }

    /// Whether a payload of this length can belong to such a frame.
    fn takes(self, payload_len: u32) -> bool {
        match self {
            Kind::Whole => true,
            Kind::First | Kind::Middle => payload_len > 0 && payload_len.is_multiple_of(FRAME_ALIGNMENT),
            Kind::Last => payload_len > 0,
            Kind::Lost => payload_len == 0,
        }
    }
}

/// What every header checksum of a segment starts from: its database, sequence and incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameSeed(u32);

impl FrameSeed {
    pub(crate) fn new(database_id: &[u8; 16], sequence: u64, incarnation: u64) -> Self {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(database_id);
        hasher.update(&sequence.to_le_bytes());
        hasher.update(&incarnation.to_le_bytes());
        FrameSeed(hasher.finalize())
    }

    fn checksum(self, bytes: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new_with_initial(self.0);
        hasher.update(bytes);
        hasher.finalize()
    }
}

/// A frame's header, without what follows from its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) kind: Kind,
    pub(crate) version: u64,
    pub(crate) payload_len: u32,
    pub(crate) payload_crc: u32,
    /// Everything before this position was known to be synced when the frame was written.
    pub(crate) synced: Position,
}

impl FrameHeader {
    /// The header's bytes for a frame at `offset`.
    pub(crate) fn encode(&self, seed: FrameSeed, offset: u32) -> [u8; HEADER] {
        debug_assert!(offset.is_multiple_of(FRAME_ALIGNMENT) && self.kind.takes(self.payload_len));
        let mut bytes = [0; HEADER];
        bytes[4..8].copy_from_slice(&self.payload_len.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.payload_crc.to_le_bytes());
        bytes[12] = self.kind.byte();
        bytes[16..24].copy_from_slice(&self.version.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.synced.segment.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.synced.offset.to_le_bytes());
        bytes[36..40].copy_from_slice(&offset.to_le_bytes());
        let crc = seed.checksum(&bytes[4..]);
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The header at `offset` of a segment's `bytes`, if there is a sound one whose payload fits into what is left.
    ///
    /// Cheap where there is none: the offset field is compared before the checksum.
    pub(crate) fn decode(bytes: &[u8], offset: u32, seed: FrameSeed) -> Option<Self> {
        let rest = bytes.get(offset as usize..)?;
        let header = rest.first_chunk::<HEADER>()?;
        if le_u32(header, 36) != offset || header[13..16] != [0; 3] {
            return None;
        }
        let kind = Kind::from_byte(header[12])?;
        if le_u32(header, 0) != seed.checksum(&header[4..]) {
            return None;
        }
        let payload_len = le_u32(header, 4);
        if !kind.takes(payload_len) || frame_bytes(payload_len.into()) > rest.len() as u64 {
            return None;
        }
        Some(FrameHeader {
            kind,
            version: le_u64(header, 16),
            payload_len,
            payload_crc: le_u32(header, 8),
            synced: Position { segment: le_u64(header, 24), offset: le_u32(header, 32) },
        })
    }

    /// The bytes of the whole frame. It lies within its segment, so this fits.
    pub(crate) fn frame_bytes(&self) -> u32 {
        frame_bytes(self.payload_len.into()) as u32
    }

    /// The payload of a frame that [`FrameHeader::decode`] found at `offset` of the same `bytes`.
    ///
    /// # Errors
    /// What is wrong: its checksum (unless `trust` is set) or the padding behind it.
    pub(crate) fn payload<'a>(
        &self,
        bytes: &'a [u8],
        offset: u32,
        trust: bool,
    ) -> std::result::Result<&'a [u8], &'static str> {
        let start = offset as usize + HEADER;
        let end = start + self.payload_len as usize;
        let padded_end = offset as usize + self.frame_bytes() as usize;
        let (Some(payload), Some(padding)) = (bytes.get(start..end), bytes.get(end..padded_end)) else {
            return Err("the payload reaches past the segment");
        };
        if !trust && crc32fast::hash(payload) != self.payload_crc {
            return Err("the payload's checksum differs");
        }
        if padding.iter().any(|byte| *byte != 0) {
            return Err("the padding is not zero");
        }
        Ok(payload)
    }
}

/// A little-endian number at a place that the caller knows to be inside.
pub(crate) fn le_u32<const N: usize>(bytes: &[u8; N], at: usize) -> u32 {
    u32::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

/// A little-endian number at a place that the caller knows to be inside.
pub(crate) fn le_u64<const N: usize>(bytes: &[u8; N], at: usize) -> u64 {
    u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFSET: u32 = 64;

    fn example() -> (FrameSeed, FrameHeader, Vec<u8>) {
        let seed = FrameSeed::new(&[7; 16], 3, 1);
        let payload = b"payload";
        let header = FrameHeader {
            kind: Kind::Whole,
            version: 42,
            payload_len: payload.len() as u32,
            payload_crc: crc32fast::hash(payload),
            synced: Position { segment: 2, offset: 128 },
        };
        let mut bytes = vec![0; OFFSET as usize];
        bytes.extend(header.encode(seed, OFFSET));
        bytes.extend(payload);
        bytes.push(0);
        (seed, header, bytes)
    }

    #[test]
    fn frame_reads_back() {
        let (seed, header, bytes) = example();
        assert_eq!(FrameHeader::decode(&bytes, OFFSET, seed), Some(header));
        assert_eq!(header.payload(&bytes, OFFSET, false), Ok(&b"payload"[..]));
        assert_eq!(u64::from(header.frame_bytes()), frame_bytes(7));
    }

    #[test]
    fn every_flipped_bit_of_a_frame_is_noticed() {
        let (seed, _, bytes) = example();
        for bit in OFFSET as usize * 8..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let sound = FrameHeader::decode(&damaged, OFFSET, seed)
                .is_some_and(|header| header.payload(&damaged, OFFSET, false).is_ok());
            assert!(!sound, "bit {bit} went unnoticed");
        }
    }

    #[test]
    fn frame_is_bound_to_its_place() {
        let (seed, _, bytes) = example();
        assert_eq!(FrameHeader::decode(&bytes[8..], OFFSET - 8, seed), None, "another offset");
        for other in
            [FrameSeed::new(&[8; 16], 3, 1), FrameSeed::new(&[7; 16], 4, 1), FrameSeed::new(&[7; 16], 3, 2)]
        {
            assert_eq!(FrameHeader::decode(&bytes, OFFSET, other), None, "another segment");
        }
    }

    #[test]
    fn length_past_the_segment_is_refused() {
        let (seed, header, bytes) = example();
        let long = FrameHeader { payload_len: u32::MAX, ..header };
        let mut damaged = bytes.clone();
        damaged[OFFSET as usize..OFFSET as usize + HEADER].copy_from_slice(&long.encode(seed, OFFSET));
        assert_eq!(FrameHeader::decode(&damaged, OFFSET, seed), None);
        assert_eq!(FrameHeader::decode(&bytes[..bytes.len() - 1], OFFSET, seed), None);
    }
}
