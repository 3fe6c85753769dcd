//! Whether the descriptors that this process may open suffice for its limits.
//!
//! Every connection takes one. The soft limit is raised to the hard one; what is configured must fit into that. A limit that
//! somebody wrote down and that does not fit is refused: it would be a promise that cannot be kept. A built-in default shrinks
//! instead, because nobody asked for just that number.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{Loaded, Problems};

/// Descriptors that are no connections of clients: scrapes (32), the reserve (8), the two listeners, signals, the reactors, the
/// log, the configuration file, the service manager; and a few to spare.
const OTHERS: u64 = 64;

/// And for each worker beyond the first: its reactor's.
const EACH_WORKER: u64 = 2;

const CONNECTIONS: &str = "limits.connections";
const HANDSHAKES: &str = "limits.handshakes";

/// Limits that fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capacity {
    pub(super) connections: usize,
    pub(super) handshakes: usize,
    /// Descriptors that the process may open, if a default had to shrink because of it.
    pub(super) reduced_by: Option<u64>,
}

/// Raises the soft limit to the hard one, and returns what it is then.
pub(super) fn raise_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // Where it cannot be raised, what is in effect counts.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Fits the limits into `descriptors`.
///
/// # Errors
/// A limit that was written down does not fit, or nothing does.
pub(super) fn fit(loaded: &Loaded, descriptors: u64) -> Result<Capacity, Problems> {
    let written = |key| loaded.written.line(key).is_some();
    let wanted = &loaded.config.limits;
    let others = others(loaded);
    let room = usize::try_from(descriptors.saturating_sub(others)).unwrap_or(usize::MAX);

    // Of little room, most is for those who have come in.
    let beside = if written(CONNECTIONS) { room.saturating_sub(wanted.connections) } else { 0 };
    let handshakes =
        if written(HANDSHAKES) { wanted.handshakes } else { wanted.handshakes.min(beside.max(room / 4)) };
    let left = room.saturating_sub(handshakes);
    let connections = if written(CONNECTIONS) { wanted.connections } else { wanted.connections.min(left) };
    // One binary, one phone, and a way in: less is no relay.
    if handshakes == 0 || connections < 2 || connections > left {
        let key = if written(CONNECTIONS) || !written(HANDSHAKES) { CONNECTIONS } else { HANDSHAKES };
        return Err(
            loaded.problems(vec![(key, misfit(wanted.connections, wanted.handshakes, others, descriptors))])
        );
    }
    let reduced = (connections, handshakes) != (wanted.connections, wanted.handshakes);
    Ok(Capacity { connections, handshakes, reduced_by: reduced.then_some(descriptors) })
}

/// Descriptors for what is no connection of a client.
fn others(loaded: &Loaded) -> u64 {
    let beyond = loaded.config.runtime.workers.saturating_sub(1);
    OTHERS + EACH_WORKER * u64::try_from(beyond).unwrap_or(0)
}

fn misfit(connections: usize, handshakes: usize, others: u64, descriptors: u64) -> String {
    let needed =
        u64::try_from(connections.saturating_add(handshakes)).unwrap_or(u64::MAX).saturating_add(others);
    format!(
        "{connections} connections and {handshakes} handshakes ({HANDSHAKES}) need {needed} descriptors, and this process \
         may open {descriptors}; allow it as many (LimitNOFILE={needed} in the unit, see systemd.exec(5); in a shell: \
         ulimit -n), or lower {CONNECTIONS}"
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::config::Config;

    fn loaded(limits: &str) -> Loaded {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        write!(file, "[limits]\n{limits}").unwrap();
        Config::load(Some(file.path())).unwrap()
    }

    fn fits(limits: &str, descriptors: u64) -> Option<(usize, usize)> {
        let fitted = fit(&loaded(limits), descriptors).ok()?;
        let reduced = fitted.reduced_by.is_some();
        assert_eq!(
            reduced,
            (fitted.connections, fitted.handshakes) != {
                let wanted = loaded(limits).config.limits;
                (wanted.connections, wanted.handshakes)
            }
        );
        Some((fitted.connections, fitted.handshakes))
    }

    #[test]
    fn defaults_shrink_to_what_there_is() {
        assert_eq!(fits("", 10_000 + 512 + 64), Some((10_000, 512)));
        assert_eq!(fits("", 10_000 + 512 + 63), Some((9_999, 512)));
        assert_eq!(fits("", 1024), Some((720, 240)));
        assert_eq!(fits("", 68), Some((3, 1)));
        assert_eq!(fits("", 67), None);
        assert_eq!(fits("", 0), None);
        assert_eq!(fits("", u64::MAX), Some((10_000, 512)));
        let workers = "\n[runtime]\nworkers = 4";
        assert_eq!(fits(workers, 10_000 + 512 + 64 + 6), Some((10_000, 512)));
        assert_eq!(fits(workers, 10_000 + 512 + 64 + 5), Some((9_999, 512)));
    }

    #[test]
    fn what_was_written_fits_or_is_refused() {
        assert_eq!(fits("connections = 1000", 1000 + 512 + 64), Some((1000, 512)));
        assert_eq!(fits("connections = 1134", 1000 + 512 + 64), Some((1134, 378)));
        assert_eq!(fits("connections = 1135", 1000 + 512 + 64), None);
        assert_eq!(fits("connections = 1000\nhandshakes = 512", 1000 + 512 + 64), Some((1000, 512)));
        assert_eq!(fits("connections = 1000\nhandshakes = 512", 1000 + 512 + 63), None);
        assert_eq!(fits("handshakes = 512", 512 + 64 + 2), Some((2, 512)));
        assert_eq!(fits("handshakes = 512", 512 + 64 + 1), None);
        // The default, written down, is what somebody relies on.
        assert_eq!(fits("connections = 10000", 1024), None);
    }

    #[test]
    fn a_refusal_has_both_numbers_and_the_setting() {
        let text = fit(&loaded("\n\nconnections = 100000"), 20_000).unwrap_err().to_string();
        for part in [":4: limits.connections: ", "100000 connections", "100576 descriptors", "open 20000"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.contains("LimitNOFILE=100576"), "{text}");
        let text = fit(&loaded("handshakes = 30000"), 20_000).unwrap_err().to_string();
        assert!(text.contains(":2: limits.handshakes: "), "{text}");
    }

    #[test]
    fn the_soft_limit_is_raised_to_the_hard_one() {
        let limit = raise_limit();
        let now = getrlimit(Resource::Nofile);
        assert_eq!((now.current, Some(limit)), (now.maximum, now.current));
        assert!(limit > 64);
    }
}
