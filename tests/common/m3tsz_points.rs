//! Points that codecs get wrong, made from a seed: what the twins of the M3TSZ codec are compared by.
//!
//! A case is one stream. Its points come in runs: of one kind of value each, and of one kind of timestamp, so that states build up (widths,
//! multipliers, windows) before something else comes.

use chronolith::m3tsz::{EncoderOptions, Mode, TimeUnit, ValueCoding};

/// A small generator of random numbers (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// From `-max` to `max`.
    fn within(&mut self, max: i64) -> i64 {
        self.below(2 * max as u64 + 1) as i64 - max
    }

    /// Of either sign and any number of bits up to `bits`, at most 63.
    fn integer(&mut self, bits: u64) -> i64 {
        let width = self.below(bits + 1);
        self.of_width(width)
    }

    /// Of either sign and exactly `width` bits, at most 63.
    fn of_width(&mut self, width: u64) -> i64 {
        let magnitude = match width {
            0 => 0,
            width => (self.next() | 1 << 63) >> (64 - width.min(63)),
        } as i64;
        if self.one_in(2) { magnitude } else { -magnitude }
    }
}

/// What is appended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Point {
    pub(crate) at: i64,
    pub(crate) value: f64,
    pub(crate) annotation: Vec<u8>,
    /// `None`: of the encoder's choice.
    pub(crate) unit: Option<TimeUnit>,
}

/// One stream's points.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) start: i64,
    pub(crate) options: EncoderOptions,
    pub(crate) points: Vec<Point>,
}

const S: i64 = 1_000_000_000;
const MS: i64 = 1_000_000;
const UNITS: [TimeUnit; 4] =
    [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond];

impl Case {
    /// A case of `points` points.
    pub(crate) fn new(random: &mut Random, points: usize) -> Case {
        let options = EncoderOptions {
            mode: random.pick(&[Mode::Lossless, Mode::M3]),
            values: random.pick(&[ValueCoding::IntOptimized, ValueCoding::IntOptimized, ValueCoding::Plain]),
        };
        let first = random.pick(&[1_700_000_000 * S, 0, -1_700_000_000 * S, 1_700_000_000 * S + 1]);
        let start = match random.below(8) {
            0 => first - S,
            1 => first + 1,
            2 => first - 7 * MS,
            3 => random.next() as i64,
            4 => first.wrapping_add(i64::MIN),
            _ => first,
        };
        let mut values = Values::new(random);
        let mut times = Times::new(random, first);
        let annotations =
            random.pick(&[Annotations::None, Annotations::None, Annotations::Rare, Annotations::Often]);
        let points = (0..points).map(|_| {
            let (at, unit) = times.next(random);
            Point { at, value: values.next(random), annotation: annotations.next(random), unit }
        });
        Case { start, options, points: points.collect() }
    }
}

/// How often points are annotated.
#[derive(Clone, Copy, Debug)]
enum Annotations {
    None,
    Rare,
    Often,
}

impl Annotations {
    fn next(self, random: &mut Random) -> Vec<u8> {
        let annotated = match self {
            Annotations::None => false,
            Annotations::Rare => random.one_in(100),
            Annotations::Often => random.one_in(3),
        };
        match random.below(16) {
            _ if !annotated => Vec::new(),
            0..=5 => b"again".to_vec(),
            // Around the lengths whose coding gets longer.
            6 => vec![b'x'; random.pick(&[1, 63, 64, 65, 66, 127, 128, 129])],
            7 if random.one_in(20) => vec![b'y'; random.pick(&[8_191, 8_192, 8_193, 20_000])],
            _ => (0..1 + random.below(12)).map(|_| random.next() as u8).collect(),
        }
    }
}

/// Values, in runs.
#[derive(Clone, Debug)]
struct Values {
    shape: Shape,
    /// Of this stream; a run is of one of them.
    shapes: Vec<Shape>,
    last: f64,
    /// What the shapes of integers and decimals count in.
    int: i64,
    places: u32,
    width: u64,
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    Constant,
    Counter,
    Gauge,
    /// Of 0 to 6 places, wandering.
    Decimal,
    /// Of 0 to 8 places and any size.
    AnyDecimal,
    /// A decimal's neighbours.
    NearDecimal,
    Step,
    /// Differences of a certain width, lower ones in runs of about 5.
    Widths,
    AnyInteger,
    /// Around 2^52, 2^53 and 2^63.
    HugeInteger,
    /// Around the limits of scaling.
    Limit,
    UniformFloat,
    /// Few bits differ from the last.
    NearBits,
    AnyBits,
    Special,
    /// A fraction of the last.
    Third,
}

impl Shape {
    const ALL: [Shape; 16] = [
        Shape::Constant,
        Shape::Counter,
        Shape::Gauge,
        Shape::Decimal,
        Shape::AnyDecimal,
        Shape::NearDecimal,
        Shape::Step,
        Shape::Widths,
        Shape::AnyInteger,
        Shape::HugeInteger,
        Shape::Limit,
        Shape::UniformFloat,
        Shape::NearBits,
        Shape::AnyBits,
        Shape::Special,
        Shape::Third,
    ];
}

impl Values {
    fn new(random: &mut Random) -> Values {
        // One, two, or all of them.
        let shapes = match random.below(4) {
            0 => vec![random.pick(&Shape::ALL)],
            1 | 2 => vec![random.pick(&Shape::ALL), random.pick(&Shape::ALL)],
            _ => Shape::ALL.to_vec(),
        };
        Values { shape: shapes[0], shapes, last: 0.0, int: 0, places: random.below(7) as u32, width: 10 }
    }

    fn next(&mut self, random: &mut Random) -> f64 {
        if random.one_in(24) {
            self.shape = random.pick(&self.shapes);
        }
        self.last = self.of_shape(random);
        self.last
    }

    fn of_shape(&mut self, random: &mut Random) -> f64 {
        match self.shape {
            Shape::Constant => self.last,
            Shape::Counter => self.moved(random.below(16) as i64, 0),
            Shape::Gauge => self.moved(random.within(4), 0),
            Shape::Decimal => {
                if random.one_in(40) {
                    self.places = random.below(7) as u32;
                }
                let step = random.within(150);
                self.moved(step, self.places)
            }
            Shape::AnyDecimal => random.integer(50) as f64 / power(random.below(9) as u32),
            Shape::NearDecimal => {
                let decimal = random.integer(44) as f64 / power(random.below(8) as u32);
                f64::from_bits(decimal.to_bits().wrapping_add_signed(random.within(2)))
            }
            Shape::Step => {
                let step = if random.one_in(20) { random.integer(24) } else { 0 };
                self.moved(step, 0)
            }
            Shape::Widths => {
                if random.one_in(12) {
                    self.width = random.below(52);
                }
                let width = match random.below(14) {
                    0 => self.width,
                    1 => self.width.saturating_sub(random.below(3)),
                    2 if random.one_in(4) => self.width + random.below(3),
                    _ => self.width.saturating_sub(3 + random.below(4)),
                };
                let step = random.of_width(width.min(51));
                self.moved(step, 0)
            }
            Shape::AnyInteger => random.integer(63) as f64,
            Shape::HugeInteger => {
                let near =
                    random.pick(&[1_i64 << 52, 1 << 53, 1 << 54, 1 << 62, i64::MAX, 1_000_000_000_000_000]);
                let int = near.wrapping_add(random.integer(12)) as f64;
                if random.one_in(2) { int } else { -int }
            }
            Shape::Limit => {
                let limit =
                    random.pick(&[1e13, 2f64.powi(52), 2f64.powi(63), 1e19, 1e300, 1e6, 0.5, 0.1, 0.9]);
                let scaled = limit / power(random.below(7) as u32);
                let near = f64::from_bits(scaled.to_bits().wrapping_add_signed(random.within(2)));
                if random.one_in(2) { near } else { -near }
            }
            Shape::UniformFloat => (random.next() >> 11) as f64 / (1_u64 << 53) as f64,
            Shape::NearBits => {
                let place = random.below(64);
                let pattern = random.next() & 0xff >> random.below(8);
                let flips = pattern << place;
                f64::from_bits(self.last.to_bits() ^ flips)
            }
            Shape::AnyBits => f64::from_bits(random.next()),
            Shape::Special => match random.below(4) {
                // NaN of any payload, and a subnormal.
                0 => f64::from_bits(random.next() | 0x7ff << 52),
                1 => f64::from_bits(random.next() & (1 << 63 | u64::MAX >> (12 + random.below(52)))),
                _ => random.pick(&[
                    0.0,
                    -0.0,
                    f64::INFINITY,
                    f64::NEG_INFINITY,
                    f64::NAN,
                    f64::MIN_POSITIVE,
                    5e-324,
                    -5e-324,
                    f64::MAX,
                    f64::MIN,
                    1.0,
                ]),
            },
            Shape::Third => self.last / 3.0,
        }
    }

    /// The next decimal of a shape that counts.
    fn moved(&mut self, step: i64, places: u32) -> f64 {
        self.int = self.int.wrapping_add(step);
        if self.int.unsigned_abs() > 1 << 53 {
            self.int = step;
        }
        self.int as f64 / power(places)
    }
}

fn power(places: u32) -> f64 {
    10_u64.pow(places) as f64
}

/// Timestamps, in runs, and their units.
#[derive(Clone, Debug)]
struct Times {
    pace: Pace,
    tame: bool,
    last: i64,
    delta: i64,
    /// What steps are multiples of.
    grain: i64,
    units: Units,
}

#[derive(Clone, Copy, Debug)]
enum Pace {
    Regular,
    Jitter,
    /// Delta-of-deltas at the ends of buckets.
    BucketEdge,
    /// A little backwards, and twice the same.
    Disorder,
    AnyStep,
    /// Tens of years.
    Gap,
    AnyTime,
    /// Around what reads as a marker.
    Marker,
}

impl Pace {
    const TAME: [Pace; 5] = [Pace::Regular, Pace::Regular, Pace::Jitter, Pace::BucketEdge, Pace::Disorder];
    const WILD: [Pace; 8] = [
        Pace::Regular,
        Pace::Jitter,
        Pace::BucketEdge,
        Pace::Disorder,
        Pace::AnyStep,
        Pace::Gap,
        Pace::AnyTime,
        Pace::Marker,
    ];
}

/// The units that points are given.
#[derive(Clone, Copy, Debug)]
enum Units {
    /// None, so that the encoder chooses.
    Chosen,
    Fixed(TimeUnit),
    /// Another one now and then.
    Changing(TimeUnit),
    /// Any, or none.
    Any,
}

impl Times {
    fn new(random: &mut Random, first: i64) -> Times {
        let unit = random.pick(&UNITS);
        let (units, grain) = match random.below(8) {
            0..=3 => (Units::Chosen, random.pick(&[S, S, MS, 1_000, 1])),
            4 | 5 => (Units::Fixed(unit), unit.nanos()),
            6 => (Units::Changing(unit), random.pick(&[S, unit.nanos()])),
            _ => (Units::Any, random.pick(&[S, 1])),
        };
        Times { pace: Pace::Regular, tame: !random.one_in(4), last: first, delta: 0, grain, units }
    }

    fn next(&mut self, random: &mut Random) -> (i64, Option<TimeUnit>) {
        if random.one_in(32) {
            self.pace = random.pick(if self.tame { &Pace::TAME[..] } else { &Pace::WILD });
        }
        if !self.tame && random.one_in(64) {
            self.grain = random.pick(&[S, MS, 1_000, 1]);
        }
        let delta = match self.pace {
            Pace::Regular => 10 * self.grain.max(MS),
            Pace::Jitter => (10_000 + random.within(60)) * self.grain,
            Pace::BucketEdge => {
                let edge = random.pick(&[0, -64, 63, -256, 255, -2_048, 2_047, -(1 << 31), (1 << 31) - 1]);
                self.delta.wrapping_add((edge + random.within(2)).wrapping_mul(self.grain))
            }
            Pace::Disorder => random.within(3) * self.grain,
            Pace::AnyStep => random.integer(40).wrapping_mul(self.grain),
            Pace::Gap => random.within(100 * 365 * 86_400) * S,
            Pace::AnyTime => (random.next() as i64).wrapping_sub(self.last),
            Pace::Marker => {
                // As a delta-of-delta, before or after wrapping.
                let dod = i64::MIN.wrapping_add(3 << 53).wrapping_add(random.integer(56));
                if random.one_in(2) { self.delta.wrapping_add(dod) } else { dod }
            }
        };
        (self.last, self.delta) = (self.last.wrapping_add(delta), delta);
        let unit = match &mut self.units {
            Units::Chosen => None,
            Units::Fixed(unit) => Some(*unit),
            Units::Changing(unit) => {
                if random.one_in(20) {
                    *unit = random.pick(&UNITS);
                }
                Some(*unit)
            }
            Units::Any if random.one_in(2) => None,
            Units::Any => Some(random.pick(&UNITS)),
        };
        (self.last, unit)
    }
}
