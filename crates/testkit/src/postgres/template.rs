//! A fresh data directory, made once and copied.

use std::env;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::server::{ServerError, TempDir};

type User = Option<(u32, u32)>;

/// Puts a fresh data directory at `dir/data`.
pub(super) fn copy_to(bin: &Path, dir: &TempDir, user: User) -> Result<(), ServerError> {
    let data = dir.path().join("data");
    let Some(store) = store() else {
        return initdb(bin, &data, user);
    };
    let template = store.join(name(bin, user));
    if !template.exists() {
        make(bin, &store, &template, dir, user)?;
    }
    copy(&template, &data)
}

/// In the build directory, where `cargo clean` finds it. `None` outside of one.
fn store() -> Option<PathBuf> {
    let program = env::current_exe().ok()?;
    let target = program
        .ancestors()
        .find(|path| path.join(".cargo-lock").exists())?;
    Some(target.join("overdrive-testkit"))
}

/// By version and owner.
fn name(bin: &Path, user: User) -> String {
    let version = bin.parent().and_then(Path::file_name).unwrap_or_default();
    let owner = user.map_or_else(|| "self".to_owned(), |(uid, _)| uid.to_string());
    format!("postgres-{}-{owner}", version.to_string_lossy())
}

/// Made in `dir`, since its owner may have no way into the build directory.
fn make(
    bin: &Path,
    store: &Path,
    template: &Path,
    dir: &TempDir,
    user: User,
) -> Result<(), ServerError> {
    let refused = || ServerError::io("store the data directory");
    fs::create_dir_all(store).map_err(refused())?;
    let lock = File::create(store.join("lock")).map_err(refused())?;
    lock.lock().map_err(refused())?;
    // Another process may have made it while this one waited.
    if template.exists() {
        return Ok(());
    }
    let fresh = dir.path().join("fresh");
    initdb(bin, &fresh, user)?;
    let half = template.with_extension("half");
    let _left_from_a_kill = fs::remove_dir_all(&half);
    copy(&fresh, &half)?;
    fs::rename(&half, template).map_err(refused())?;
    fs::remove_dir_all(&fresh).map_err(refused())
}

fn initdb(bin: &Path, data: &Path, user: User) -> Result<(), ServerError> {
    let mut command = Command::new(bin.join("initdb"));
    command
        .args(["--auth=trust", "--username=postgres", "--encoding=UTF8"])
        .args(["--locale=C", "--no-sync", "--no-instructions", "-D"])
        .arg(data)
        .current_dir("/");
    if let Some((uid, gid)) = user {
        command.uid(uid).gid(gid);
    }
    run(command)
}

fn copy(from: &Path, to: &Path) -> Result<(), ServerError> {
    let mut command = Command::new("cp");
    command.arg("-a").arg(from).arg(to);
    run(command)
}

fn run(mut command: Command) -> Result<(), ServerError> {
    let output = command
        .output()
        .map_err(ServerError::io("run a program that prepares the server"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(ServerError::Failed {
        program: command.get_program().into(),
        output: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
