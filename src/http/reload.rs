//! Files that are read again when their content changes.
//!
//! They are looked at by content, not by name or time: a mounted Secret is swapped as a whole behind a
//! symbolic link, and an editor may keep the time.

use ring::digest::{Context, SHA256};
use std::path::PathBuf;
use std::time::Duration;
use tracing::error;

/// How often files are looked at.
pub const INTERVAL: Duration = Duration::from_secs(5);

/// Calls `changed` after each change of the content of one of these files, for ever. What `changed`
/// reads may be newer than the change that it is called for: then it is called again.
pub async fn on_change(paths: Vec<PathBuf>, interval: Duration, mut changed: impl FnMut() + Send) {
    let mut seen = content(paths.clone()).await;
    loop {
        tokio::time::sleep(interval).await;
        let now = content(paths.clone()).await;
        if now != seen {
            seen = now;
            changed();
        }
    }
}

/// A digest of all contents, so that no key is kept; a file that can't be read counts as one that is
/// missing.
async fn content(paths: Vec<PathBuf>) -> Option<[u8; 32]> {
    let read = move || {
        let mut context = Context::new(&SHA256);
        for path in paths {
            match std::fs::read(path) {
                Ok(bytes) => {
                    context.update(&(bytes.len() as u64).to_le_bytes());
                    context.update(&bytes);
                }
                Err(_) => context.update(&u64::MAX.to_le_bytes()),
            }
        }
        <[u8; 32]>::try_from(context.finish().as_ref()).ok()
    };
    tokio::task::spawn_blocking(read).await.unwrap_or_else(|failure| {
        error!(%failure, "files could not be looked at");
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::sync::mpsc::channel;

    #[tokio::test]
    async fn a_symbolic_link_swapped_behind_the_name_is_a_change() {
        let dir = tempfile::tempdir().expect("a directory");
        for (version, text) in [("v1", "one"), ("v2", "two")] {
            std::fs::create_dir(dir.path().join(version)).expect("made");
            std::fs::write(dir.path().join(version).join("tls.crt"), text).expect("written");
        }
        let link = dir.path().join("data");
        symlink("v1", &link).expect("linked");
        let path = link.join("tls.crt");
        let (tell, told) = channel();
        let file = path.clone();
        let watching = tokio::spawn(on_change(vec![path], Duration::from_millis(1), move || {
            let _ = tell.send(std::fs::read_to_string(&file).expect("readable"));
        }));
        // Whenever it looked first, it sees one of the two, and then the other.
        let next = dir.path().join("next");
        let mut version = 1;
        let seen = loop {
            version = 3 - version;
            symlink(format!("v{version}"), &next).expect("linked");
            std::fs::rename(&next, &link).expect("swapped");
            tokio::time::sleep(Duration::from_millis(20)).await;
            if let Ok(text) = told.try_recv() {
                break text;
            }
        };
        assert!(["one", "two"].contains(&seen.as_str()));
        watching.abort();
    }
}
