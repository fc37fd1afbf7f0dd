//! Every file of a data directory accounted for: verified elsewhere, left over, set aside, or unknown.

use super::Verified;
use crate::backup::{RESTORING_DIR, received_path};
use crate::catalog::CATALOG_DIR;
use crate::db::LOCK_FILE;
use crate::error::Error;
use crate::files::files_below;
use crate::identity::META_FILE;
use crate::keyvalue::KeyValue;
use crate::log::LOG_DIR;
use crate::quarantine::QUARANTINE_DIR;
use crate::recover::INDEX_DIR;
use std::collections::BTreeSet;
use std::path::Path;

/// What a file is.
enum Kind {
    /// Looked at by one of the other parts.
    Ours,
    /// Of something that was cut off; the next start removes it.
    LeftOver,
    /// Damaged, and kept for whoever wants to look at it.
    SetAside,
    /// Of a restore that was cut off.
    HalfRestored,
    Unknown,
}

/// Names what is not verified elsewhere.
pub(super) fn account(data_dir: &Path, others: &[&str], verified: &mut Verified) {
    let mut set_aside = BTreeSet::new();
    let mut half_restored = false;
    let mut paths = files_below(data_dir);
    paths.sort();
    for path in paths {
        let Ok(below) = path.strip_prefix(data_dir) else { continue };
        let Some(parts) = below.iter().map(|part| part.to_str()).collect::<Option<Vec<_>>>() else {
            verified.unknown.push(path);
            continue;
        };
        match kind(below, &parts, others) {
            Kind::Ours => {}
            Kind::LeftOver => verified.notes.push(format!(
                "{}: the rest of something that was cut off; the next start removes it",
                path.display()
            )),
            Kind::SetAside => drop(set_aside.insert(parts.get(1).copied().unwrap_or_default().to_owned())),
            Kind::HalfRestored => half_restored = true,
            Kind::Unknown => verified.unknown.push(path),
        }
    }
    if half_restored {
        let unfinished = Error::Unfinished { path: data_dir.to_owned() };
        verified.damage.push(unfinished.to_string());
    }
    verified.notes.extend(set_aside.into_iter().map(|name| {
        let path = data_dir.join(QUARANTINE_DIR).join(name);
        format!("{}: set aside, since it is damaged; never read, and yours to remove", path.display())
    }));
}

fn kind(below: &Path, parts: &[&str], others: &[&str]) -> Kind {
    let index_new = format!("{INDEX_DIR}.new");
    let index_old = format!("{INDEX_DIR}.old");
    match parts {
        [LOCK_FILE | META_FILE] => Kind::Ours,
        [first, ..] if others.contains(first) => Kind::Ours,
        [QUARANTINE_DIR, ..] => Kind::SetAside,
        [RESTORING_DIR, ..] => Kind::HalfRestored,
        [first, ..] if *first == index_new || *first == index_old => Kind::LeftOver,
        [CATALOG_DIR, name] if is_numbered(name, ".catalog") => Kind::Ours,
        [INDEX_DIR, rest @ ..] if KeyValue::is_file(rest) => Kind::Ours,
        [LOG_DIR, generation, "begun" | "durable"] if is_numbered(generation, "") => Kind::Ours,
        [LOG_DIR, generation, rest @ ..] if is_numbered(generation, "") && KeyValue::is_file(rest) => {
            Kind::Ours
        }
        [.., name] if name.ends_with(".tmp") => Kind::LeftOver,
        _ if parts.len() > 1 && received_path(below).is_some() => Kind::Ours,
        _ => Kind::Unknown,
    }
}

fn is_numbered(name: &str, extension: &str) -> bool {
    let number = name.strip_suffix(extension).filter(|number| number.len() == 16);
    number.is_some_and(|number| number.bytes().all(|digit| digit.is_ascii_hexdigit()))
}
