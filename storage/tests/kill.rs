//! `kill -9` at random points of writing, sealing, merging, expiry and deleting: what was acknowledged
//! is there afterwards. 50 kills; as many as `LOOKBACK_KILLS` says in the long run.

mod survivor;

use std::time::Duration;
use survivor::{Told, check, live, random, times, work_if_child};

#[test]
fn what_was_acknowledged_survives_kills_during_every_background_job() {
    work_if_child();
    let kills = times("LOOKBACK_KILLS", 50);
    let dir = tempfile::tempdir().expect("a directory");
    let mut told = Told::default();
    let mut seed = 0x2545_f491_4f6c_dd1d;
    let mut blocks_seen = 0;
    let test = "what_was_acknowledged_survives_kills_during_every_background_job";
    for kill in 0..kills {
        let life = Duration::from_micros(20_000 + random(&mut seed, 230_000));
        live(test, dir.path().to_owned(), life, &mut told, || {});
        if kill % 5 == 4 || kill + 1 == kills {
            check(dir.path(), &told);
            blocks_seen += std::fs::read_dir(dir.path().join("blocks/default")).map_or(0, Iterator::count);
        }
    }
    assert!(blocks_seen > 0, "nothing was sealed: the kills met no background job");
    eprintln!("{kills} kills, {} rounds acknowledged, none lost", told.acknowledged.len());
}
