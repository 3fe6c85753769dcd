//! Why a connection may end, and what its peer is told: PROTOCOL §§ 2 to 5, once more and by itself.

use std::time::Duration;

use pyrycode_relay::relay::close::CloseCause;
use pyrycode_relay::relay::observer::{Endpoint, UpgradeOutcome};

use crate::ensure;
use crate::model::MOST_NEWCOMERS;
use crate::world::{Conn, Slot, World};

/// The seconds in the hint of a shutdown.
pub(crate) const RETRY_AFTER: u64 = 7;

/// The close frame that belongs to a cause, for a connection whose peer closed with `peer`. Nothing: there is none.
fn close_frame(cause: CloseCause, conn: &Conn) -> Option<(u16, &'static str)> {
    Some(match cause {
        CloseCause::PeerClosed => (conn.client.ends.code.unwrap_or(1000), ""),
        CloseCause::PeerLost | CloseCause::BinaryRequest => return None,
        CloseCause::ShuttingDown => (1001, "shutting down; retry-after=7"),
        CloseCause::InvalidJson => (1007, "frame is not valid JSON"),
        CloseCause::MessageTooBig => (1009, "message too big"),
        CloseCause::HeartbeatTimeout => (1011, "heartbeat timeout"),
        CloseCause::MessageTimedOut => (1011, "message timed out"),
        CloseCause::PhoneBacklogFull => (1011, "phone backlog full"),
        CloseCause::PhoneWriteFailed => (1011, "phone write failed"),
        CloseCause::BinaryDidNotReconnect => (1011, "binary did not reconnect"),
        CloseCause::BinaryWriteFailed => (1011, "binary write failed"),
        CloseCause::NoServer => (4404, "no server with that id"),
        CloseCause::BinaryReclaimed => (4404, "binary reclaimed server-id"),
        CloseCause::BinaryDisconnected => (4404, "binary disconnected"),
        CloseCause::AlreadyClaimed => (4409, "server-id already claimed"),
        CloseCause::TooManyPhones => (4429, "too many phones for server-id"),
    })
}

/// The code of the notice for a phone that ended, if its binary gets one.
pub(crate) fn notice_code(phone: &Conn) -> Option<u16> {
    match phone.cause?.0 {
        CloseCause::BinaryRequest => None,
        CloseCause::PeerClosed => Some(phone.client.ends.code.unwrap_or(1001)),
        CloseCause::PeerLost => Some(1001),
        cause => close_frame(cause, phone).map(|(code, _)| code),
    }
}

impl World {
    /// A connection ended, for the cause that the relay told.
    pub(crate) fn closed(
        &mut self,
        number: usize,
        endpoint: Endpoint,
        cause: CloseCause,
    ) -> Result<(), String> {
        let (now, step) = (self.now(), self.step);
        self.coverage.closed(endpoint, cause);
        let conn = &mut self.conns[number];
        conn.ended_in = Some(step);
        ensure!(conn.endpoint == endpoint && conn.cause.is_none(), "{number} ends again: {cause:?}");
        conn.cause = Some((cause, now));
        let slot = self.slots[conn.server];
        self.justify(number, cause, now)
            .map_err(|error| format!("{number} may not end with {cause:?}: {error}"))?;
        if self.conns[number].outcome == Some(UpgradeOutcome::Reject409) {
            let same = slot.map(|slot| slot.binary) == self.conns[number].incumbent;
            self.coverage.saw(match cause {
                CloseCause::PeerClosed => "newcomer closed",
                CloseCause::PeerLost => "newcomer left",
                _ if self.rivals(number) >= MOST_NEWCOMERS => "too many newcomers",
                _ if same => "incumbent alive",
                _ => "another newcomer was first",
            });
        }
        match slot {
            Some(Slot { binary, until: None }) if binary == number => {
                let until = Some(now + self.settings.grace);
                self.slots[self.conns[number].server] = Some(Slot { binary, until });
            }
            _ => {}
        }
        Ok(())
    }

    fn justify(&self, number: usize, cause: CloseCause, now: Duration) -> Result<(), String> {
        let conn = &self.conns[number];
        let line = conn.client.line.borrow();
        let ends = &conn.client.ends;
        // A newcomer's close frame is looked for in what was read when it is known what becomes of it.
        let closed = conn.said_good_bye();
        let accepted = conn.outcome == Some(UpgradeOutcome::Accept);
        let of_refused = match conn.outcome {
            Some(UpgradeOutcome::Reject404) => Some(CloseCause::NoServer),
            Some(UpgradeOutcome::Reject429) => Some(CloseCause::TooManyPhones),
            Some(UpgradeOutcome::Reject409) if cause == CloseCause::AlreadyClaimed => {
                self.lost_contest(number)?;
                let looked_at = self.rivals(number) < MOST_NEWCOMERS;
                ensure!(!closed || !looked_at, "it has said good-bye itself");
                Some(cause)
            }
            Some(UpgradeOutcome::Reject409) if closed => Some(CloseCause::PeerClosed),
            Some(UpgradeOutcome::Reject409) if line.is_over() => Some(CloseCause::PeerLost),
            Some(UpgradeOutcome::RejectDraining) => Some(CloseCause::ShuttingDown),
            _ => None,
        };
        if !accepted {
            ensure!(of_refused == Some(cause), "its outcome was {:?}", conn.outcome);
            return Ok(());
        }
        let phone = conn.endpoint == Endpoint::Client;
        let timeout = |since: Option<Duration>, limit| since.is_some_and(|since| now >= since + limit);
        let patience = self.settings.ping_interval + self.settings.pong_timeout;
        let may = match cause {
            CloseCause::PeerClosed => ends.closed,
            CloseCause::PeerLost => line.is_over() || ends.broke_rules,
            CloseCause::ShuttingDown => {
                ensure!(conn.dropped_queued == 0 || self.may_lose(conn, now), "it was not flushed");
                self.cut || self.is_closed_by_drain(conn.server)
            }
            CloseCause::InvalidJson => phone && ends.malformed,
            CloseCause::MessageTooBig => ends.too_big,
            CloseCause::HeartbeatTimeout => {
                // It was asked and did not answer, or could not be asked until now.
                let blocked = line.blocked_since.is_some() || line.moved == now;
                let asked = conn.client.owes_pong() || blocked;
                let due = line.heard + patience;
                let silent = !line.deaf && asked && if line.unclear { now >= due } else { now == due };
                silent || (!phone && conn.doomed == Some(cause))
            }
            CloseCause::MessageTimedOut => {
                !line.deaf && conn.message.is_some_and(|message| now >= message.deadline)
            }
            CloseCause::PhoneWriteFailed | CloseCause::BinaryWriteFailed => {
                let own = phone == (cause == CloseCause::PhoneWriteFailed);
                own && (ends.reset || timeout(line.blocked_since, self.settings.write_timeout))
            }
            CloseCause::PhoneBacklogFull => phone && conn.overflowed,
            CloseCause::BinaryDidNotReconnect | CloseCause::BinaryReclaimed => {
                phone && conn.doomed == Some(cause)
            }
            CloseCause::BinaryDisconnected => {
                let binary = conn.binary.map(|binary| &self.conns[binary]);
                let gone = binary.is_some_and(|it| it.cause.is_some() || it.doomed.is_some());
                phone && gone && conn.came_late == Some(self.step)
            }
            CloseCause::BinaryRequest => {
                let at_once = conn.overflowed || conn.was_full;
                let flushed = conn.dropped_queued == 0 || at_once || self.may_lose(conn, now);
                ensure!(flushed, "what came before the directive was not flushed");
                phone && !conn.directives.is_empty()
            }
            CloseCause::NoServer | CloseCause::AlreadyClaimed | CloseCause::TooManyPhones => false,
        };
        let now = now.as_millis();
        ensure!(may, "it is {now} ms, {:?} {:?} {:?} {line:?}", conn.doomed, conn.message, ends);
        Ok(())
    }

    /// Whether a connection may be closed with frames that wait for it by what stands behind them: because it was cut,
    /// or does not take them. Nothing else can end it meanwhile: it is not listened to any more.
    fn may_lose(&self, conn: &Conn, now: Duration) -> bool {
        let blocked = conn.client.line.borrow().blocked_since;
        self.cut
            || conn.doomed.is_some()
            || blocked.is_some_and(|since| now >= since + self.settings.write_timeout)
    }

    /// A close frame arrived at a client.
    pub(crate) fn farewell(&mut self, number: usize, code: u16, reason: &str) -> Result<(), String> {
        let conn = &self.conns[number];
        let Some((cause, _)) = conn.cause else {
            return Err(format!("{number} got {code} {reason:?} and did not end"));
        };
        if cause == CloseCause::BinaryRequest {
            ensure!(
                reason.is_empty() && conn.directives.contains(&code),
                "nobody asked for {code} {reason:?}"
            );
        } else {
            let expected = close_frame(cause, conn);
            ensure!(expected == Some((code, reason)), "{code} {reason:?} for {cause:?}, not {expected:?}");
        }
        Ok(())
    }
}
