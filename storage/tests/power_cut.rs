//! Power cuts at random points of writing, sealing, merging, expiry and deleting: what was acknowledged
//! is there afterwards, and the store always opens.
//!
//! The store lies on an ext4 of its own in a loop image. A cut is the ioctl `EXT4_IOC_SHUTDOWN` without
//! a flush of the journal: whatever had not been synced by then never reaches the image. 12 cuts; as
//! many as `LOOKBACK_POWER_CUTS` says in the long run. Skipped where this user may not mount.

mod survivor;

use std::path::Path;
use std::process::Command;
use std::time::Duration;
use survivor::{Told, check, live, random, times, work_if_child};

/// `EXT4_IOC_SHUTDOWN` (`_IOR('X', 125, __u32)` in the kernel's `fs/ext4/ext4.h`) with
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`, through Python, since an ioctl needs unsafe code here.
const SHUTDOWN: &str = "import fcntl, os, struct, sys; \
    fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))";

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// A volume of its own, in a file.
struct Volume {
    dir: tempfile::TempDir,
}

impl Volume {
    fn make() -> Result<Self, String> {
        let volume = Self { dir: tempfile::tempdir().map_err(|error| error.to_string())? };
        std::fs::create_dir(volume.mount_point()).map_err(|error| error.to_string())?;
        let image = volume.image();
        run("truncate", &["-s", "400M", &image])?;
        run("mkfs.ext4", &["-q", "-F", &image])?;
        volume.mount()?;
        // Whether the cut works here is seen before anything depends on it.
        run("python3", &["-c", SHUTDOWN, &volume.mount_point()])?;
        volume.unmount();
        Ok(volume)
    }

    fn image(&self) -> String {
        self.dir.path().join("image").display().to_string()
    }

    fn mount_point(&self) -> String {
        self.dir.path().join("mount").display().to_string()
    }

    fn mount(&self) -> Result<(), String> {
        run("mount", &["-o", "loop", &self.image(), &self.mount_point()])
    }

    fn unmount(&self) {
        run("umount", &[&self.mount_point()]).expect("unmounted");
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.mount_point()).output();
    }
}

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
            run("python3", &["-c", SHUTDOWN, &mount_point]).expect("the power is cut");
        });
        volume.unmount();
        volume.mount().expect("the file system recovers");
        check(&data, &told);
        volume.unmount();
    }
    eprintln!("{cuts} power cuts, {} rounds acknowledged, none lost", told.acknowledged.len());
}
