//! A volume of its own, an ext4 in a file, whose power can be cut: by the ioctl `EXT4_IOC_SHUTDOWN` without a flush of
//! the journal. Whatever had not been synced by then never reaches the file.
//!
//! A sync that is under way in the moment of the cut may be told to have succeeded, and reach nothing: a plain file
//! on ext4 shows it. What is acknowledged in that moment proves nothing.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test uses a part of it")]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

/// `EXT4_IOC_SHUTDOWN` (`_IOR('X', 125, __u32)` in the kernel's `fs/ext4/ext4.h`) with
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`, through Python, since an ioctl needs unsafe code here.
const SHUTDOWN: &str = "import fcntl, os, struct, sys; \
    at = os.open(sys.argv[1], os.O_RDONLY); print(flush=True); sys.stdin.readline(); \
    fcntl.ioctl(at, 0x8004587D, struct.pack('I', 2))";

fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// The volume.
pub struct Volume {
    dir: tempfile::TempDir,
}

impl Volume {
    /// A new one, not mounted; or why this user can't have one here.
    pub fn make() -> Result<Self, String> {
        let volume = Self { dir: tempfile::tempdir().map_err(|error| error.to_string())? };
        std::fs::create_dir(volume.mount_point()).map_err(|error| error.to_string())?;
        let image = volume.image();
        run("truncate", &["-s", "400M", &image])?;
        run("mkfs.ext4", &["-q", "-F", &image])?;
        volume.mount()?;
        // Whether the cut works here is seen before anything depends on it.
        volume.cut_power(|| ())?;
        volume.unmount();
        Ok(volume)
    }

    fn image(&self) -> String {
        self.dir.path().join("image").display().to_string()
    }

    pub fn mount_point(&self) -> String {
        self.dir.path().join("mount").display().to_string()
    }

    pub fn mount(&self) -> Result<(), String> {
        run("mount", &["-o", "loop", &self.image(), &self.mount_point()])
    }

    /// Cuts the power, at once after `before`.
    pub fn cut_power(&self, before: impl FnOnce()) -> Result<(), String> {
        let python = Command::new("python3")
            .args(["-c", SHUTDOWN, &self.mount_point()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut python = python.map_err(|error| format!("python3: {error}"))?;
        let told = |error: std::io::Error| format!("python3: {error}");
        let mut ready = String::new();
        BufReader::new(python.stdout.as_mut().expect("piped")).read_line(&mut ready).map_err(told)?;
        before();
        // It may have ended with a reason, which is told below.
        let _ = python.stdin.take().expect("piped").write_all(b"\n");
        let output = python.wait_with_output().map_err(told)?;
        let reason = String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(()) } else { Err(format!("python3: {}", reason.trim())) }
    }

    pub fn unmount(&self) {
        run("umount", &[&self.mount_point()]).expect("unmounted");
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.mount_point()).output();
    }
}
