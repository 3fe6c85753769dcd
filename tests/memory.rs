//! What connections took, and what waited for them, is given back when it has gone.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::time::Duration;

use support::client::{Client, STALLING};
use support::relay::Relay;
use support::{eventually, eventually_within};

const BINARIES: usize = 60;
const PHONES: usize = 16;

/// So many connections, and a frame to each binary from each of its phones.
fn wave(relay: &Relay, name: &str) -> Vec<Client> {
    (0..BINARIES)
        .flat_map(|number| {
            let server_id = format!("{name}-{number}");
            let mut binary = Client::binary(relay, &server_id);
            let mut phones: Vec<_> = (0..PHONES).map(|_| Client::phone(relay, &server_id)).collect();
            for phone in &mut phones {
                phone.send(format!("\"{}\"", "x".repeat(4000)));
                assert!(binary.json()["frame"].is_string());
            }
            phones.push(binary);
            phones
        })
        .collect()
}

/// Waits until at most a quarter of it is left. What the threads' caches alone would keep of many connections is more than this.
fn is_given_back(relay: &Relay, held: u64, before: u64) {
    let most = before + (held - before) / 4;
    // A try that comes too early is repeated after twice as long.
    eventually_within(Duration::from_secs(90), "memory is given back", || match relay.anonymous_memory() {
        now if now <= most => Ok(()),
        now => Err(format!("{now} KiB of {held}, and {before} before")),
    });
}

#[test]
fn what_many_connections_took_is_given_back_when_they_have_gone() {
    let relay = Relay::with("[session]\ngrace = \"1s\"\n");
    // What every process needs once is there then.
    drop(Client::binary(&relay, "first"));
    let before = relay.anonymous_memory();
    let connections = wave(&relay, "second");
    let held = relay.anonymous_memory();
    assert!(held > before + 1500, "{} connections took {held} - {before} KiB", connections.len());
    drop(connections);
    relay.wait_for_metric("connected_phones", 0.0);
    relay.wait_for_metric("gracing_binaries", 0.0);
    is_given_back(&relay, held, before);
    let mut binary = Client::binary(&relay, "still");
    let mut phone = Client::phone(&relay, "still");
    phone.send("\"serves\"");
    assert_eq!(binary.json()["frame"], "serves");
}

#[test]
fn what_waited_for_a_phone_is_given_back_when_it_was_read() {
    let relay = Relay::with(STALLING);
    let mut binary = Client::binary(&relay, "waits");
    let mut phone = Client::phone(&relay, "waits");
    let id = phone.conn_id(&mut binary);
    let before = relay.anonymous_memory();
    let frames = 30_000;
    for number in 0..frames {
        binary.send(format!("{{\"conn_id\":\"{id}\",\"frame\":[{number},\"{}\"]}}", "x".repeat(1000)));
    }
    eventually("much waits", || match relay.metrics().queued("client") {
        enough if enough > 20e6 => Ok(()),
        little => Err(format!("{little} bytes")),
    });
    let held = relay.anonymous_memory();
    assert!(held > before + 20_000, "{held} - {before} KiB");
    for number in 0..frames {
        assert!(phone.text().starts_with(&format!("[{number},")));
    }
    is_given_back(&relay, held, before);
}
