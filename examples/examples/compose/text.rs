//! The input: files of text, and what is counted in them.

use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// What is known of a file once it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) bytes: i64,
    pub(crate) lines: i64,
    pub(crate) words: i64,
    pub(crate) hash: i64,
}

/// The largest file that is read: as many are in memory at once as are in work.
pub(crate) const LARGEST: u64 = 16 << 20;

/// Reads a file into the buffer, which is empty and keeps its capacity.
pub(crate) fn read(path: &Path, buffer: &mut Vec<u8>) -> io::Result<()> {
    let file = std::fs::File::open(path)?;
    if file.take(LARGEST + 1).read_to_end(buffer)? as u64 > LARGEST {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(())
}

/// The work that is worth a thread pool.
pub(crate) fn count(text: &[u8]) -> Counts {
    let mut words = 0;
    let mut inside = false;
    for byte in text {
        let part = byte.is_ascii_alphanumeric() || *byte == b'_';
        words += i64::from(part && !inside);
        inside = part;
    }
    let mut hasher = DefaultHasher::new();
    hasher.write(text);
    Counts {
        bytes: i64::try_from(text.len()).unwrap_or(i64::MAX),
        lines: text.iter().map(|byte| i64::from(*byte == b'\n')).sum(),
        words,
        hash: hasher.finish().cast_signed(),
    }
}

/// All below a folder, depth first and in the order of their names. Links to folders are not
/// followed, since they may lead back. What cannot be read on the way is passed over; the folder
/// itself must be readable.
pub(crate) fn walk(folder: &Path) -> io::Result<impl Iterator<Item = PathBuf> + use<>> {
    let mut open = sorted(folder)?;
    Ok(std::iter::from_fn(move || {
        let path = open.pop()?;
        if path.is_dir() && !path.is_symlink() {
            open.extend(sorted(&path).unwrap_or_default());
        }
        Some(path)
    }))
}

/// The entries of a folder, the last name first.
fn sorted(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder)?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort_unstable_by(|a, b| b.cmp(a));
    Ok(paths)
}

/// Whether its name speaks of text and it is a file: a pipe or a device may never end.
pub(crate) fn is_text(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    matches!(extension, Some("rs" | "md" | "toml" | "txt" | "c" | "h")) && path.is_file()
}

/// The name of the package that a file belongs to: the folder in whose sources it lies.
pub(crate) fn package(folder: &Path, file: &Path) -> String {
    let inside = file.strip_prefix(folder).unwrap_or(file);
    let mut parts = inside
        .components()
        .map(|part| part.as_os_str().to_string_lossy());
    let first = parts.next().unwrap_or_default();
    // In cargo's registry the first folder is the registry itself.
    match parts.next() {
        Some(second) if first.contains("index") => second.into_owned(),
        _ => first.into_owned(),
    }
}
