//! Power cuts at random points of writing, sealing, merging, expiry and deleting: what was acknowledged
//! is there afterwards, and the store always opens.
//!
//! The store lies on a volume of its own (`volume`): whatever had not been synced by a cut never reaches it. 12 cuts; as
//! many as `LOOKBACK_POWER_CUTS` says in the long run. Skipped where this user may not mount.

mod survivor;
mod volume;

use std::path::Path;
use std::time::Duration;
use survivor::{Told, check, live, random, times, work_if_child};
use volume::Volume;

#[test]
fn what_was_acknowledged_survives_power_cuts() {
    work_if_child();
    let volume = match Volume::make() {
        Ok(volume) => volume,
        Err(reason) => {
            eprintln!("SKIPPED: a volume whose power can be cut can't be made here: {reason}");
            return;
        }
    };
    let cuts = times("LOOKBACK_POWER_CUTS", 12);
    let mut told = Told::default();
    let mut seed = 0x9e37_79b9_7f4a_7c15;
    let mount_point = volume.mount_point();
    let data = Path::new(&mount_point).join("data");
    for _ in 0..cuts {
        volume.mount().expect("the file system recovers");
        let life = Duration::from_micros(20_000 + random(&mut seed, 480_000));
        live("what_was_acknowledged_survives_power_cuts", data.clone(), life, &mut told, || {
            volume.cut_power(|| ()).expect("the power is cut");
        });
        volume.unmount();
        volume.mount().expect("the file system recovers");
        check(&data, &told);
        volume.unmount();
    }
    eprintln!("{cuts} power cuts, {} rounds acknowledged, none lost", told.acknowledged.len());
}
