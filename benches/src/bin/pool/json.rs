//! Real input: the packages of this workspace, as cargo describes them.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// One record per package of the workspace's dependency graph, from
/// `cargo metadata` for this host.
pub(crate) fn packages(workspace: &Path) -> Vec<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let host = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut command = Command::new(cargo);
    command
        .args(["metadata", "--format-version", "1", "--quiet", "--locked"])
        .current_dir(workspace);
    if cfg!(target_os = "linux") {
        command.args(["--filter-platform", &host]);
    }
    let output = command.output().expect("cargo starts");
    assert!(
        output.status.success(),
        "cargo metadata in {} failed: {}",
        workspace.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    let mut metadata: Value =
        serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    match metadata["packages"].take() {
        Value::Array(packages) => packages,
        other => panic!("cargo metadata has no packages but {other}"),
    }
}

/// Encodes a record. One function for all contenders, so that all run the same
/// machine code.
#[inline(never)]
pub(crate) fn encode(record: &Value, buffer: &mut Vec<u8>) {
    serde_json::to_writer(buffer, record).expect("a Vec takes everything");
}
