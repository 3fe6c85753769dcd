//! Who is gone before the answer to its upgrade is written.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]
#![allow(clippy::float_cmp, reason = "counts are whole numbers, which floats hold exactly")]

mod support;

use std::io::Write;
use std::net::{Ipv4Addr, Shutdown};
use std::os::fd::AsFd;

use support::client::{connect_over, phone_headers};
use support::http::upgrade;
use support::relay::Relay;
use support::{connect_from, eventually};

const STRANGER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

#[test]
fn who_leaves_in_the_middle_of_the_upgrade_leaves_no_place_behind() {
    let relay = Relay::with("[limits]\nconnections_per_address = 1\n");
    for _ in 0..200 {
        let mut stream = connect_from(STRANGER, relay.address);
        stream.write_all(upgrade("/v2/client", &phone_headers("gone")).as_bytes()).unwrap();
        // With a reset instead of an orderly end: the answer finds nobody.
        socket2::SockRef::from(&stream.as_fd()).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        let _ = stream.shutdown(Shutdown::Read);
        drop(stream);
    }
    let metrics = eventually("one outcome for each of them", || {
        let metrics = relay.metrics();
        let outcomes =
            ["accept", "reject_404", "reject_bad_request"].map(|outcome| metrics.upgrades("client", outcome));
        if outcomes.iter().sum::<f64>() == 200.0 { Ok(metrics) } else { Err(format!("{outcomes:?}")) }
    });
    // Who was still there when its answer was written was upgraded, and then found nobody.
    let upgraded = metrics.upgrades("client", "reject_404");
    let closed = ["no_server", "peer_lost", "peer_closed"].map(|cause| metrics.closed("client", cause));
    assert_eq!(closed.iter().sum::<f64>(), upgraded, "{closed:?}");
    for series in ["admitted_connections{endpoint=\"client\"}", "handshakes_in_progress"] {
        relay.wait_for_metric(series, 0.0);
    }
    let there = connect_from(STRANGER, relay.address);
    let mut there = connect_over(there, "/v2/client", &phone_headers("gone")).unwrap();
    assert_eq!(there.closed().0, 4404);
}
