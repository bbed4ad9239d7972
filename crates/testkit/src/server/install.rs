//! Where the servers' programs are, and how they get there.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::ServerError;

/// Where to look for server programs, and whether to install what is missing.
///
/// The default looks in `PATH` and in Debian's `/usr/lib/postgresql/*/bin`, newest version first.
/// If the program is not there, the machine is a Debian system and this process runs as root, it
/// is installed with `apt-get`, by one process at a time.
///
/// ```
/// use overdrive_testkit::{Programs, RedisServer};
///
/// let nowhere = Programs::only_in(["/nonexistent"]);
/// let error = RedisServer::start_using(&nowhere, &[]).unwrap_err();
/// assert!(error.to_string().contains("apt-get install -y --no-install-recommends redis-server"));
/// ```
#[derive(Clone, Debug)]
pub struct Programs {
    folders: Vec<PathBuf>,
    install: bool,
}

impl Default for Programs {
    fn default() -> Self {
        let path = env::var_os("PATH").unwrap_or_default();
        let mut folders = debian_postgres();
        folders.extend(env::split_paths(&path));
        Self {
            folders,
            install: true,
        }
    }
}

impl Programs {
    /// Looks in these folders only, and installs nothing.
    #[must_use]
    pub fn only_in<P: Into<PathBuf>>(folders: impl IntoIterator<Item = P>) -> Self {
        Self {
            folders: folders.into_iter().map(Into::into).collect(),
            install: false,
        }
    }

    /// The path of `program`, after the installation of `package` if need be.
    pub(crate) fn find(&self, program: &str, package: &str) -> Result<PathBuf, ServerError> {
        if let Some(found) = self.look(program) {
            return Ok(found);
        }
        let missing = || ServerError::Missing {
            program: program.to_owned(),
            command: format!(
                "apt-get update && apt-get install -y --no-install-recommends {package}"
            ),
        };
        if !self.install || !Path::new("/usr/bin/apt-get").exists() || !is_root() {
            return Err(missing());
        }
        let lock = File::create(env::temp_dir().join("overdrive-testkit-apt.lock"))
            .and_then(|file| file.lock().map(|()| file))
            .map_err(ServerError::io("lock the package installation"))?;
        // Another process may have installed it while this one waited.
        let again = Self::default();
        if again.look(program).is_none() {
            // Lists that could not be renewed may still do.
            let updated = apt(&["update"]);
            let installed = apt(&["install", "-y", "--no-install-recommends", package]);
            installed.map_err(|error| updated.err().unwrap_or(error))?;
        }
        drop(lock);
        // PostgreSQL's folder may not have existed before.
        Self::default().look(program).ok_or_else(missing)
    }

    fn look(&self, program: &str) -> Option<PathBuf> {
        let paths = self.folders.iter().map(|folder| folder.join(program));
        paths.into_iter().find(|path| path.is_file())
    }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn debian_postgres() -> Vec<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let version = |path: &PathBuf| -> u32 {
        let name = path.file_name().and_then(|name| name.to_str());
        name.and_then(|name| name.parse().ok()).unwrap_or(0)
    };
    let mut folders: Vec<PathBuf> = versions.flatten().map(|entry| entry.path()).collect();
    folders.sort_by_key(|path| std::cmp::Reverse(version(path)));
    folders.iter().map(|path| path.join("bin")).collect()
}

fn apt(arguments: &[&str]) -> Result<(), ServerError> {
    let program = Path::new("/usr/bin/apt-get");
    let output = Command::new(program)
        // Somebody else may be installing something.
        .args(["-o", "DPkg::Lock::Timeout=300"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .output()
        .map_err(ServerError::io("run apt-get"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(ServerError::Failed {
        program: program.to_owned(),
        output: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_the_command_to_run() {
        let error = Programs::only_in(["/nonexistent"])
            .find("initdb", "postgresql")
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "`initdb` is not installed; run `apt-get update && apt-get install -y \
             --no-install-recommends postgresql`"
        );
    }
}
