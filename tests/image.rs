//! The image can be built again, byte for byte: what `deploy/build-static` does for it, without the half hour that two
//! builds take (tests/README.md has those).

#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod common;

use common::manifests::{output_of, root};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Says in which order a hash map would go through its entries.
const PROGRAM: &str = "use std::hash::{BuildHasher, RandomState};
fn main() { println!(\"{:x}\", RandomState::new().hash_one(1)); }";

/// The program under this name, run three times with what is loaded before the C library.
fn orders(dir: &Path, name: &str, program: &Path, fixed_order: &Path) -> Vec<String> {
    let named = dir.join(name);
    fs::copy(program, &named).unwrap();
    (0..3).map(|_| output_of(Command::new(&named).env("LD_PRELOAD", fixed_order))).collect()
}

fn compiled(dir: &Path) -> (PathBuf, PathBuf) {
    let (source, program, fixed_order) =
        (dir.join("order.rs"), dir.join("order"), dir.join("fixed-order.so"));
    fs::write(&source, PROGRAM).unwrap();
    output_of(Command::new("rustc").arg(&source).arg("-o").arg(&program));
    let c = root().join("deploy/fixed-order.c");
    output_of(
        Command::new("cc")
            .args(["-shared", "-fPIC", "-O", "-Wall", "-Werror", "-o"])
            .arg(&fixed_order)
            .arg(c),
    );
    (program, fixed_order)
}

#[test]
fn build_scripts_and_nothing_else_go_through_hash_maps_in_one_order() {
    let dir = tempfile::tempdir().unwrap();
    let (program, fixed_order) = compiled(dir.path());
    let same = orders(dir.path(), "build-script-build", &program, &fixed_order);
    assert!(same.iter().all(|order| *order == same[0]), "{same:?}");
    let others = orders(dir.path(), "cargo", &program, &fixed_order);
    assert!(others[0] != others[1] && others[1] != others[2] && others[0] != same[0], "{others:?}");
}

#[test]
fn what_the_build_takes_of_deploy_is_let_into_the_image() {
    let let_in = fs::read_to_string(root().join(".dockerignore")).unwrap();
    let build = fs::read_to_string(root().join("deploy/build-static")).unwrap();
    let words = build.split([' ', '"', '\'', '\n']).filter(|word| word.starts_with("deploy/"));
    let taken: Vec<&str> = words.filter(|word| root().join(word).is_file()).collect();
    assert!(taken.contains(&"deploy/fixed-order.c"), "{taken:?}");
    for file in taken {
        assert!(let_in.lines().any(|line| line.strip_prefix('!') == Some(file)), "{file} is left out");
    }
}
