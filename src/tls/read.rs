//! Small files of the operator: certificates and keys.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// Why a file is not read.
#[derive(Debug)]
pub(super) enum Unread {
    /// The system does not let us.
    Failed(io::Error),
    /// It is a directory, a pipe, a device or the like: opening it may wait for ever, and reading it may not end.
    NotAFile,
    /// It has more bytes than the limit.
    TooLarge,
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// Opens a regular file.
///
/// # Errors
/// It is none, or it cannot be opened.
pub(super) fn open(path: &Path) -> Result<File, Unread> {
    if std::fs::metadata(path)?.is_file() { Ok(File::open(path)?) } else { Err(Unread::NotAFile) }
}

/// All of a file, if it is not larger than `limit`.
///
/// # Errors
/// It is, or it cannot be read.
pub(super) fn whole(file: File, limit: u64) -> Result<Vec<u8>, Unread> {
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > limit { Err(Unread::TooLarge) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_files_are_read_up_to_the_limit() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "12345").unwrap();
        assert_eq!(whole(open(&path).unwrap(), 5).unwrap(), b"12345");
        assert!(matches!(whole(open(&path).unwrap(), 4), Err(Unread::TooLarge)));
        assert!(matches!(open(&directory.path().join("none")), Err(Unread::Failed(_))));
        let fifo = directory.path().join("fifo");
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        for other in [directory.path(), &fifo, Path::new("/dev/zero")] {
            assert!(matches!(open(other), Err(Unread::NotAFile)), "{}", other.display());
        }
    }
}
