//! Runs of like points, which the decoder reads in loops of their own.
//!
//! Nearly all points of a stream say little more than what changes from point to point: a delta-of-delta in a small
//! bucket, and a difference of the width in force or a XOR; some change the header, or go from integers to
//! floating-point values. The loops here know that and nothing else. They stop before the first point that is anything
//! else, be it one with a marker, damaged, or cut off by the end of the bytes; [`Decoder`](super::Decoder) reads that
//! one field by field, and comes back. So rare cases cannot go wrong here.
//!
//! What makes it quick
//! * *State in registers.* A loop works on copies of what changes, which nothing else can see, and stores them when it ends.
//! * *One load for many fields.* A window of 64 bits at any position has at least 57 that count, more than most points have.
//! * *Branches where data is predictable.* A processor that predicts a branch goes on before the load is there; with a
//!   conditional move, or a length from a table, each point waits for the one before.
//! * *Strides.* At a steady interval integers lie at known distances, so that one comparison shows four of them to be what they are
//!   expected to be, or eighteen to be repeated. That is tried only while it succeeds: where it fails at random, trying costs
//!   more than it saves.

use super::bits::{BitReader, top_bits};
use super::scale::{MULT_MAX, power};
use super::timestamps::TimestampDecoder;
use super::values::{ValueDecoder, header};
use super::xor::XorChain;

/// The widest difference that is read here: behind the rest of a point it fits a window.
const WIDTH_MAX: u32 = 52;
/// The widest differences of which a window holds four points, and two.
const WIDTH_MAX_OF_4: u32 = 11;
const WIDTH_MAX_OF_2: u32 = 25;
/// Steady points in a row before strides are tried.
const STEADY: u32 = 4;
/// Misses in a row that are put up with before strides are given up.
const PATIENCE: u32 = 32;
/// Repeated values that a window holds, and what they look like there: `0` for the timestamp, `01` for the value. (It
/// ends with a 1, and so never is zeros from behind the end.)
const REPEATS: usize = 18;
const REPEATED: u64 = 0o111_111_111_111_111_111;

/// Reads points until one of the slices is full, or one comes that is not for here. Returns how many were read.
#[inline(always)]
pub(super) fn read<const PLAIN: bool>(
    bits: &mut BitReader<'_>,
    times: &mut TimestampDecoder,
    coder: &mut ValueDecoder,
    timestamps: &mut [i64],
    values: &mut [f64],
) -> usize {
    let Some(unit) = times.unit else { return 0 };
    let len = timestamps.len().min(values.len());
    let at = Course { bits: bits.clone(), time: times.time, delta: times.delta, unit: unit.nanos() };
    let mut run = Run::<PLAIN> { at, coder: *coder };
    let mut done = 0;
    while done < len {
        let (timestamps, values) = (&mut timestamps[done..len], &mut values[done..len]);
        let read = if PLAIN || run.coder.is_float {
            run.floats(timestamps, values)
        } else if run.coder.width <= WIDTH_MAX {
            run.integers(timestamps, values)
        } else {
            break;
        };
        done += read;
        let (Some(timestamp), Some(value)) = (timestamps.get_mut(read), values.get_mut(read)) else { break };
        if PLAIN || !run.change() {
            break;
        }
        *timestamp = run.at.time;
        *value = run.coder.value();
        done += 1;
    }
    *bits = run.at.bits;
    (times.time, times.delta) = (run.at.time, run.at.delta);
    *coder = run.coder;
    done
}

struct Run<'a, const PLAIN: bool> {
    at: Course<'a>,
    coder: ValueDecoder,
}

impl<const PLAIN: bool> Run<'_, PLAIN> {
    /// Reads integers without headers.
    #[inline(always)]
    fn integers(&mut self, timestamps: &mut [i64], values: &mut [f64]) -> usize {
        let (mut at, mut int) = (self.at.clone(), self.coder.scaled.int);
        let (width, power) = (self.coder.width, power(self.coder.scaled.mult));
        let mut done = 0;
        let mut steady = 0;
        while let (Some(timestamp), Some(value)) = (timestamps.get_mut(done), values.get_mut(done)) {
            let Some((word, mut next)) = at.next() else { break };
            if word >> 63 == 1 {
                next.bits.advance(2 + width);
                if next.bits.is_past_end() {
                    break;
                }
                int += difference(word << 1, width);
            } else {
                next.bits.advance(2);
                if word >> 62 == 0b00 || next.bits.is_past_end() {
                    break;
                }
            }
            steady = if next.delta == at.delta { steady + 1 } else { 0 };
            at = next;
            *timestamp = at.time;
            *value = int / power;
            done += 1;
            if steady == STEADY {
                steady = 0;
                (self.at, self.coder.scaled.int) = (at, int);
                let (timestamps, values) = (&mut timestamps[done..], &mut values[done..]);
                done += if width <= WIDTH_MAX_OF_4 {
                    self.strides::<4>(timestamps, values)
                } else if width <= WIDTH_MAX_OF_2 {
                    self.strides::<2>(timestamps, values)
                } else {
                    0
                };
                (at, int) = (self.at.clone(), self.coder.scaled.int);
            }
        }
        (self.at, self.coder.scaled.int) = (at, int);
        done
    }

    /// Reads integers without headers at a steady interval, `N` at a time.
    #[inline(always)]
    fn strides<const N: usize>(&mut self, timestamps: &mut [i64], values: &mut [f64]) -> usize {
        let Course { mut bits, mut time, delta, unit } = self.at.clone();
        let mut int = self.coder.scaled.int;
        let (width, power) = (self.coder.width, power(self.coder.scaled.mult));
        // `0` for the timestamp, `1` for a difference, its sign and magnitude.
        let stride = 3 + width;
        let (mut mask, mut expected) = (0, 0);
        for point in 0..N as u32 {
            mask |= 0b11 << 62 >> (point * stride);
            expected |= 0b01 << 62 >> (point * stride);
        }
        let mut done = 0;
        let mut patience = PATIENCE;
        while let (Some(timestamps), Some(values)) = (
            timestamps.get_mut(done..).and_then(|rest| rest.first_chunk_mut::<REPEATS>()),
            values.get_mut(done..).and_then(|rest| rest.first_chunk_mut::<REPEATS>()),
        ) {
            let word = bits.window();
            if bits.left() < u64::from(N as u32 * stride) {
                break;
            }
            if word & mask == expected {
                for point in 0..N {
                    int += difference(word << (2 + point as u32 * stride), width);
                    time = time.wrapping_add(delta);
                    (timestamps[point], values[point]) = (time, int);
                }
                // Behind the sums, so that they are divided together.
                values[..N].iter_mut().for_each(|value| *value /= power);
                bits.advance(N as u32 * stride);
                patience = PATIENCE;
                done += N;
            } else if word >> (64 - 3 * REPEATS) == REPEATED {
                for timestamp in timestamps {
                    time = time.wrapping_add(delta);
                    *timestamp = time;
                }
                values.fill(int / power);
                bits.advance(3 * REPEATS as u32);
                patience = PATIENCE;
                done += REPEATS;
            } else {
                if patience == 0 {
                    break;
                }
                patience -= 1;
                // One point of either kind.
                if word >> 62 == 0b01 {
                    int += difference(word << 2, width);
                    bits.advance(stride);
                } else if word >> 61 == 0b001 {
                    bits.advance(3);
                } else {
                    break;
                }
                time = time.wrapping_add(delta);
                (timestamps[0], values[0]) = (time, int / power);
                done += 1;
            }
        }
        (self.at, self.coder.scaled.int) = (Course { bits, time, delta, unit }, int);
        done
    }

    /// Reads floating-point values after one another.
    #[inline(always)]
    fn floats(&mut self, timestamps: &mut [i64], values: &mut [f64]) -> usize {
        let (mut at, mut xor) = (self.at.clone(), self.coder.xor);
        let mut done = 0;
        for (timestamp, value) in timestamps.iter_mut().zip(values) {
            let Some((mut word, mut next)) = at.next() else { break };
            let is_repeated = !PLAIN && word >> 63 == 0;
            if is_repeated {
                next.bits.advance(2);
                if word >> 62 == 0b00 {
                    break;
                }
            } else if !PLAIN {
                next.bits.advance(1);
                word <<= 1;
            }
            let after = if is_repeated { Some(xor) } else { xor.read(word, &mut next.bits) };
            let Some(after) = after.filter(|_| !next.bits.is_past_end()) else { break };
            (at, xor) = (next, after);
            *timestamp = at.time;
            *value = f64::from_bits(xor.prev_bits());
            done += 1;
        }
        (self.at, self.coder.xor) = (at, xor);
        done
    }

    /// Reads a point with a header or a value in full. `false`, and nothing is changed, if it is not one.
    #[inline(always)]
    fn change(&mut self) -> bool {
        let Some((word, mut next)) = self.at.next() else { return false };
        let mut coder = self.coder;
        next.bits.advance(3);
        match word >> 61 {
            0b000 => {
                let count;
                (coder.width, coder.scaled.mult, count) = header(word << 3, coder.width, coder.scaled.mult);
                if coder.width > WIDTH_MAX || coder.scaled.mult > MULT_MAX {
                    return false;
                }
                next.bits.advance(count);
                coder.scaled.int += difference(next.bits.window(), coder.width);
                coder.is_float = false;
                next.bits.advance(1 + coder.width);
            }
            0b001 => {
                coder.xor = XorChain::after_full(next.bits.peek_wide(64));
                coder.is_float = true;
                next.bits.advance(64);
            }
            _ => return false,
        }
        if next.bits.is_past_end() {
            return false;
        }
        (self.at, self.coder) = (next, coder);
        true
    }
}

/// How far the bits are read, and the timestamps.
#[derive(Clone)]
struct Course<'a> {
    bits: BitReader<'a>,
    time: i64,
    delta: i64,
    /// In nanoseconds.
    unit: i64,
}

impl Course<'_> {
    /// The course behind the next timestamp, perhaps behind the end of the bytes, and a window of what comes then, at
    /// least 56 bits of which count. `None` for a marker, or a delta-of-delta of 32 or 64 bits.
    #[inline(always)]
    fn next(&self) -> Option<(u64, Self)> {
        let mut next = self.clone();
        let mut word = next.bits.window();
        if word >> 63 == 0 {
            next.bits.advance(1);
            word <<= 1;
        } else {
            let (dod, count) = small_dod(word)?;
            next.bits.advance(count);
            next.delta = next.delta.wrapping_add(dod.wrapping_mul(next.unit));
            word = next.bits.window();
        }
        next.time = next.time.wrapping_add(next.delta);
        Some((word, next))
    }
}

/// A delta-of-delta that has a small bucket, with the bits it takes. `None` for others, and for what may be a marker.
#[inline(always)]
fn small_dod(word: u64) -> Option<(i64, u32)> {
    let signed = word.cast_signed();
    if word >> 62 == 0b10 {
        let dod = (signed << 2) >> 57;
        return (dod != 0).then_some((dod, 9));
    }
    match word >> 60 {
        0b1100 | 0b1101 => Some(((signed << 3) >> 55, 12)),
        0b1110 => Some(((signed << 4) >> 52, 16)),
        _ => None,
    }
}

/// The sign and the magnitude at the top of a word.
#[inline(always)]
fn difference(word: u64, width: u32) -> f64 {
    // 0 for up, -1 for down.
    let down = (word >> 63).cast_signed() - 1;
    let magnitude = top_bits(word << 1, width).cast_signed();
    ((magnitude ^ down) - down) as f64
}
