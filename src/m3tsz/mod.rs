//! The M3TSZ codec: points `(timestamp, value)` to a compressed bit stream and back.
//!
//! M3TSZ is the stream format of the M3 database: delta-of-delta timestamps and values that are either differences of
//! scaled integers or XORs of floating-point bits. This module is the codec alone. It does no I/O, takes no locks,
//! reads no clock and uses nothing else of this crate. The format, bit by bit: `design/m3tsz.md`.
//!
//! * Timestamps are `i64` nanoseconds since the Unix epoch, in any order.
//! * Values are `f64`; NaN payloads, infinities and `-0.0` are values like any other.
//! * A point may carry an annotation, a string of bytes.
//!
//! An [`Encoder`] has two modes. [`Mode::Lossless`], the default, returns from a [`Decoder`] exactly the points that
//! went in, and M3's own decoder reads its streams too (unless a point lies at timestamp 0). [`Mode::M3`] writes the
//! very bytes that M3 writes, and so loses what M3 loses: see the mode.
//!
//! A stream has no checksum, no length and no mark of its [`ValueCoding`]: whoever stores it keeps those. Decoding
//! damaged bytes never panics and never allocates more than the bytes could hold, but it may return wrong points before
//! it notices, or never notice.
//!
//! ```
//! use chronolith::m3tsz::{Decoder, Encoder, EncoderOptions, ValueCoding};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let start = 1_700_000_000_000_000_000;
//! let mut encoder = Encoder::new(start, EncoderOptions::default());
//! encoder.append(start, 42.0, b"")?;
//! encoder.append(start + 10_000_000_000, 42.5, b"restarted")?;
//!
//! let mut stream = Vec::new();
//! encoder.finish_into(&mut stream);
//!
//! let mut decoder = Decoder::new(&stream, ValueCoding::IntOptimized);
//! let mut last = None;
//! while let Some(point) = decoder.next_point() {
//!     let point = point?;
//!     last = Some((point.timestamp, point.value, point.annotation.to_vec()));
//! }
//! assert_eq!(last, Some((start + 10_000_000_000, 42.5, b"restarted".to_vec())));
//! # Ok(())
//! # }
//! ```

mod bits;
mod decoder;
mod encoder;
mod error;
mod marker;
pub mod plain;
mod run;
mod scale;
mod significant;
mod timestamps;
mod twice;
mod unit;
mod values;
mod xor;

pub use decoder::{DecodedPoint, Decoder, DecoderState};
pub use encoder::{Encoder, EncoderOptions, Mode};
pub use error::{DecodeError, DecodeErrorKind, EncodeError};
pub use marker::ANNOTATION_BYTES_MAX;
pub use unit::{TimeUnit, UnsupportedUnit};
pub use values::ValueCoding;
