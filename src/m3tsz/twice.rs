//! The codec's two loops, compiled twice: for any x86-64 and for its third level (x86-64-v3), which nearly all
//! processors of servers and desktops have.
//!
//! Shifts by a variable count and counting zeros are what the codec does most, and both take one instruction there
//! instead of three. Decoding is 3 % to 25 % faster for it, encoding 3 % to 10 %, by shape (`benches/codec_table.rs`).

use super::bits::BitReader;
use super::encoder::Encoder;
use super::run;
use super::timestamps::TimestampDecoder;
use super::values::ValueDecoder;

/// [`run::read`].
pub(super) fn read<const PLAIN: bool>(
    bits: &mut BitReader<'_>,
    times: &mut TimestampDecoder,
    coder: &mut ValueDecoder,
    timestamps: &mut [i64],
    values: &mut [f64],
) -> usize {
    #[cfg(target_arch = "x86_64")]
    if is_third_level() {
        #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
        fn read_there<const PLAIN: bool>(
            bits: &mut BitReader<'_>,
            times: &mut TimestampDecoder,
            coder: &mut ValueDecoder,
            timestamps: &mut [i64],
            values: &mut [f64],
        ) -> usize {
            run::read::<PLAIN>(bits, times, coder, timestamps, values)
        }
        // SAFETY: The function needs the instructions that `is_third_level` has just found.
        #[allow(unsafe_code, reason = "calling what needs instructions that not every processor has")]
        return unsafe { read_there::<PLAIN>(bits, times, coder, timestamps, values) };
    }
    run::read::<PLAIN>(bits, times, coder, timestamps, values)
}

/// [`Encoder::append_steady`].
pub(super) fn append_steady(encoder: &mut Encoder, timestamps: &[i64], values: &[f64]) -> usize {
    #[cfg(target_arch = "x86_64")]
    if is_third_level() {
        #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt")]
        fn append_there(encoder: &mut Encoder, timestamps: &[i64], values: &[f64]) -> usize {
            encoder.append_steady(timestamps, values)
        }
        // SAFETY: The function needs the instructions that `is_third_level` has just found.
        #[allow(unsafe_code, reason = "calling what needs instructions that not every processor has")]
        return unsafe { append_there(encoder, timestamps, values) };
    }
    encoder.append_steady(timestamps, values)
}

/// Whether the processor has what the functions above enable: these four and no more. Looked up once, then remembered
/// by the standard library.
#[cfg(target_arch = "x86_64")]
fn is_third_level() -> bool {
    use std::arch::is_x86_feature_detected as has;
    has!("avx2") && has!("bmi1") && has!("bmi2") && has!("lzcnt")
}
