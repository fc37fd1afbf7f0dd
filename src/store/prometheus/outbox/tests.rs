//! The outbox on a real file system: what is acknowledged is read, through restarts and damage.

use super::*;
use std::io::{Seek, Write};

fn part(text: &str) -> Part {
    Part { raw: text.as_bytes().to_vec(), samples: 1 }
}

fn open(dir: &Path) -> (Outbox, Cursor, Vec<u8>) {
    let mut waiting = Vec::new();
    let (outbox, cursor) = Outbox::open(dir, 64 << 20, |taken| waiting.extend(&taken.raw)).expect("opens");
    (outbox, cursor, waiting)
}

#[tokio::test]
async fn a_request_is_full_of_samples_as_well_as_of_bytes() {
    let dir = tempfile::tempdir().expect("a directory");
    let (outbox, cursor, _) = open(dir.path());
    for _ in 0..4 {
        outbox.append(vec![Part { raw: vec![0; 100], samples: 7_000 }]).await.expect("durable");
    }
    let taken = outbox.read(cursor.sent).expect("read");
    assert_eq!((taken.samples, taken.raw.len()), (21_000, 300));
    let wide = Part { raw: vec![0; 1 << 20], samples: 1 };
    outbox.append(vec![wide, part("x")]).await.expect("durable");
    let taken = outbox.read(taken.next).expect("read");
    assert_eq!((taken.samples, taken.raw.len()), (7_001, 100 + (1 << 20)));
    assert_eq!(outbox.read(taken.next).expect("read").raw, b"x");
}

#[tokio::test]
async fn what_is_acknowledged_is_read_in_order_and_waits_through_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let (outbox, cursor, waiting) = open(dir.path());
    assert!(waiting.is_empty());
    let one = outbox.append(vec![part("a"), part("b")]).await.expect("durable");
    let two = outbox.append(vec![part("c")]).await.expect("durable");
    let taken = outbox.read(cursor.sent).expect("read");
    assert_eq!((taken.raw.as_slice(), taken.samples, taken.next), (&b"abc"[..], 3, two));
    assert_eq!(outbox.read(one).expect("read").raw, b"c");
    assert_eq!(outbox.stats().waiting_samples, 3);
    outbox.mark_sent(one, 2);
    outbox.keep_cursor(Cursor { sent: one, released: one }).expect("kept");
    assert!(matches!(Outbox::open(dir.path(), 0, |_| ()), Err(OutboxError::Locked(_))));
    drop(outbox);

    let (outbox, cursor, waiting) = open(dir.path());
    assert_eq!((waiting.as_slice(), cursor.sent), (&b"c"[..], one));
    assert_eq!(outbox.stats().waiting_samples, 1);
    let three = outbox.append(vec![part("d")]).await.expect("durable");
    assert_eq!(outbox.read(cursor.sent).expect("read").raw, b"cd");
    outbox.keep_cursor(Cursor { sent: three, released: three }).expect("kept");
    assert_eq!(outbox.read(cursor.sent).expect("read").raw, b"d", "what was released is gone");
    drop(outbox);
    let (_, _, waiting) = open(dir.path());
    assert!(waiting.is_empty());
}

#[tokio::test]
async fn the_bound_refuses_and_what_is_sent_makes_room() {
    let dir = tempfile::tempdir().expect("a directory");
    let (outbox, _) = Outbox::open(dir.path(), SIZE_MIN_BYTES, |_| ()).expect("opens");
    let mut state = 7_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    let large = Part { raw: (0..200_000).map(|_| noise()).collect(), samples: 1 };
    let mut last = Position::default();
    let refused = loop {
        match outbox.append(vec![large.clone()]).await {
            Ok(position) => last = position,
            Err(error) => break error,
        }
        assert!(last.segment < 10, "there is no bound");
    };
    assert!(
        matches!(&refused, OutboxError::NoSpace(said) if said.contains("--store-outbox-size")),
        "{refused}"
    );
    assert!(outbox.stats().failure.is_some() && outbox.stats().bytes <= SIZE_MIN_BYTES);
    outbox.keep_cursor(Cursor { sent: last, released: last }).expect("kept");
    outbox.append(vec![large]).await.expect("there is room again");
    assert_eq!(outbox.stats().failure, None);
}

#[tokio::test]
async fn a_torn_end_is_nothing_and_a_damaged_record_is_counted() {
    let dir = tempfile::tempdir().expect("a directory");
    let (outbox, cursor, _) = open(dir.path());
    let mut ends = Vec::new();
    for text in ["first", "second", "third"] {
        ends.push(outbox.append(vec![part(text)]).await.expect("durable"));
    }
    drop(outbox);
    let path = segment_path(dir.path(), ends[0].segment);
    let mut file = File::options().write(true).open(&path).expect("there");
    file.seek(io::SeekFrom::Start(ends[1].offset - 2)).expect("there");
    file.write_all(b"!!").expect("written");
    file.set_len(ends[2].offset - 1).expect("cut");
    let (outbox, _, waiting) = open(dir.path());
    assert_eq!(waiting, b"first");
    assert_eq!(outbox.stats().damaged_records, 1);
    outbox.append(vec![part("fourth")]).await.expect("durable");
    assert_eq!(outbox.read(cursor.sent).expect("read").raw, b"firstfourth");
}

#[tokio::test]
async fn many_at_once_are_all_there() {
    let dir = tempfile::tempdir().expect("a directory");
    let (outbox, cursor, _) = open(dir.path());
    let outbox = Arc::new(outbox);
    let appends = (0..500_u32).map(|at| {
        let outbox = Arc::clone(&outbox);
        tokio::spawn(async move { outbox.append(vec![part(&format!("{at:04}"))]).await.expect("durable") })
    });
    let appends: Vec<_> = appends.collect();
    for append in appends {
        append.await.expect("appended");
    }
    let raw = outbox.read(cursor.sent).expect("read").raw;
    let mut seen: Vec<_> = raw.chunks(4).map(|at| String::from_utf8_lossy(at).into_owned()).collect();
    seen.sort();
    assert_eq!(seen, (0..500).map(|at| format!("{at:04}")).collect::<Vec<_>>());
}
