//! What an operator should read in `systemctl status`, beside the counts.

use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

/// Troubles that last.
#[derive(Debug, Default)]
pub(super) struct Notes(Mutex<Troubles>);

#[derive(Debug, Default)]
struct Troubles {
    certificate: Option<String>,
    reload: Option<String>,
}

impl Notes {
    /// There is no certificate, because of this; or there is one.
    pub(super) fn certificate(&self, wanting: Option<&str>) {
        self.change(|troubles| troubles.certificate = wanting.map(str::to_owned));
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
            ("reload refused", &troubles.reload),
        ] {
            if let Some(why) = why {
                let _ = write!(line, "; {what}: {why}");
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
    }
}
