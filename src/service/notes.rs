//! What an operator should read in `systemctl status`, beside the counts.

use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

/// Troubles that last.
#[derive(Debug, Default)]
pub(super) struct Notes(Mutex<Troubles>);

#[derive(Debug, Default)]
struct Troubles {
    certificate: Option<String>,
    expiry: Option<String>,
    renewal: Option<String>,
    reload: Option<String>,
}

/// The most characters of one trouble: systemd passes over a message that is too long, and all of it.
const MOST: usize = 400;

impl Notes {
    /// There is no certificate, because of this; or there is one.
    pub(super) fn certificate(&self, wanting: Option<&str>) {
        self.change(|troubles| troubles.certificate = wanting.map(str::to_owned));
    }

    /// The certificate ends soon or has ended, in these words; or neither.
    pub(super) fn expiry(&self, what: Option<&str>) {
        self.change(|troubles| troubles.expiry = what.map(str::to_owned));
    }

    /// The certificate could not be renewed, because of this; or it could.
    pub(super) fn renewal(&self, failing: Option<&str>) {
        self.change(|troubles| troubles.renewal = failing.map(str::to_owned));
    }

    /// The last reload was refused, because of this; or it was not.
    pub(super) fn reload(&self, refused: Option<&str>) {
        self.change(|troubles| troubles.reload = refused.map(str::to_owned));
    }

    fn change(&self, change: impl FnOnce(&mut Troubles)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Appends them to the line.
    pub(super) fn append_to(&self, line: &mut String) {
        let troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (what, why) in [
            ("no certificate, every client is refused", &troubles.certificate),
            ("certificate", &troubles.expiry),
            ("renewal fails", &troubles.renewal),
            ("reload refused", &troubles.reload),
        ] {
            if let Some(why) = why {
                let end = if why.chars().nth(MOST).is_some() { "…" } else { "" };
                let why: String = why.chars().take(MOST).collect();
                let _ = write!(line, "; {what}: {why}{end}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn troubles_are_told_until_they_are_over() {
        let notes = Notes::default();
        let line = || {
            let mut line = "7 phones".to_owned();
            notes.append_to(&mut line);
            line
        };
        assert_eq!(line(), "7 phones");
        notes.certificate(Some("none was issued yet"));
        notes.reload(Some("bad file"));
        assert_eq!(
            line(),
            "7 phones; no certificate, every client is refused: none was issued yet; reload refused: bad file"
        );
        notes.certificate(None);
        notes.reload(None);
        assert_eq!(line(), "7 phones");
        notes.expiry(Some("it ends soon"));
        notes.renewal(Some(&"é".repeat(5000)));
        let line = line();
        assert!(line.starts_with("7 phones; certificate: it ends soon; renewal fails: éé"), "{line}");
        assert!(line.ends_with("é…") && line.len() < 1000, "{}", line.len());
    }
}
