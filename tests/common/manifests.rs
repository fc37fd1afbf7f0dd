//! Kubernetes manifests, rendered and read with the tools of `tests/requirements.txt`.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "each test uses a part of it")]

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A program of `target/venv`; `None`, said once as skipped: it is not there.
pub fn tool(name: &str) -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("target/tmp");
    let path = target.join("venv/bin").join(name);
    if path.exists() {
        return Some(path);
    }
    println!("SKIPPED: {} is missing: tests/venv.sh installs it from PyPI", path.display());
    None
}

/// What a command that must succeed prints.
#[track_caller]
pub fn output_of(command: &mut Command) -> String {
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{stderr}");
    stdout.into_owned()
}

/// The text of a kustomization under `deploy/`.
#[track_caller]
pub fn kustomize(kubectl: &Path, directory: &str) -> String {
    output_of(Command::new(kubectl).arg("kustomize").arg(root().join("deploy").join(directory)))
}

/// The text of the chart with these values, for release and namespace `lookback`.
#[track_caller]
pub fn helm(python: &Path, values: &Value) -> Output {
    let script = root().join("tests/deploy/helm.py");
    let mut command = Command::new(python);
    command.arg(script).arg("render").arg(root().join("deploy/chart")).arg(values.to_string());
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// The objects of a YAML text.
#[track_caller]
pub fn objects(yaml: &str) -> Vec<Value> {
    let objects: Vec<Value> =
        serde_saphyr::from_multiple(yaml).unwrap_or_else(|error| panic!("{error}:\n{yaml}"));
    objects.into_iter().filter(|object| !object.is_null()).collect()
}

/// `Kind name` of an object.
pub fn title(object: &Value) -> String {
    let part = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    format!("{} {}", part(&object["kind"]), part(&object["metadata"]["name"]))
}

/// The one object of this kind and name.
#[track_caller]
pub fn the<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let wanted = format!("{kind} {name}");
    objects.iter().find(|object| title(object) == wanted).unwrap_or_else(|| panic!("no {wanted}"))
}
