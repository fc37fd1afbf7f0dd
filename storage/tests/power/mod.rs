//! A disk whose power is cut at a change that a seed chooses, and what is on it afterwards.
//!
//! It watches a store at work on a real directory, and keeps beside it what is durable: the bytes of each file
//! at its last sync, the names in each directory at its last sync. At the cut it makes an image of what a
//! disk might hold then: of the changes of names that were not synced some, each directory's in their order; of
//! the bytes that were not synced none, all, or some sectors; of a tree that was being removed some files.
//!
//! sled's files are written by sled. Of them it knows what was there at each sync and what is there at the
//! cut; names in its directories count as made, without a sync, as soon as they are seen.

use lookback_storage::{Change, Watcher};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

const SECTOR_BYTES: usize = 512;

/// The same numbers for the same seed.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 1
    }
}

/// What is durable of a file or directory.
#[derive(Clone, Debug)]
enum Node {
    File(Content),
    Dir(BTreeMap<OsString, usize>),
}

/// What is in a file: its bytes but for the zeros at its end, and how many bytes it has. sled makes files
/// larger than what is in them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Content {
    bytes: Vec<u8>,
    length: usize,
}

impl Content {
    fn of(path: &Path) -> Option<Self> {
        let mut bytes = std::fs::read(path).ok()?;
        let length = bytes.len();
        bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1));
        Some(Self { bytes, length })
    }

    fn write(&self, path: &Path) {
        std::fs::write(path, &self.bytes).expect("written");
        let file = std::fs::OpenOptions::new().write(true).open(path).expect("opened");
        file.set_len(self.length as u64).expect("made longer");
    }
}

/// A change of names that is not synced yet.
#[derive(Clone, Debug)]
enum Names {
    Link { dir: usize, name: OsString, node: usize },
    Unlink { dir: usize, name: OsString, node: usize },
    Rename { from: (usize, OsString), to: (usize, OsString), node: usize },
}

impl Names {
    fn dirs(&self) -> Vec<usize> {
        match self {
            Self::Link { dir, .. } | Self::Unlink { dir, .. } => vec![*dir],
            Self::Rename { from, to, .. } => vec![from.0, to.0],
        }
    }

    fn apply(&self, nodes: &mut [Node]) {
        let mut set = |dir: usize, name: &OsString, node: Option<usize>| {
            let Node::Dir(names) = &mut nodes[dir] else { panic!("no directory") };
            match node {
                Some(node) => drop(names.insert(name.clone(), node)),
                None => drop(names.remove(name)),
            }
        };
        match self {
            Self::Link { dir, name, node } => set(*dir, name, Some(*node)),
            Self::Unlink { dir, name, .. } => set(*dir, name, None),
            Self::Rename { from, to, node } => {
                set(from.0, &from.1, None);
                set(to.0, &to.1, Some(*node));
            }
        }
    }
}

struct State {
    random: Random,
    nodes: Vec<Node>,
    /// What has which name now, below the root; the root is `""`, node 0.
    current: BTreeMap<PathBuf, usize>,
    pending: Vec<Names>,
    /// Changes until the cut.
    left: u64,
    is_cut: bool,
    changes: Vec<String>,
}

/// The disk.
pub(crate) struct Power {
    root: PathBuf,
    image: PathBuf,
    state: Mutex<State>,
}

impl Power {
    /// Watches `root`, all of which is durable now. After `left` changes the power goes, and `image` is made.
    pub(crate) fn new(root: &Path, image: &Path, left: u64, seed: u64) -> Self {
        let mut state = State {
            random: Random(seed),
            nodes: vec![Node::Dir(BTreeMap::new())],
            current: BTreeMap::from([(PathBuf::new(), 0)]),
            pending: Vec::new(),
            left,
            is_cut: false,
            changes: Vec::new(),
        };
        state.adopt(root, Path::new(""), true);
        Self { root: root.to_owned(), image: image.to_owned(), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no watcher panics")
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.state().is_cut
    }

    /// The changes until now, in words.
    pub(crate) fn changes(&self) -> Vec<String> {
        self.state().changes.clone()
    }
}

impl Watcher for Power {
    fn before(&self, change: Change<'_>) -> io::Result<()> {
        let mut state = self.state();
        let below = |path: &Path| path.strip_prefix(&self.root).map(Path::to_owned).ok();
        let said = format!("{change:?}").replace(&self.root.display().to_string(), "");
        if state.is_cut {
            return Err(io::Error::other("the power is off"));
        }
        if state.left == 0 {
            state.is_cut = true;
            state.changes.push(format!("cut before {said}"));
            state.make_image(&self.root, &self.image);
            return Err(io::Error::other("the power went off"));
        }
        state.left -= 1;
        state.changes.push(said);
        match change {
            Change::Create(path) => below(path).map(|path| state.made(&path, Node::File(Content::default()))),
            Change::MakeDir(path) => below(path).map(|path| state.made(&path, Node::Dir(BTreeMap::new()))),
            Change::Sync(path) => below(path).map(|below| state.synced(&self.root, &below)),
            Change::Rename { from, to } => {
                below(from).zip(below(to)).map(|(from, to)| state.renamed(&self.root, &from, &to))
            }
            Change::Remove(path) | Change::RemoveDir(path) => {
                below(path).map(|path| state.removed(&self.root, &path))
            }
        };
        Ok(())
    }
}

fn name_of(path: &Path) -> OsString {
    path.file_name().expect("a name").to_owned()
}

fn listed(dir: &Path) -> BTreeSet<OsString> {
    std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.file_name()).collect()
}

impl State {
    fn new_node(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// Takes in what is there below a directory and was not seen being made; `durable`: it is.
    fn adopt(&mut self, root: &Path, dir: &Path, durable: bool) {
        let parent = self.current[dir];
        for name in listed(&root.join(dir)) {
            let path = dir.join(&name);
            let real = root.join(&path);
            if !self.current.contains_key(&path) {
                let node = if real.is_dir() {
                    Node::Dir(BTreeMap::new())
                } else {
                    Node::File(if durable {
                        Content::of(&real).unwrap_or_default()
                    } else {
                        Content::default()
                    })
                };
                let node = self.new_node(node);
                self.current.insert(path.clone(), node);
                let link = Names::Link { dir: parent, name, node };
                if durable { link.apply(&mut self.nodes) } else { self.pending.push(link) }
            }
            if real.is_dir() {
                self.adopt(root, &path, durable);
            }
        }
    }

    /// The node of a path, which may have been made unseen.
    fn node(&mut self, root: &Path, path: &Path) -> usize {
        if let Some(node) = self.current.get(path) {
            return *node;
        }
        let parent = path.parent().expect("below the root").to_owned();
        self.node(root, &parent);
        self.adopt(root, &parent, false);
        *self.current.get(path).unwrap_or_else(|| panic!("{} is not there", path.display()))
    }

    fn made(&mut self, path: &Path, node: Node) {
        if self.current.contains_key(path) {
            return;
        }
        let Some(dir) = path.parent().and_then(|parent| self.current.get(parent)).copied() else { return };
        let node = self.new_node(node);
        self.current.insert(path.to_owned(), node);
        self.pending.push(Names::Link { dir, name: name_of(path), node });
    }

    fn synced(&mut self, root: &Path, path: &Path) {
        let node = self.node(root, path);
        if !root.join(path).is_dir() {
            self.nodes[node] = Node::File(Content::of(&root.join(path)).unwrap_or_default());
            return;
        }
        self.adopt(root, path, false);
        self.forget_gone(root, path);
        // What stands before it in any directory that it touches is durable with it.
        let mut dirs = BTreeSet::from([node]);
        let mut durable = vec![false; self.pending.len()];
        for (place, names) in self.pending.iter().enumerate().rev() {
            if names.dirs().iter().any(|dir| dirs.contains(dir)) {
                dirs.extend(names.dirs());
                durable[place] = true;
            }
        }
        for (names, durable) in std::mem::take(&mut self.pending).into_iter().zip(durable) {
            if durable { names.apply(&mut self.nodes) } else { self.pending.push(names) }
        }
    }

    /// Notes what sled has removed of its own.
    fn forget_gone(&mut self, root: &Path, dir: &Path) {
        let gone: Vec<PathBuf> = self
            .current
            .keys()
            .filter(|path| path.parent() == Some(dir) && !root.join(path).exists())
            .cloned()
            .collect();
        gone.iter().for_each(|path| self.unlink(path));
    }

    fn unlink(&mut self, path: &Path) {
        let dir = self.current[path.parent().expect("below the root")];
        let Some(node) = self.current.get(path).copied() else { return };
        self.current.retain(|known, _| !known.starts_with(path));
        self.pending.push(Names::Unlink { dir, name: name_of(path), node });
    }

    fn removed(&mut self, root: &Path, path: &Path) {
        self.node(root, path);
        self.unlink(path);
    }

    fn renamed(&mut self, root: &Path, from: &Path, to: &Path) {
        let node = self.node(root, from);
        let dir_of = |state: &mut Self, path: &Path| state.node(root, path.parent().expect("below the root"));
        let from_dir = dir_of(self, from);
        let to_dir = dir_of(self, to);
        self.current.retain(|known, _| !known.starts_with(to));
        let moved: Vec<(PathBuf, usize)> = self
            .current
            .iter()
            .filter(|(path, _)| path.starts_with(from))
            .map(|(p, n)| (p.clone(), *n))
            .collect();
        for (path, node) in moved {
            self.current.remove(&path);
            let rest = path.strip_prefix(from).expect("below it");
            let path = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
            self.current.insert(path, node);
        }
        self.pending.push(Names::Rename { from: (from_dir, name_of(from)), to: (to_dir, name_of(to)), node });
    }

    /// Makes what a disk might hold when the power goes now.
    fn make_image(&mut self, root: &Path, image: &Path) {
        // What sled has made and nobody has synced is there as well, for now.
        self.adopt(root, Path::new(""), false);
        let mut nodes = self.nodes.clone();
        let (mut stopped, mut half_gone) = (BTreeSet::new(), BTreeSet::new());
        for names in std::mem::take(&mut self.pending) {
            let dirs = names.dirs();
            let is_lost = dirs.iter().any(|dir| stopped.contains(dir)) || self.random.below(3) == 0;
            if !is_lost {
                names.apply(&mut nodes);
                continue;
            }
            stopped.extend(dirs);
            if let Names::Unlink { node, .. } = names
                && self.random.coin()
            {
                half_gone.insert(node);
            }
        }
        let mut now: BTreeMap<usize, PathBuf> = BTreeMap::new();
        for (path, node) in &self.current {
            now.insert(*node, root.join(path));
        }
        let mut writer =
            ImageWriter { random: self.random.clone(), nodes: &nodes, now: &now, half_gone: &half_gone };
        writer.write(0, image, false);
    }
}

struct ImageWriter<'a> {
    random: Random,
    nodes: &'a [Node],
    /// Where each node is now.
    now: &'a BTreeMap<usize, PathBuf>,
    /// Trees of which some files have been removed.
    half_gone: &'a BTreeSet<usize>,
}

impl ImageWriter<'_> {
    fn write(&mut self, node: usize, to: &Path, in_half_gone: bool) {
        let half_gone = in_half_gone || self.half_gone.contains(&node);
        match &self.nodes[node] {
            Node::Dir(names) => {
                std::fs::create_dir_all(to).expect("made");
                for (name, child) in names {
                    self.write(*child, &to.join(name), half_gone);
                }
            }
            Node::File(_) if half_gone && self.random.coin() => {}
            Node::File(durable) => {
                let now = self.now.get(&node).and_then(|path| Content::of(path));
                let content = match now {
                    Some(now) if now != *durable => self.torn(durable, &now),
                    _ => durable.clone(),
                };
                content.write(to);
            }
        }
    }

    /// What is there where any sector may have reached the disk.
    fn torn(&mut self, durable: &Content, now: &Content) -> Content {
        match self.random.below(4) {
            0 => return durable.clone(),
            1 => return now.clone(),
            _ => {}
        }
        let length = if self.random.coin() { durable.length } else { now.length };
        let mut bytes = vec![0; length.min(durable.bytes.len().max(now.bytes.len()))];
        for (number, sector) in bytes.chunks_mut(SECTOR_BYTES).enumerate() {
            let source = if self.random.coin() { &durable.bytes } else { &now.bytes };
            let from = source.get(number * SECTOR_BYTES..).unwrap_or_default();
            let copied = sector.len().min(from.len());
            sector[..copied].copy_from_slice(&from[..copied]);
        }
        Content { bytes, length }
    }
}
