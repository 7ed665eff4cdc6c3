//! Statistics of the points of a stream.

use super::fields::{Fields, FieldsMut};
use crate::error::Result;
use crate::m3tsz::{Decoder, ValueCoding};

/// The bits of a sum that is not a number, whatever the processor makes of it.
const NAN_SUM: u64 = 0x7ff8_0000_0000_0000;

/// What is known of a stream's points without decoding them.
///
/// Made of points only, one after the other in the order of the stream, so that it never contradicts itself. Equal if the bits are.
/// Format, and what NaN, infinities and zeros do: `design/supplement.md`, "Table".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    points: u32,
    first: i64,
    last: i64,
    numbers: Option<Numbers>,
}

/// Statistics of those values that are not NaN; there is at least one.
#[derive(Clone, Copy, Debug)]
pub struct Numbers {
    /// How many there are.
    pub count: u32,
    /// The smallest; -0.0 is below 0.0.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// Their sum, added up in the order of the stream; NaN if infinities of both signs met, be they values or overflows.
    pub sum: f64,
}

impl PartialEq for Numbers {
    fn eq(&self, other: &Self) -> bool {
        let bits = |numbers: &Numbers| [numbers.min, numbers.max, numbers.sum].map(f64::to_bits);
        self.count == other.count && bits(self) == bits(other)
    }
}

impl Eq for Numbers {}

impl Statistics {
    /// The statistics of points: timestamps in nanoseconds, and values.
    ///
    /// ```
    /// use chronolith::fileset::Statistics;
    ///
    /// let statistics = Statistics::of_points([(10, 1.5), (20, f64::NAN), (30, -2.0)]);
    /// assert_eq!((statistics.points(), statistics.first(), statistics.last()), (3, 10, 30));
    /// let numbers = statistics.numbers().expect("two are not NaN");
    /// assert_eq!((numbers.count, numbers.min, numbers.max, numbers.sum), (2, -2.0, 1.5, -0.5));
    /// ```
    pub fn of_points(points: impl IntoIterator<Item = (i64, f64)>) -> Self {
        let mut statistics = Statistics::default();
        points.into_iter().for_each(|(at, value)| statistics.add(at, value));
        statistics
    }

    /// The statistics of a stream's points.
    ///
    /// # Errors
    /// [`Error::Decode`](crate::Error::Decode) if the stream is damaged.
    ///
    /// Cost: decoding it.
    pub fn of_stream(stream: &[u8], values: ValueCoding) -> Result<Self> {
        let mut statistics = Statistics::default();
        let mut decoder = Decoder::new(stream, values);
        while let Some(point) = decoder.next_point() {
            let point = point?;
            statistics.add(point.timestamp, point.value);
        }
        Ok(statistics)
    }

    /// Adds the stream's next point. Counts end at `u32::MAX`, which no volume takes.
    #[inline]
    pub fn add(&mut self, at: i64, value: f64) {
        (self.first, self.last) = match self.points {
            0 => (at, at),
            _ => (self.first.min(at), self.last.max(at)),
        };
        self.points = self.points.saturating_add(1);
        if value.is_nan() {
            return;
        }
        let Some(numbers) = &mut self.numbers else {
            self.numbers = Some(Numbers { count: 1, min: value, max: value, sum: value });
            return;
        };
        numbers.count = numbers.count.saturating_add(1);
        // Not `f64::min`: that may return either of two zeros.
        if value.total_cmp(&numbers.min).is_lt() {
            numbers.min = value;
        }
        if value.total_cmp(&numbers.max).is_gt() {
            numbers.max = value;
        }
        numbers.sum += value;
        if numbers.sum.is_nan() {
            numbers.sum = f64::from_bits(NAN_SUM);
        }
    }

    /// The number of points, those whose value is NaN included.
    pub fn points(&self) -> u32 {
        self.points
    }

    /// The smallest timestamp, in nanoseconds since the Unix epoch; 0 if there are no points.
    pub fn first(&self) -> i64 {
        self.first
    }

    /// The greatest timestamp, in nanoseconds since the Unix epoch; 0 if there are no points.
    pub fn last(&self) -> i64 {
        self.last
    }

    /// Statistics of the values that are not NaN, if there are any.
    pub fn numbers(&self) -> Option<Numbers> {
        self.numbers
    }

    /// Puts the times and values, 40 bytes; [`Statistics::put_counts`] puts the rest.
    pub(super) fn put_extent(&self, out: &mut FieldsMut<'_>) {
        let Numbers { min, max, sum, .. } =
            self.numbers.unwrap_or(Numbers { count: 0, min: 0.0, max: 0.0, sum: 0.0 });
        out.put(self.first.to_le_bytes());
        out.put(self.last.to_le_bytes());
        [min, max, sum].into_iter().for_each(|value| out.put(value.to_le_bytes()));
    }

    /// Puts the counts, 8 bytes.
    pub(super) fn put_counts(&self, out: &mut FieldsMut<'_>) {
        out.put(self.points.to_le_bytes());
        out.put(self.numbers.map_or(0, |numbers| numbers.count).to_le_bytes());
    }

    /// Statistics of the two parts that were put; `None` if no points have such.
    #[inline]
    pub(super) fn decode(extent: &mut Fields<'_>, counts: &mut Fields<'_>) -> Option<Self> {
        let (first, last) = (extent.i64(), extent.i64());
        let [min, max, sum] = [extent.f64(), extent.f64(), extent.f64()];
        let (points, count) = (counts.u32(), counts.u32());
        let numbers = (count > 0).then_some(Numbers { count, min, max, sum });
        let is_possible = match numbers {
            None => [min, max, sum].iter().all(|value| value.to_bits() == 0),
            Some(_) => {
                !min.is_nan()
                    && !max.is_nan()
                    && min.total_cmp(&max).is_le()
                    && (!sum.is_nan() || sum.to_bits() == NAN_SUM)
            }
        };
        let has_times = if points > 0 { first <= last } else { first == 0 && last == 0 };
        (is_possible && has_times && count <= points).then_some(Statistics { points, first, last, numbers })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::m3tsz::{Encoder, EncoderOptions};

    fn numbers(values: &[f64]) -> Option<(u32, u64, u64, u64)> {
        let statistics = Statistics::of_points((0..).zip(values.iter().copied()));
        assert_eq!(statistics.points() as usize, values.len());
        let numbers = statistics.numbers()?;
        Some((numbers.count, numbers.min.to_bits(), numbers.max.to_bits(), numbers.sum.to_bits()))
    }

    fn expected(count: u32, min: f64, max: f64, sum: f64) -> Option<(u32, u64, u64, u64)> {
        Some((count, min.to_bits(), max.to_bits(), sum.to_bits()))
    }

    #[test]
    fn special_values_count_as_the_format_page_says() {
        const INF: f64 = f64::INFINITY;
        assert_eq!(numbers(&[]), None);
        assert_eq!(numbers(&[f64::NAN, -f64::NAN]), None);
        assert_eq!(numbers(&[-0.0]), expected(1, -0.0, -0.0, -0.0));
        assert_eq!(numbers(&[0.0, -0.0]), expected(2, -0.0, 0.0, 0.0));
        assert_eq!(numbers(&[-0.0, 0.0]), expected(2, -0.0, 0.0, 0.0));
        assert_eq!(numbers(&[f64::NAN, 3.0, f64::NAN, -1.5]), expected(2, -1.5, 3.0, 1.5));
        assert_eq!(numbers(&[1.0, INF]), expected(2, 1.0, INF, INF));
        let nan = f64::from_bits(NAN_SUM);
        assert_eq!(numbers(&[INF, 2.0, -INF, 7.0]), expected(4, -INF, INF, nan));
        // In order: the small ones vanish behind the great one, and not before it.
        assert_eq!(numbers(&[1e16, 1.0, 1.0]), expected(3, 1.0, 1e16, 1e16));
        assert_eq!(numbers(&[1.0, 1.0, 1e16]), expected(3, 1.0, 1e16, 1e16 + 2.0));
    }

    #[test]
    fn times_are_the_extremes_in_any_order() {
        let statistics = Statistics::of_points([(5, 0.0), (-7, 0.0), (i64::MAX, f64::NAN)]);
        assert_eq!((statistics.first(), statistics.last()), (-7, i64::MAX));
        assert_eq!((Statistics::default().first(), Statistics::default().last()), (0, 0));
    }

    #[test]
    fn statistics_of_a_stream_are_those_of_its_points() {
        let points: Vec<(i64, f64)> = (0..300).map(|i| (i * 1_000_000_000, (i % 7) as f64 / 4.0)).collect();
        let mut encoder = Encoder::new(0, EncoderOptions::default());
        for (at, value) in &points {
            encoder.append(*at, *value, b"").expect("ascending times are taken");
        }
        let mut stream = Vec::new();
        encoder.finish_into(&mut stream);
        let found = Statistics::of_stream(&stream, ValueCoding::IntOptimized).expect("sound");
        assert_eq!(found, Statistics::of_points(points));
        let cut = stream.get(..stream.len() / 2).expect("half of it");
        assert!(Statistics::of_stream(cut, ValueCoding::IntOptimized).is_err());
    }

    #[test]
    fn counts_end_at_a_number_that_no_volume_takes() {
        use crate::error::Error;
        use crate::fileset::supplement::Numbered;

        let check = |statistics: &Statistics| Numbered { metric: 1.into(), statistics }.check();
        let mut statistics = Statistics { points: u32::MAX - 2, ..Statistics::of_points([(0, 1.0)]) };
        statistics.add(1, 1.0);
        assert!(check(&statistics).is_ok());
        statistics.add(2, 1.0);
        statistics.add(3, 1.0);
        assert_eq!(statistics.points(), u32::MAX);
        assert!(matches!(check(&statistics), Err(Error::TooLong { .. })));
    }

    fn encoded(statistics: &Statistics) -> [u8; 48] {
        let mut bytes = [0; 48];
        let mut fields = FieldsMut(&mut bytes);
        statistics.put_extent(&mut fields);
        statistics.put_counts(&mut fields);
        bytes
    }

    fn decoded(bytes: &[u8; 48]) -> Option<Statistics> {
        let (extent, counts) = bytes.split_at(40);
        Statistics::decode(&mut Fields(extent), &mut Fields(counts))
    }

    #[test]
    fn what_is_put_is_read_and_contradictions_are_refused() {
        for values in [&[][..], &[f64::NAN], &[-0.0, 0.0], &[f64::INFINITY, f64::NEG_INFINITY], &[1.0, 2.5]] {
            let statistics = Statistics::of_points((-3..).zip(values.iter().copied()));
            assert_eq!(decoded(&encoded(&statistics)), Some(statistics));
        }
        let sound = encoded(&Statistics::of_points([(1, 2.0), (3, 4.0)]));
        let put = |at: usize, bytes: &[u8]| {
            let mut changed = sound;
            changed[at..at + bytes.len()].copy_from_slice(bytes);
            decoded(&changed)
        };
        assert_eq!(put(0, &4_i64.to_le_bytes()), None, "begins behind its end");
        assert_eq!(put(16, &f64::NAN.to_le_bytes()), None, "a minimum that is none");
        assert_eq!(put(24, &1.0_f64.to_le_bytes()), None, "a maximum below the minimum");
        assert_eq!(put(32, &(-f64::NAN).to_le_bytes()), None, "another NaN");
        assert_eq!(put(40, &1_u32.to_le_bytes()), None, "more numbers than points");
        assert_eq!(put(44, &0_u32.to_le_bytes()), None, "a minimum of nothing");
        assert_eq!(put(40, &[0; 8]), None, "times of nothing");
    }
}
