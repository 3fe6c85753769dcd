//! What is kept between two runs (`tls.state`): the account's key, and the certificate with its key.
//!
//! Each directory of an authority has a folder of its own, named after its URL, so that a trial with a test authority leaves
//! nothing behind that would be taken for the real thing. Folders are 0700 and files 0600. A file is written beside its
//! place and moved there when it is on the disk, so that it is the old one or the new one and never half of it; certificate
//! and key are one file.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use data_encoding::BASE64;
use rustls_acme::acme::Account;

use crate::tls::certificate::{Certificate, Flaw};

const CERTIFICATE: &str = "certificate.pem";
const ACCOUNT: &str = "account.pem";
const ATTEMPT: &str = "last-attempt";

/// The folder of one authority.
#[derive(Clone, Debug)]
pub(super) struct State {
    folder: PathBuf,
}

impl State {
    /// Makes the folder, if there is none, and sees whether it can be written to.
    ///
    /// # Errors
    /// It cannot be made or written to, or others may look into it.
    pub(super) fn open(base: &Path, directory: &str) -> Result<Self, String> {
        let folder = base.join(folder_name(directory));
        for folder in [base, &folder] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
            made.map_err(|error| problem(folder, "cannot be made", &error))?;
            let mode =
                fs::metadata(folder).map_err(|error| problem(folder, "cannot be read", &error))?.mode()
                    & 0o7777;
            if mode & 0o077 != 0 {
                let shown = folder.display();
                return Err(format!(
                    "{shown}: others may look into it (mode {mode:04o}), and keys are kept there; it must be 0700: chmod 0700 {shown}"
                ));
            }
        }
        let state = Self { folder };
        state.save("probe", b"")?;
        let _ = fs::remove_file(state.folder.join("probe"));
        Ok(state)
    }

    /// The certificate of an earlier run.
    ///
    /// # Errors
    /// There is one, and it cannot be read.
    pub(super) fn certificate(&self) -> Result<Option<Certificate>, String> {
        let path = self.folder.join(CERTIFICATE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(problem(&path, "cannot be read", &error)),
        };
        Certificate::from_pem(&text, &text)
            .map(Some)
            .map_err(|flaw: Flaw| format!("{}: {flaw}", path.display()))
    }

    /// Keeps a certificate and its key, both in PEM.
    ///
    /// # Errors
    /// It cannot be written.
    pub(super) fn keep_certificate(&self, key: &str, chain: &str) -> Result<(), String> {
        self.save(CERTIFICATE, format!("{key}\n{chain}").as_bytes())
    }

    /// The key of the account that belongs to `contact`, made anew if there is none.
    ///
    /// # Errors
    /// It cannot be read or written.
    pub(super) fn account(&self, contact: &str) -> Result<Vec<u8>, String> {
        let path = self.folder.join(ACCOUNT);
        match fs::read_to_string(&path) {
            Ok(text) => {
                if let Some(key) = read_account(&text, contact) {
                    return Ok(key);
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(problem(&path, "cannot be read", &error)),
        }
        let key = Account::generate_key_pair();
        self.save(ACCOUNT, write_account(&key, contact).as_bytes())?;
        Ok(key)
    }

    /// Notes that the authority is being asked.
    ///
    /// # Errors
    /// It cannot be noted, so a certificate could not be kept either.
    pub(super) fn note_attempt(&self) -> Result<(), String> {
        self.save(ATTEMPT, b"The authority was last asked when this file was written.\n")
    }

    /// When the authority was last asked, as far as is known.
    pub(super) fn last_attempt(&self) -> Option<SystemTime> {
        fs::metadata(self.folder.join(ATTEMPT)).ok()?.modified().ok()
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
        save().map_err(|error| problem(&path, "cannot be written", &error))
    }
}

fn problem(path: &Path, what: &str, error: &io::Error) -> String {
    let advice = match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            "; the user that the relay runs as must own it (under systemd: StateDirectory= in the unit, see systemd.exec(5))"
        }
        _ => "",
    };
    format!("{}: {what}: {error}{advice}", path.display())
}

/// The URL as the name of a folder: everything but letters, digits, dots and hyphens becomes a hyphen.
fn folder_name(directory: &str) -> String {
    let rest = directory.strip_prefix("https://").unwrap_or(directory);
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    rest.trim_end_matches('/').chars().map(plain).collect()
}

const ACCOUNT_BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
const ACCOUNT_END: &str = "-----END PRIVATE KEY-----";

fn write_account(key: &[u8], contact: &str) -> String {
    format!("contact: {contact}\n{ACCOUNT_BEGIN}\n{}\n{ACCOUNT_END}\n", BASE64.encode(key))
}

/// The key, if the account is that of `contact`.
fn read_account(text: &str, contact: &str) -> Option<Vec<u8>> {
    let (first, rest) = text.split_once('\n')?;
    if first.strip_prefix("contact: ")? != contact {
        return None;
    }
    let key = rest.strip_prefix(ACCOUNT_BEGIN)?.split_once(ACCOUNT_END)?.0;
    BASE64.decode(key.trim().as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const DIRECTORY: &str = "https://acme.example:14000/directory";

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn folders_and_files_are_for_nobody_else() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().join("a/acme");
        let state = State::open(&base, DIRECTORY).unwrap();
        assert_eq!(state.folder, base.join("acme.example-14000-directory"));
        assert_eq!((mode(&base), mode(&state.folder)), (0o700, 0o700));
        assert!(state.certificate().unwrap().is_none());
        assert!(state.last_attempt().is_none());

        state.note_attempt().unwrap();
        let key = state.account("mailto:a@example.com").unwrap();
        state.keep_certificate("key", "chain").unwrap();
        for name in [ATTEMPT, ACCOUNT, CERTIFICATE] {
            assert_eq!(mode(&state.folder.join(name)), 0o600, "{name}");
        }
        assert_eq!(fs::read_dir(&state.folder).unwrap().count(), 3);
        assert!(state.last_attempt().is_some());

        let again = State::open(&base, DIRECTORY).unwrap();
        assert_eq!(again.account("mailto:a@example.com").unwrap(), key);
        assert_ne!(again.account("mailto:b@example.com").unwrap(), key);
        let unreadable = again.certificate().unwrap_err();
        assert!(unreadable.contains("certificate.pem: holds no private key"), "{unreadable}");
    }

    #[test]
    fn a_folder_that_others_may_look_into_is_refused_with_the_mode_it_should_have() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o750)).unwrap();
        let refused = State::open(directory.path(), DIRECTORY).unwrap_err();
        assert!(refused.contains("(mode 0750)") && refused.contains("chmod 0700 "), "{refused}");
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o700)).unwrap();
        assert!(State::open(directory.path(), DIRECTORY).is_ok());
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let refused = State::open(&file, DIRECTORY).unwrap_err();
        assert!(refused.contains("file: cannot be made"), "{refused}");
    }

    #[test]
    fn what_was_cut_short_is_written_again() {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o700)).unwrap();
        let state = State::open(directory.path(), DIRECTORY).unwrap();
        fs::write(state.folder.join("certificate.pem.new"), "half").unwrap();
        state.keep_certificate("k", "c").unwrap();
        assert_eq!(fs::read_to_string(state.folder.join(CERTIFICATE)).unwrap(), "k\nc");
        assert_eq!(fs::read_dir(&state.folder).unwrap().count(), 1);
    }
}
