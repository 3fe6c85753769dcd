//! Closing everybody without sending everybody back at once (PROTOCOL § 8).
//!
//! Each server-id has its own moment, drawn at random within the spread: what is queued for its phones is written, they
//! are closed, what they leave for their binary is written, and the binary is closed. A fleet of clients that redials as
//! soon as it is closed therefore comes back over the whole spread.

use std::time::Duration;

use super::close::Close;
use super::hub::Hub;
use super::registry::ServerId;

/// Gives each of `servers` its moment within `spread`, and returns them in the order of their moments. `random` yields
/// numbers evenly spread over all `u64`s; without one, the moments are spread evenly.
#[must_use]
pub fn moments(
    servers: Vec<ServerId>,
    spread: Duration,
    mut random: impl FnMut() -> Option<u64>,
) -> Vec<(Duration, ServerId)> {
    let count = servers.len().max(1) as f64;
    let mut moments: Vec<_> = servers
        .into_iter()
        .enumerate()
        .map(|(at, server_id)| {
            let share = random().map_or(at as f64 / count, |random| random as f64 / (u64::MAX as f64 + 1.0));
            (spread.mul_f64(share), server_id)
        })
        .collect();
    moments.sort();
    moments
}

/// Closes each server-id when its moment has come.
pub async fn close_in_turn(hub: &Hub, moments: Vec<(Duration, ServerId)>, close: Close) {
    let clock = &hub.shared().clock;
    let began = clock.now();
    for (moment, server_id) in moments {
        clock.sleep_until(began + moment).await;
        hub.close_server(&server_id, close);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_id_has_a_moment_within_the_spread() {
        let servers: Vec<ServerId> = ["a", "b", "c", "d"].map(ServerId::from).into();
        let spread = Duration::from_secs(8);
        let mut draws = [u64::MAX, 0, u64::MAX / 2, u64::MAX / 4].into_iter();
        let drawn = moments(servers.clone(), spread, || draws.next());
        let order: Vec<_> = drawn.iter().map(|(_, server_id)| &**server_id).collect();
        assert_eq!(order, ["b", "d", "c", "a"]);
        assert!(drawn[0].0.is_zero() && drawn[3].0 <= spread, "{drawn:?}");

        let even = moments(servers, spread, || None);
        assert_eq!(even.iter().map(|(moment, _)| moment.as_secs()).collect::<Vec<_>>(), [0, 2, 4, 6]);
        assert_eq!(moments(Vec::new(), spread, || None), []);
    }
}
