//! The plain codec: M3TSZ written down field by field, as `design/m3tsz.md` has it. **Slow on purpose**; whoever wants
//! to store points wants [`m3tsz::Encoder`](super::Encoder) and [`m3tsz::Decoder`](super::Decoder).
//!
//! It has two uses.
//! * It is the twin that the fast codec is compared with (`tests/m3tsz_twin.rs`): the same bytes, the same points, the
//!   same errors at the same bits. So it shares with it the public types and nothing else, works one bit at a time, and
//!   scales values in M3's own terms.
//! * It explains streams: a [`Decoder`] that is [asked to](Decoder::explaining) accounts for every bit it has read, as [`Field`]s.
//!
//! ```
//! use chronolith::m3tsz::plain::{Decoder, Encoder, FieldKind};
//! use chronolith::m3tsz::{EncoderOptions, ValueCoding};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let start = 1_700_000_000_000_000_000;
//! let mut encoder = Encoder::new(start, EncoderOptions::default());
//! encoder.append(start, 42.0, b"")?;
//! let stream = encoder.finish();
//!
//! let mut decoder = Decoder::explaining(&stream, ValueCoding::IntOptimized);
//! assert!(decoder.next_point().is_some());
//! let last = decoder.fields().last().ok_or("no fields")?;
//! assert_eq!((last.bits.clone(), last.kind), (76..82, FieldKind::Magnitude { magnitude: 42, int: 42.0, mult: 0 }));
//! # Ok(())
//! # }
//! ```
//!
//! Parts: `bits` (bit strings), `constants` (the figures of the format page), `integer` (which values are integers, and
//! how wide their differences are written), `encoder`, `field`, `decoder`.

mod bits;
mod constants;
mod decoder;
mod encoder;
mod field;
mod integer;

pub use bits::bits_of;
pub use decoder::Decoder;
pub use encoder::Encoder;
pub use field::{Field, FieldKind, Part};
