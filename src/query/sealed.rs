//! The points of one encoded stream within a range of time.
//!
//! From the front a stream is decoded step by step, and nothing behind the range. From the back there is no way but through all that is before: a
//! first pass decodes up to the end of the range and keeps only where pieces of [`PIECE_POINTS`] begin, and the last piece; then
//! pieces are decoded anew, as they are asked for from either end. So a stream of millions of points takes the memory of one piece, and
//! about a hundred bytes for each of the others.
//!
//! Points of a stream are strictly ascending. One that is not is damage: the points before it are sound, and nothing behind it is
//! believed.

use std::collections::VecDeque;

use crate::error::{Error, Result};
use crate::m3tsz::{DecodeError, DecodeErrorKind, Decoder, DecoderState, ValueCoding};
use crate::mvcc::partition_map::Cover;

use super::block::Block;
use super::source::Source;

/// Points are decoded this many at a time.
const STEP_POINTS: usize = if cfg!(test) { 8 } else { 1_024 };
/// Points of a piece, a few steps; each costs a [`Piece`] while a stream is read from the back.
const PIECE_POINTS: usize = 4 * STEP_POINTS;

/// The bytes of a stream, and whose they are. They do not change.
pub(crate) trait Encoded {
    /// The whole stream.
    fn bytes(&self) -> &[u8];

    /// How its values are coded.
    fn coding(&self) -> ValueCoding;

    /// The error for damage in it, which says where the stream lies.
    fn damaged(&self, damage: DecodeError) -> Error;
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Sealed<E> {
    stream: E,
    cover: Cover,
    rest: Rest,
    /// Places before the range, ascending: those that were told, and those that were passed.
    known: Vec<Place>,
    lost: Option<Cover>,
}

/// The points not yet returned.
#[derive(Debug)]
enum Rest {
    /// All from this place on; only the front was asked.
    Behind(Place),
    /// These, and none if both are empty. The last ones are decoded already.
    Marked { pieces: VecDeque<Piece>, last: Option<Block> },
}

/// Some of the stream's consecutive points, one or more of them within the range.
#[derive(Clone, Copy, Debug)]
struct Piece {
    begin: Place,
    points: usize,
}

/// A place between two points.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    state: DecoderState,
    /// The time of the point before; none at the start.
    last: Option<i64>,
}

impl<E: Encoded> Sealed<E> {
    /// The points of a stream within `cover`. Nothing is decoded before it is asked for.
    pub(crate) fn new(stream: E, cover: Cover) -> Self {
        let state = Decoder::new(stream.bytes(), stream.coding()).state();
        let rest = Rest::Behind(Place { state, last: None });
        Sealed { stream, cover, rest, known: Vec::new(), lost: None }
    }

    /// Tells places in the stream, ascending, before anything is read: it begins at the last of them that is before its range.
    ///
    /// A stream has no index. Where partitions cut a sealed block into many pieces, each would else be found by decoding all before it.
    pub(crate) fn tell(&mut self, mut places: Vec<Place>) {
        places.truncate(places.partition_point(|place| place.last < Some(self.cover.first)));
        if let Some(place) = places.last() {
            self.rest = Rest::Behind(*place);
        }
        self.known = places;
    }

    /// Places for the one who reads the next piece of the stream from the same end: where the front arrived, or what the back passed before its
    /// range.
    pub(crate) fn take_known(&mut self) -> Vec<Place> {
        std::mem::take(&mut self.known)
    }

    /// Decodes up to `points` points at `place`, which moves behind them, to the end of `block`. 0 at the end of the stream. Points before
    /// damage come first, and the damage by the next call.
    fn step(&self, place: &mut Place, points: usize, block: &mut Block) -> Result<usize, DecodeError> {
        let mut decoder = Decoder::resume(self.stream.bytes(), &place.state);
        let begin = block.len();
        let Block { timestamps, values, annotations } = &mut *block;
        timestamps.resize(begin + points, 0);
        values.resize(begin + points, 0.0);
        let annotated = |index, bytes: &[u8]| annotations.push(((begin + index) as u32, bytes.into()));
        let decoded = decoder.decode_block(&mut timestamps[begin..], &mut values[begin..], annotated);
        let read = *decoded.as_ref().unwrap_or(&0);

        let sound = ascending(&timestamps[begin..begin + read], place.last);
        block.truncate(begin + sound);
        decoded?;
        if sound < read {
            if sound == 0 {
                let bit = place.state.position();
                return Err(DecodeError { bit, kind: DecodeErrorKind::NotAscending });
            }
            decoder = Decoder::resume(self.stream.bytes(), &place.state);
            decoder.decode_block(&mut block.timestamps[begin..], &mut block.values[begin..], |_, _| ())?;
        }
        if let Some(last) = block.timestamps[begin..].last() {
            *place = Place { state: decoder.state(), last: Some(*last) };
        }
        Ok(sound)
    }

    /// Goes from `begin` to the end of the range, or to damage, and marks the pieces on the way.
    fn mark(&mut self, begin: Place) -> Result<()> {
        let mut pieces = VecDeque::new();
        let (mut begin, mut end) = (begin, begin);
        let mut block = Block::new();
        let outcome = loop {
            if end.last >= Some(self.cover.last) {
                break Ok(());
            }
            if block.len() == PIECE_POINTS {
                match end.last >= Some(self.cover.first) {
                    true => pieces.push_back(Piece { begin, points: PIECE_POINTS }),
                    false => self.known.push(end),
                }
                begin = end;
                block.truncate(0);
            }
            match self.step(&mut end, STEP_POINTS.min(PIECE_POINTS - block.len()), &mut block) {
                Ok(0) => break Ok(()),
                Ok(_) => {}
                Err(damage) => break Err(self.damaged(damage, end)),
            }
        };
        self.rest = Rest::Marked { pieces, last: self.cut(block) };
        outcome
    }

    /// The error for damage at a place.
    fn damaged(&mut self, damage: DecodeError, place: Place) -> Error {
        // A point at or behind the end of the range is the last one that is read, so this does not wrap.
        let behind = place.last.map_or(i64::MIN, |last| last + 1);
        self.lost = Some(Cover { first: self.cover.first.max(behind), ..self.cover });
        self.stream.damaged(damage)
    }

    fn decode(&mut self, Piece { mut begin, points }: Piece) -> Result<Option<Block>> {
        let mut block = Block::new();
        match self.step(&mut begin, points, &mut block) {
            Ok(_) => Ok(self.cut(block)),
            Err(damage) => Err(self.damaged(damage, begin)),
        }
    }

    /// The points of a block that are within the range; `None` if none is.
    fn cut(&self, block: Block) -> Option<Block> {
        let within = block.within(self.cover);
        (!within.is_empty()).then(|| block.into_part(within))
    }
}

/// No points.
const DONE: Rest = Rest::Marked { pieces: VecDeque::new(), last: None };

impl<E: Encoded> Iterator for Sealed<E> {
    type Item = Result<Block>;

    fn next(&mut self) -> Option<Result<Block>> {
        loop {
            let block = match &mut self.rest {
                Rest::Behind(begin) => {
                    let begin = *begin;
                    let mut place = begin;
                    let mut block = Block::new();
                    let step = self.step(&mut place, STEP_POINTS, &mut block);
                    let is_last = !matches!(step, Ok(1..)) || place.last >= Some(self.cover.last);
                    if is_last {
                        self.known = vec![begin];
                    }
                    self.rest = if is_last { DONE } else { Rest::Behind(place) };
                    match step {
                        Ok(_) => Ok(self.cut(block)),
                        Err(damage) => Err(self.damaged(damage, place)),
                    }
                }
                Rest::Marked { pieces, last } => match pieces.pop_front() {
                    Some(piece) => self.decode(piece),
                    None => return last.take().map(Ok),
                },
            };
            // There is none if all of it is before the range, or at the end.
            if let Some(block) = block.transpose() {
                return Some(block);
            }
        }
    }
}

impl<E: Encoded> DoubleEndedIterator for Sealed<E> {
    fn next_back(&mut self) -> Option<Result<Block>> {
        loop {
            let block = match &mut self.rest {
                Rest::Behind(place) => {
                    let place = *place;
                    self.mark(place).map(|()| None)
                }
                Rest::Marked { pieces, last } => match last.take() {
                    Some(block) => Ok(Some(block)),
                    None => {
                        let piece = pieces.pop_back()?;
                        self.decode(piece)
                    }
                },
            };
            if let Some(block) = block.transpose() {
                return Some(block);
            }
        }
    }
}

impl<E: Encoded> Source for Sealed<E> {
    fn lost(&self) -> Option<Cover> {
        self.lost
    }
}

/// How many of these times are ascending, all later than `previous`.
fn ascending(times: &[i64], previous: Option<i64>) -> usize {
    let Some(first) = times.first() else { return 0 };
    if previous.is_some_and(|previous| *first <= previous) {
        return 0;
    }
    // Without a way out of the loop, since nearly always all are.
    let descents = times.windows(2).map(|pair| usize::from(pair[0] >= pair[1])).sum::<usize>();
    match descents {
        0 => times.len(),
        _ => times.windows(2).take_while(|pair| pair[0] < pair[1]).count() + 1,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use proptest::prelude::*;

    use super::super::source::checks::{self, Seen, Stream};
    use super::*;

    /// Points at ascending times.
    fn points() -> impl Strategy<Value = Vec<Seen>> {
        let annotation = prop_oneof![5 => Just(Vec::new()), 1 => prop::collection::vec(any::<u8>(), 1..4)];
        let bits = prop_oneof![any::<u64>(), (-9..9i32).prop_map(|x| f64::from(x).to_bits())];
        let point = (1..4i64, bits, annotation);
        (-200..200i64, prop::collection::vec(point, 0..300)).prop_map(|(mut at, points)| {
            let next = |(step, bits, annotation): (i64, u64, Vec<u8>)| {
                at += step;
                (at, bits, annotation)
            };
            points.into_iter().map(next).collect()
        })
    }

    fn cover() -> impl Strategy<Value = Cover> {
        let two = (-250..700i64, -250..700i64).prop_map(|(a, b)| Cover { first: a.min(b), last: a.max(b) });
        prop_oneof![4 => two, 1 => Just(Cover::ALL)]
    }

    /// How a stream is damaged.
    #[derive(Clone, Debug)]
    enum Harm {
        None,
        /// So many bytes of a thousand are left.
        Cut(usize),
        /// A point goes so far back.
        Back(prop::sample::Index, i64),
    }

    fn harm() -> impl Strategy<Value = Harm> {
        prop_oneof![
            2 => Just(Harm::None),
            1 => (0..1_000usize).prop_map(Harm::Cut),
            1 => (any::<prop::sample::Index>(), 0..50i64).prop_map(|(index, by)| Harm::Back(index, by)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

        /// However both ends are mixed, the sound points within the range come once, and damage before the end of the range comes once.
        #[test]
        fn sound_points_are_read_once_and_damage_is_told_once(
            mut points in points(), cover in cover(), harm in harm(),
            from_back in prop::collection::vec(any::<bool>(), 0..30),
        ) {
            let mut sound = points.len();
            if let Harm::Back(index, by) = &harm && points.len() > 1 {
                sound = 1 + index.index(points.len() - 1);
                points[sound].0 = points[sound - 1].0 - by;
            }
            let mut stream = Stream::of(&points);
            if let Harm::Cut(left) = harm && !stream.0.is_empty() {
                stream.0.truncate(1 + stream.0.len() * left / 1_000);
                sound = stream.sound_points();
            }
            let is_damaged = !stream.is_sound() || sound < points.len();
            let (sound, unsound) = points.split_at(sound);
            let is_reached = is_damaged && sound.last().is_none_or(|(at, ..)| *at < cover.last);
            let expected: Vec<Seen> = sound.iter().filter(|(at, ..)| cover.has(*at)).cloned().collect();
            for pattern in [&[][..], &[true; 100], &from_back] {
                let read = checks::read(Sealed::new(stream.clone(), cover), pattern);
                prop_assert_eq!(&read.points, &expected);
                prop_assert_eq!(read.lost.len(), usize::from(is_reached));
                if let [lost] = read.lost[..] {
                    prop_assert!(cover.contains(lost) && !sound.iter().any(|(at, ..)| lost.has(*at)));
                    let is_lost = |(at, ..): &Seen| lost.has(*at) || !cover.has(*at);
                    prop_assert!(matches!(harm, Harm::Back(..)) || unsound.iter().all(is_lost));
                }
            }
        }

        /// However a range is cut into pieces, each reads with what is known from the one before as it does alone.
        #[test]
        fn what_is_known_of_a_stream_changes_nothing(
            points in points(), mut cuts in prop::collection::vec(-250..700i64, 0..12), cut in prop::option::of(0..1_000usize),
            is_back in any::<bool>(), from_back in prop::collection::vec(any::<bool>(), 0..30),
        ) {
            let mut stream = Stream::of(&points);
            if let Some(left) = cut {
                stream.0.truncate(stream.0.len() * left / 1_000);
            }
            cuts.sort_unstable();
            let mut pieces: Vec<Cover> =
                cuts.windows(2).map(|cut| Cover { first: cut[0], last: cut[1] - 1 }).collect();
            pieces.retain(|piece| piece.first <= piece.last);
            if is_back {
                pieces.reverse();
            }
            let mut known = Vec::new();
            for piece in pieces {
                let alone = checks::read(Sealed::new(stream.clone(), piece), &[]);
                let mut sealed = Sealed::new(stream.clone(), piece);
                sealed.tell(std::mem::take(&mut known));
                prop_assert_eq!(checks::read(&mut sealed, if is_back { &[true; 700] } else { &from_back }), alone);
                known = sealed.take_known();
            }
        }

        /// Whatever the bytes, there is an end, and what comes is ascending, the same from both ends, and in the range.
        #[test]
        fn any_bytes_can_be_read(
            points in points(), cover in cover(), flips in prop::collection::vec(any::<prop::sample::Index>(), 1..4),
            from_back in prop::collection::vec(any::<bool>(), 0..30),
        ) {
            let mut stream = Stream::of(&points);
            for flip in flips {
                let bit = flip.index(8 * stream.0.len().max(1));
                stream.0.iter_mut().skip(bit / 8).take(1).for_each(|byte| *byte ^= 1 << (bit % 8));
            }
            let read = checks::read(Sealed::new(stream.clone(), cover), &[]);
            prop_assert!(read.points.iter().all(|(at, ..)| cover.has(*at)));
            prop_assert!(read.points.is_sorted_by(|a, b| a.0 < b.0) && read.lost.len() <= 1);
            for pattern in [&[true; 100][..], &from_back] {
                prop_assert_eq!(&checks::read(Sealed::new(stream.clone(), cover), pattern), &read);
            }
        }
    }

    fn seconds(range: std::ops::Range<i64>) -> Vec<Seen> {
        range.map(|second| (second * 1_000_000_000, (second as f64).to_bits(), Vec::new())).collect()
    }

    #[test]
    fn a_long_stream_is_never_held_whole() {
        let stream = Stream::of(&seconds(0..10_000));
        let mut sealed = Sealed::new(stream, Cover::ALL);
        let block = sealed.next_back().expect("has points").expect("sound");
        assert!(block.len() <= PIECE_POINTS);
        let Rest::Marked { pieces, last: None } = &sealed.rest else { panic!("{:?}", sealed.rest) };
        assert_eq!(pieces.len(), 10_000 / PIECE_POINTS);
        assert_eq!(block.len() + pieces.iter().map(|piece| piece.points).sum::<usize>(), 10_000);
        assert!(sealed.all(|block| block.expect("sound").len() <= PIECE_POINTS));
    }

    #[test]
    fn only_pieces_within_the_range_are_noted() {
        let first = 9_000 * 1_000_000_000;
        let mut sealed =
            Sealed::new(Stream::of(&seconds(0..10_000)), Cover { first, last: first + 2_000_000_000 });
        assert_eq!(sealed.next_back().expect("has points").expect("sound").len(), 3);
        let Rest::Marked { pieces, last: None } = &sealed.rest else { panic!("{:?}", sealed.rest) };
        assert!(pieces.len() <= 1);
        assert!(sealed.next_back().is_none() && sealed.next().is_none());
    }

    #[test]
    fn a_piece_begins_near_where_the_one_before_ended() {
        let stream = Stream::of(&seconds(0..10_000));
        let cover = |piece: i64| Cover {
            first: piece * 100 * 1_000_000_000,
            last: (piece * 100 + 99) * 1_000_000_000,
        };
        for pieces in [(0..100).collect::<Vec<_>>(), (0..100).rev().collect()] {
            let is_back = pieces[0] > 0;
            let mut known = Vec::new();
            for (number, piece) in pieces.into_iter().enumerate() {
                let mut sealed = Sealed::new(stream.clone(), cover(piece));
                sealed.tell(std::mem::take(&mut known));
                let Rest::Behind(begin) = &sealed.rest else { panic!("{:?}", sealed.rest) };
                let behind = begin.last.map_or(0, |last| last / 1_000_000_000 + 1);
                let before = (piece * 100 - behind) as usize;
                assert!(before < PIECE_POINTS || number == 0, "{before} points are decoded for nothing");
                let read = checks::read(&mut sealed, &[is_back; 100]);
                assert_eq!(read.points, seconds(piece * 100..piece * 100 + 100));
                known = sealed.take_known();
            }
        }
    }

    #[test]
    fn the_front_decodes_step_by_step_and_nothing_behind_the_range() {
        let mut sealed = Sealed::new(Stream::of(&seconds(0..10_000)), Cover::ALL);
        assert_eq!(sealed.next().expect("has points").expect("sound").len(), STEP_POINTS);
        let Rest::Behind(place) = &sealed.rest else { panic!("{:?}", sealed.rest) };
        assert_eq!(place.last, Some((STEP_POINTS as i64 - 1) * 1_000_000_000));

        let mut damaged = Stream::of(&seconds(0..10_000));
        damaged.0.truncate(damaged.0.len() / 2);
        let cover = Cover { first: 0, last: 50 * 1_000_000_000 };
        for pattern in [&[][..], &[true]] {
            let read = checks::read(Sealed::new(damaged.clone(), cover), pattern);
            assert_eq!((read.points.len(), read.lost.len()), (51, 0));
        }
    }
}
