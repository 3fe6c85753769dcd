//! What is kept between two runs (`tls.state`): the account's key, the certificate with its key, and when the authority was last
//! asked.
//!
//! Each directory of an authority has a folder of its own, named after its URL, so that a trial with a test authority leaves
//! nothing behind that would be taken for the real thing. Folders are 0700 and files 0600. A file is written beside its
//! place and moved there when it is on the disk, so that it is the old one or the new one and never half of it; certificate
//! and key are one file.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::account::AccountKey;
use super::schedule::Memory;
use crate::tls::certificate::Certificate;

const CERTIFICATE: &str = "certificate.pem";
const ACCOUNT: &str = "account.pem";
const ATTEMPT: &str = "last-attempt.json";

/// How the file of the account begins.
const CONTACT: &str = "contact: ";

/// More than what is written before an order has to be kept after it: if it finds room, so will they.
const NEEDED: usize = 32 * 1024;

/// More than any file here has.
const LARGEST: u64 = 1 << 20;

/// The folder of one authority.
#[derive(Clone, Debug)]
pub(super) struct State {
    base: PathBuf,
    folder: PathBuf,
}

impl State {
    /// Where the folder is, whether or not it is there.
    pub(super) fn at(base: &Path, directory: &str) -> Self {
        Self { base: base.to_owned(), folder: base.join(folder_name(directory)) }
    }

    /// Makes the folder, if there is none, and sees whether it can be written to and there is room.
    ///
    /// # Errors
    /// It cannot be made or written to, or others may look into it.
    pub(super) fn open(&self) -> Result<(), String> {
        for folder in [&self.base, &self.folder] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|error| problem(folder, "cannot be made", &error))?;
            let metadata = fs::metadata(folder).map_err(|error| problem(folder, "cannot be read", &error))?;
            closed_to_others(folder, metadata.mode())?;
        }
        self.save("room", &vec![b'.'; NEEDED])?;
        let _ = fs::remove_file(self.folder.join("room"));
        Ok(())
    }

    /// Sees whether [`State::open`] would be content, without making or writing anything.
    ///
    /// # Errors
    /// It would not.
    pub(super) fn check(&self) -> Result<(), String> {
        for folder in [&self.base, &self.folder] {
            match fs::metadata(folder) {
                Ok(metadata) if !metadata.is_dir() => {
                    return Err(format!("{}: is not a directory", folder.display()));
                }
                Ok(metadata) => closed_to_others(folder, metadata.mode())?,
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(problem(folder, "cannot be read", &error)),
            }
        }
        Ok(())
    }

    /// The certificate of an earlier run.
    ///
    /// # Errors
    /// There is one, and it cannot be read.
    pub(super) fn certificate(&self) -> Result<Option<Certificate>, String> {
        let Some(text) = self.read(CERTIFICATE)? else { return Ok(None) };
        let path = self.folder.join(CERTIFICATE);
        let told = |flaw| format!("{}: {flaw}", path.display());
        Certificate::from_pem(&text, &text).map(Some).map_err(told)
    }

    /// Keeps a certificate and its key, both in PEM.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn keep_certificate(&self, key: &str, chain: &str) -> Result<(), String> {
        self.save(CERTIFICATE, format!("{key}\n{chain}").as_bytes())
    }

    /// The account's key, made anew if there is none, and the contact that it was last used with, if that is known.
    ///
    /// # Errors
    /// It cannot be read or written. One that cannot be read is not replaced: an account may be worth something.
    pub(super) fn account(&self, contact: &str) -> Result<(AccountKey, Option<String>), String> {
        let Some(text) = self.read(ACCOUNT)? else {
            let key = AccountKey::generate()?;
            self.keep_account(&key, contact)?;
            return Ok((key, Some(contact.to_owned())));
        };
        let key = AccountKey::from_pem(&text).ok_or_else(|| {
            let shown = self.folder.join(ACCOUNT).display().to_string();
            format!("{shown}: holds no account key (ECDSA P-256 in PKCS#8); restore it, or move it away for a new account")
        })?;
        let first = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let first = String::from_utf8_lossy(first);
        let known = first.trim_end().strip_prefix(CONTACT).map(str::to_owned);
        Ok((key, known))
    }

    /// Keeps the account's key with a contact.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn keep_account(&self, key: &AccountKey, contact: &str) -> Result<(), String> {
        self.save(ACCOUNT, format!("{CONTACT}{contact}\n{}", key.to_pem()).as_bytes())
    }

    /// Notes that the authority is or was asked, and what the next process has to know of it.
    ///
    /// # Errors
    /// It cannot be noted.
    pub(super) fn note(&self, memory: Memory) -> Result<(), String> {
        let note = json!({ "failures": memory.failures, "pause_seconds": memory.pause.as_secs() });
        self.save(ATTEMPT, format!("{note}\n").as_bytes())
    }

    /// What the last process noted, and how long ago.
    pub(super) fn noted(&self, now: SystemTime) -> Option<(Memory, Duration)> {
        let written = fs::metadata(self.folder.join(ATTEMPT)).ok()?.modified().ok()?;
        // A time to come is that of a clock that was wrong.
        let age = now.duration_since(written).ok()?;
        let note: Value = serde_json::from_slice(&self.read(ATTEMPT).ok()??).ok()?;
        let figure = |name: &str| note.get(name)?.as_u64();
        let failures = u32::try_from(figure("failures")?).ok()?;
        Some((Memory { failures, pause: Duration::from_secs(figure("pause_seconds")?) }, age))
    }

    /// A file, if there is one.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, String> {
        let path = self.folder.join(name);
        let read = || -> io::Result<Vec<u8>> {
            // Opening something else may wait for ever.
            if !fs::metadata(&path)?.is_file() {
                return Err(io::Error::other("it is not a file"));
            }
            let mut bytes = Vec::new();
            File::open(&path)?.take(LARGEST).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        match read() {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(problem(&path, "cannot be read", &error)),
        }
    }

    fn save(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        let path = self.folder.join(name);
        let beside = self.folder.join(format!("{name}.new"));
        let save = || -> io::Result<()> {
            // What a run that was cut short left there may have another mode.
            match fs::remove_file(&beside) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&beside, &path)?;
            File::open(&self.folder)?.sync_all()
        };
        save().map_err(|error| {
            // Half a file takes room that the next attempt needs.
            let _ = fs::remove_file(&beside);
            problem(&path, "cannot be written", &error)
        })
    }
}

fn closed_to_others(folder: &Path, mode: u32) -> Result<(), String> {
    let (mode, shown) = (mode & 0o7777, folder.display());
    if mode.trailing_zeros() >= 6 {
        return Ok(());
    }
    Err(format!(
        "{shown}: others may look into it (mode {mode:04o}), and keys are kept there; it must be 0700: chmod 0700 {shown} \
         (a directory that is itself the unit's StateDirectory=: StateDirectoryMode=0700)"
    ))
}

fn problem(path: &Path, what: &str, error: &io::Error) -> String {
    let advice = match error.kind() {
        ErrorKind::PermissionDenied => {
            "; the user that the relay runs as must own it (under systemd: StateDirectory= in the unit, see systemd.exec(5))"
        }
        ErrorKind::ReadOnlyFilesystem => {
            "; it must be writable (under systemd: StateDirectory= or ReadWritePaths= in the unit, see systemd.exec(5))"
        }
        _ => "",
    };
    format!("{}: {what}: {error}{advice}", path.display())
}

/// The URL as the name of a folder: everything but letters, digits, dots and hyphens becomes a hyphen.
fn folder_name(directory: &str) -> String {
    let rest = directory.strip_prefix("https://").unwrap_or(directory);
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    // A name that begins with a dot would be hidden, or another folder.
    rest.trim_end_matches('/').trim_start_matches('.').chars().map(plain).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const DIRECTORY: &str = "https://acme.example:14000/directory";

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn opened(base: &Path) -> State {
        let state = State::at(base, DIRECTORY);
        state.open().unwrap();
        state
    }

    #[test]
    fn folders_and_files_are_for_nobody_else() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().join("a/acme");
        let state = opened(&base);
        assert_eq!(state.folder, base.join("acme.example-14000-directory"));
        assert_eq!((mode(&base), mode(&state.folder)), (0o700, 0o700));
        assert!(state.certificate().unwrap().is_none());
        let now = || SystemTime::now() + Duration::from_secs(7);
        assert!(state.noted(now()).is_none());

        let memory = Memory { failures: 3, pause: Duration::from_secs(480) };
        state.note(memory).unwrap();
        let (key, _) = state.account("mailto:a@example.com").unwrap();
        state.keep_certificate("key", "chain").unwrap();
        for name in [ATTEMPT, ACCOUNT, CERTIFICATE] {
            assert_eq!(mode(&state.folder.join(name)), 0o600, "{name}");
        }
        assert_eq!(fs::read_dir(&state.folder).unwrap().count(), 3);
        let (noted, age) = state.noted(now()).unwrap();
        assert!(noted == memory && age >= Duration::from_secs(6), "{age:?}");
        assert!(state.noted(SystemTime::UNIX_EPOCH).is_none(), "of a clock that was wrong");
        let unreadable = opened(&base).certificate().unwrap_err();
        assert!(unreadable.contains("certificate.pem: holds no private key"), "{unreadable}");
        assert_eq!(opened(&base).account("").unwrap().0.to_pem(), key.to_pem());
    }

    #[test]
    fn an_account_is_kept_whatever_becomes_of_its_contact_and_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let state = opened(&directory.path().join("acme"));
        let (key, known) = state.account("mailto:a@example.com").unwrap();
        assert_eq!(known.as_deref(), Some("mailto:a@example.com"));
        let (again, known) = state.account("mailto:b@example.com").unwrap();
        assert_eq!((again.to_pem(), known.as_deref()), (key.to_pem(), Some("mailto:a@example.com")));
        state.keep_account(&key, "mailto:b@example.com").unwrap();
        assert_eq!(state.account("x").unwrap().1.as_deref(), Some("mailto:b@example.com"));
        let path = state.folder.join(ACCOUNT);
        fs::write(&path, key.to_pem()).unwrap();
        assert_eq!(state.account("x").unwrap().1, None);
        for damaged in ["", "contact: x\n-----BEGIN PRIVATE KEY-----\nMIG", "\u{1b}"] {
            fs::write(&path, damaged).unwrap();
            let refused = state.account("x").map(|_| ()).unwrap_err();
            assert!(
                refused.contains("account.pem: holds no account key") && refused.contains("move it away"),
                "{refused}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), damaged, "it is left as it is");
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(state.account("x").map(|_| ()).unwrap_err().contains("is not a file"));
    }

    #[test]
    fn a_folder_that_others_may_look_into_is_refused_with_the_mode_it_should_have() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o750)).unwrap();
        let refused = State::at(directory.path(), DIRECTORY).open().unwrap_err();
        assert!(refused.contains("(mode 0750)") && refused.contains("chmod 0700 "), "{refused}");
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o700)).unwrap();
        assert!(State::at(directory.path(), DIRECTORY).open().is_ok());
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let refused = State::at(&file, DIRECTORY).open().unwrap_err();
        assert!(refused.contains("file: cannot be made"), "{refused}");
    }

    #[test]
    fn what_was_cut_short_is_written_again() {
        let directory = tempfile::tempdir().unwrap();
        let state = opened(&directory.path().join("acme"));
        fs::write(state.folder.join("certificate.pem.new"), "half").unwrap();
        state.keep_certificate("k", "c").unwrap();
        assert_eq!(fs::read_to_string(state.folder.join(CERTIFICATE)).unwrap(), "k\nc");
        assert_eq!(fs::read_dir(&state.folder).unwrap().count(), 1);
    }
}
