//! What is reserved always fits.

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Records up to the last byte of what the segments promise to take are written without another segment; one more byte than the
    /// true rest is refused.
    #[test]
    fn records_fit_iff_they_were_reserved(
        lens in prop::collection::vec(prop_oneof![0_usize..200, 4_000_usize..30_000], 1..40),
        segments in 1_u64..6,
    ) {
        let disk = disk_with_log(Planted::default());
        let log = log_on(&disk, Planted::default());
        let (mut opened, _) = recover_all(&log, &LogStart::default(), Recovery::Strict).expect("it opens");
        let mut reserved = opened.free_bytes;
        for _ in 0..segments {
            let segment = opened.maker.make(0).expect("room");
            reserved += segment.usable_bytes();
            opened.writer.push_segment(segment);
        }
        let mut written = Vec::new();
        for (version, len) in (1..).zip(lens) {
            // The last one takes all that is left.
            let len = if frame_bytes(len as u64) <= reserved { len as u64 } else {
                let Some(rest) = reserved.checked_sub(u64::from(FRAME_HEADER_BYTES)) else { break };
                rest
            };
            let payload = payload(version, 0, len as usize);
            reserved -= frame_bytes(len);
            opened.writer.write(&[Record::new(version, &payload)], version % 3 == 0).expect("it was reserved");
            prop_assert!(opened.writer.free_bytes() >= reserved);
            written.push((version, payload));
            if reserved < u64::from(FRAME_HEADER_BYTES) {
                break;
            }
        }
        let free = opened.writer.free_bytes();
        let too_long = payload(0, 0, free as usize + 1);
        let next = opened.writer.last_version() + 1;
        let refused = opened.writer.write(&[Record::new(next, &too_long)], false);
        prop_assert!(refused.is_err(), "{refused:?}");
        let (again, records) = recover_all(&log, &LogStart::default(), Recovery::Strict).expect("it opens");
        prop_assert_eq!(records, written);
        prop_assert_eq!(again.free_bytes, free);
    }
}
