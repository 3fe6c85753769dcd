//! Certificate and key from files or systemd credentials (`tls.mode = "files"`).
//!
//! [`load`] looks at everything that a client would trip over, and at whether the key is kept secret, before anything is
//! served with it. All that is wrong is said at once, in the form of problems of the configuration file, because that is where
//! the files are named.

use std::env;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::certificate::{self, Certificate, Chain, Flaw};
use super::read::{self, Unread};
use crate::config::{Loaded, Problems};

/// More than any chain needs.
const LARGEST_FILE: u64 = 1 << 20;

const CERTIFICATE: &str = "tls.certificate";
const KEY: &str = "tls.key";
const CREDENTIAL: &str = "credential:";

/// What is wrong with the value of a key.
type Wrong = (&'static str, String);

/// Reads and checks what the configuration names.
///
/// # Errors
/// Everything that is wrong, by key.
pub fn load(loaded: &Loaded, now: SystemTime) -> Result<Certificate, Problems> {
    let [chain, key] = named(loaded);
    let found = look(&chain, &key, credentials().as_deref(), domains(loaded), now);
    found.map_err(|problems| loaded.problems(problems))
}

/// What a shell can see of certificate and key: systemd passes credentials to the service alone.
#[derive(Debug)]
#[non_exhaustive]
pub enum Seen {
    /// Both.
    Both(Certificate),
    /// The certificate; the key is a credential.
    Chain(Chain),
    /// The key, which is good; the certificate is a credential.
    Key,
    /// Neither.
    Nothing,
}

/// Reads and checks as much as can be seen.
///
/// # Errors
/// Everything that is wrong, by key.
pub fn see(loaded: &Loaded, now: SystemTime) -> Result<Seen, Problems> {
    let [chain, key] = named(loaded);
    // The commands of ExecReload= are told of a directory that they cannot enter (systemd 252): it is as good as none.
    let credentials = credentials().filter(|directory| directory.is_dir());
    let seen = see_with(&chain, &key, credentials.as_deref(), domains(loaded), now);
    seen.map_err(|problems| loaded.problems(problems))
}

fn see_with(
    chain: &str,
    key: &str,
    credentials: Option<&Path>,
    domains: &[String],
    now: SystemTime,
) -> Result<Seen, Vec<Wrong>> {
    let hidden = |value: &str| credentials.is_none() && value.starts_with(CREDENTIAL);
    let flawed = |value: &str, flaw: &Flaw| format!("{value}: {flaw}");
    match (hidden(chain), hidden(key)) {
        (false, false) => look(chain, key, credentials, domains, now).map(Seen::Both),
        (true, true) => Ok(Seen::Nothing),
        (false, true) => read(chain, credentials, false)
            .and_then(|pem| {
                let seen = Chain::from_pem(&pem).and_then(|seen| seen.check(now, domains).map(|()| seen));
                seen.map_err(|flaw| flawed(chain, &flaw))
            })
            .map(Seen::Chain)
            .map_err(|text| vec![(CERTIFICATE, text)]),
        (true, false) => read(key, credentials, true)
            .and_then(|pem| certificate::read_key(&pem).map_err(|flaw| flawed(key, &flaw)))
            .map(|_| Seen::Key)
            .map_err(|text| vec![(KEY, text)]),
    }
}

/// Where systemd has put the credentials of the service, for the service.
fn credentials() -> Option<PathBuf> {
    env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

/// Certificate and key, as the configuration names them.
fn named(loaded: &Loaded) -> [String; 2] {
    let tls = &loaded.config.tls;
    [&tls.certificate, &tls.key].map(|value| value.clone().unwrap_or_default())
}

fn domains(loaded: &Loaded) -> &[String] {
    loaded.config.tls.domains.as_deref().unwrap_or_default()
}

fn look(
    chain: &str,
    key: &str,
    credentials: Option<&Path>,
    domains: &[String],
    now: SystemTime,
) -> Result<Certificate, Vec<Wrong>> {
    let read = |value, secret| read(value, credentials, secret);
    let (chain_pem, key_pem) = match (read(chain, false), read(key, true)) {
        (Ok(chain), Ok(key)) => (chain, key),
        (chain, key) => {
            let wrong = [(CERTIFICATE, chain.err()), (KEY, key.err())];
            return Err(wrong.into_iter().filter_map(|(key, text)| Some((key, text?))).collect());
        }
    };
    let certificate = Certificate::from_pem(&chain_pem, &key_pem);
    let checked = certificate.and_then(|certificate| certificate.check(now, domains).map(|()| certificate));
    checked.map_err(|flaw| {
        let (blamed, file) = if flaw.is_of_key() { (KEY, key) } else { (CERTIFICATE, chain) };
        vec![(blamed, format!("{file}: {flaw}"))]
    })
}

/// The bytes of a file; what is wrong, if it cannot be used.
fn read(value: &str, credentials: Option<&Path>, secret: bool) -> Result<Vec<u8>, String> {
    let path = match value.strip_prefix(CREDENTIAL) {
        Some(name) => credentials
            .ok_or_else(|| {
                format!(
                    "{value}: there are no credentials here (CREDENTIALS_DIRECTORY is not set); the service gets them from \
                     LoadCredential={name}:FILE in its unit, see systemd.exec(5)"
                )
            })?
            .join(name),
        None => PathBuf::from(value),
    };
    let failed = |error: io::Error| {
        let advice = match error.kind() {
            io::ErrorKind::PermissionDenied => {
                "; the user that the relay runs as must be able to read it, and to enter the directories above it"
            }
            io::ErrorKind::NotFound if value.starts_with(CREDENTIAL) => {
                "; put the file (not a link) into /etc/pyrycode-relay/tls, from where the shipped unit passes it with \"tls_\" \
                 before its name, or give the unit a LoadCredential= with this one, see systemd.exec(5)"
            }
            _ => "",
        };
        format!("{value}: cannot be read: {error}{advice}")
    };
    let unread = |why| match why {
        Unread::Failed(error) => failed(error),
        Unread::NotAFile => format!("{value}: is not a file"),
        Unread::TooLarge => format!("{value}: larger than 1 MiB, so not a certificate or key"),
    };
    let file = read::open(&path).map_err(unread)?;
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if secret && mode & 0o007 != 0 {
        let shown = path.display();
        return Err(format!(
            "{value}: everybody on this host may use this key (mode {mode:04o}); it must be 0600, or 0640 with a group of the \
             relay's own: chmod 0600 {shown}"
        ));
    }
    read::whole(file, LARGEST_FILE).map_err(unread)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    struct Files(tempfile::TempDir);

    impl Files {
        fn new() -> Self {
            let files = Self(tempfile::tempdir().unwrap());
            let key = KeyPair::generate().unwrap();
            let chain =
                CertificateParams::new(vec!["a.example".to_owned()]).unwrap().self_signed(&key).unwrap();
            files.write("chain", &chain.pem(), 0o644);
            files.write("key", &key.serialize_pem(), 0o600);
            files
        }

        fn write(&self, name: &str, text: &str, mode: u32) {
            let path = self.0.path().join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        }

        fn path(&self, name: &str) -> String {
            self.0.path().join(name).display().to_string()
        }

        fn look(&self, chain: &str, key: &str) -> Result<Certificate, Vec<Wrong>> {
            let domains = ["a.example".to_owned()];
            look(chain, key, Some(self.0.path()), &domains, SystemTime::now())
        }
    }

    #[test]
    fn both_files_are_judged_at_once() {
        let files = Files::new();
        assert!(files.look(&files.path("chain"), &files.path("key")).is_ok());
        assert!(files.look("credential:chain", "credential:key").is_ok());

        let wrong = files.look("/nowhere/a", &files.0.path().display().to_string()).unwrap_err();
        assert_eq!(wrong.len(), 2);
        assert!(wrong[0].1.starts_with("/nowhere/a: cannot be read: No such file"), "{wrong:?}");
        assert!(wrong[1].1.ends_with(": is not a file"), "{wrong:?}");
        let wrong = files.look("credential:nope", "credential:key").unwrap_err();
        assert!(wrong[0].1.contains("cannot be read") && wrong[0].1.contains("LoadCredential="), "{wrong:?}");
        let wrong = look("credential:chain", &files.path("key"), None, &[], SystemTime::now()).unwrap_err();
        assert!(wrong[0].1.contains("CREDENTIALS_DIRECTORY is not set"), "{wrong:?}");
        assert_eq!(wrong[0].0, CERTIFICATE);
    }

    #[test]
    fn a_key_that_others_may_use_is_refused_with_the_mode_it_should_have() {
        let files = Files::new();
        let text = std::fs::read_to_string(files.path("key")).unwrap();
        for (mode, good) in
            [(0o600, true), (0o400, true), (0o640, true), (0o644, false), (0o604, false), (0o602, false)]
        {
            files.write("key", &text, mode);
            let looked = files.look(&files.path("chain"), &files.path("key"));
            assert_eq!(looked.is_ok(), good, "{mode:o}");
            if let Err(wrong) = looked {
                assert_eq!(wrong[0].0, KEY);
                let said = format!("(mode {mode:04o}); it must be 0600");
                assert!(wrong[0].1.contains(&said) && wrong[0].1.contains("chmod 0600 "), "{wrong:?}");
            }
        }
    }

    #[test]
    fn the_file_to_blame_is_named() {
        let files = Files::new();
        let blamed = |chain: &str, key: &str| {
            let wrong = files.look(&files.path(chain), &files.path(key)).unwrap_err();
            assert_eq!(wrong.len(), 1, "{wrong:?}");
            (wrong[0].0, wrong[0].1.clone())
        };
        files.write("empty", "", 0o600);
        assert_eq!(blamed("empty", "key").0, CERTIFICATE);
        let (key, text) = blamed("chain", "empty");
        assert!(key == KEY && text.starts_with(&files.path("empty")), "{text}");
        files.write("other", &KeyPair::generate().unwrap().serialize_pem(), 0o600);
        let (key, text) = blamed("chain", "other");
        assert!(key == KEY && text.contains("does not belong to the first certificate"), "{text}");
        files.write("large", &" ".repeat(1 << 20), 0o600);
        assert!(blamed("large", "key").1.contains("holds no certificate"));
        files.write("large", &" ".repeat((1 << 20) + 1), 0o600);
        assert!(blamed("large", "key").1.contains("larger than 1 MiB"));
    }

    #[test]
    fn a_shell_looks_at_what_is_no_credential() {
        let files = Files::new();
        let domains = ["a.example".to_owned()];
        let (chain, key) = (files.path("chain"), files.path("key"));
        let see = |chain: &str, key: &str| see_with(chain, key, None, &domains, SystemTime::now());
        assert!(matches!(see(&chain, &key), Ok(Seen::Both(_))));
        assert!(matches!(see(&chain, "credential:key"), Ok(Seen::Chain(_))));
        assert!(matches!(see("credential:chain", &key), Ok(Seen::Key)));
        assert!(matches!(see("credential:chain", "credential:key"), Ok(Seen::Nothing)));
        let both = see_with("credential:chain", &key, Some(files.0.path()), &domains, SystemTime::now());
        assert!(matches!(both, Ok(Seen::Both(_))));

        let wrong = see(&key, "credential:key").unwrap_err();
        assert!(wrong[0].0 == CERTIFICATE && wrong[0].1.contains("holds no certificate"), "{wrong:?}");
        let wrong = see("credential:chain", &chain).unwrap_err();
        assert!(wrong[0].0 == KEY && wrong[0].1.contains("(mode 0644); it must be 0600"), "{wrong:?}");
        files.write("other", "nothing", 0o600);
        let wrong = see("credential:chain", &files.path("other")).unwrap_err();
        assert!(wrong[0].0 == KEY && wrong[0].1.contains("holds no private key"), "{wrong:?}");
        let elsewhere = ["b.example".to_owned()];
        let wrong = see_with(&chain, "credential:key", None, &elsewhere, SystemTime::now()).unwrap_err();
        assert!(wrong[0].1.contains("is not for b.example"), "{wrong:?}");
    }
}
