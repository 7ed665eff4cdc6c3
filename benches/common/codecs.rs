//! Our codec and the crate `tsz` over blocks of points.

use chronolith::m3tsz::{Decoder, Encoder, EncoderOptions, ValueCoding};
use tsz::stream::{BufferedReader, BufferedWriter};
use tsz::{Decode, Encode, StdDecoder, StdEncoder};

use crate::columns::Block;

const MS: i64 = 1_000_000;

pub(crate) fn encode((timestamps, values): Block<'_>, options: EncoderOptions) -> Vec<u8> {
    let mut encoder = Encoder::new(timestamps[0], options);
    encoder.append_all(timestamps, values).expect("milliseconds fit");
    let mut stream = encoder.take_complete();
    encoder.finish_into(&mut stream);
    stream
}

/// Returns the points.
pub(crate) fn decode(stream: &[u8], timestamps: &mut [i64], values: &mut [f64]) -> usize {
    let mut decoder = Decoder::new(stream, ValueCoding::IntOptimized);
    decoder.decode_block(timestamps, values, |_, _| {}).expect("sound")
}

/// Timestamps to the millisecond: `tsz` has no units.
pub(crate) fn encode_by_tsz((timestamps, values): Block<'_>) -> Box<[u8]> {
    let start = (timestamps[0] / MS).cast_unsigned();
    let mut encoder = StdEncoder::new(start, BufferedWriter::with_capacity(8 * timestamps.len()));
    for (at, value) in timestamps.iter().zip(values) {
        encoder.encode(tsz::DataPoint::new((at / MS).cast_unsigned(), *value));
    }
    encoder.close()
}

/// Returns the points.
pub(crate) fn decode_by_tsz(stream: Box<[u8]>, timestamps: &mut [i64], values: &mut [f64]) -> usize {
    let mut decoder = StdDecoder::new(BufferedReader::new(stream));
    let mut points = 0;
    for (at, value) in timestamps.iter_mut().zip(values) {
        let Ok(point) = decoder.next() else { break };
        *at = point.get_time().cast_signed();
        *value = point.get_value();
        points += 1;
    }
    points
}
