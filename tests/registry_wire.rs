//! Claim, grace, reclaim and the phones' places, on the wire (PROTOCOL § 2).

mod support;

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Barrier};

use support::client::{self, Client, binary_headers, phone_headers};
use support::eventually;
use support::relay::{Metrics, Relay};

const NO_SERVER: (u16, &str) = (4404, "no server with that id");
const FULL: (u16, &str) = (4429, "too many phones for server-id");

/// A short grace period, for tests that wait for its end.
const SHORT_GRACE: &str = "[session]\ngrace = \"400ms\"\n";

fn is(value: f64, expected: u32) -> bool {
    (value - f64::from(expected)).abs() < f64::EPSILON
}

/// What a client was told when it was closed.
fn told(client: &mut Client) -> (u16, String) {
    client.closed()
}

fn said((code, reason): (u16, &str)) -> (u16, String) {
    (code, reason.to_owned())
}

/// A phone that is known to be registered.
fn phone(relay: &Relay, server_id: &str) -> Client {
    let mut phone = Client::phone(relay, server_id);
    assert_eq!(phone.admitted(), Ok(()), "{server_id}");
    phone
}

/// The binary's connection ends, and its grace period has begun.
fn lose(relay: &Relay, binary: Client) -> Metrics {
    let gracing = relay.metrics().get("gracing_binaries");
    binary.drop_connection();
    relay.wait_for_metric("gracing_binaries", gracing + 1.0)
}

#[test]
fn the_first_claim_wins_and_the_second_changes_nothing() {
    let relay = Relay::start();
    let mut binary = Client::binary(&relay, "held");
    let mut phone = phone(&relay, "held");
    let headers =
        [("x-pyrycode-server", "held"), ("x-pyrycode-version", "rival-version"), ("user-agent", "rival")];
    let mut rival = client::connect(relay.address, "/v1/server", &headers).expect("upgraded");
    binary.answer_probe_of(rival.socket());
    assert_eq!(told(&mut rival), said((4409, "server-id already claimed")));

    phone.send("\"before and after\"");
    assert_eq!(binary.json()["frame"], "before and after");
    let metrics = relay.metrics();
    assert!(is(metrics.upgrades("server", "reject_409"), 1));
    assert!(is(metrics.get("register_failures_total{kind=\"server_in_use\"}"), 1));
    assert!(is(metrics.closed("server", "already_claimed"), 1));
    assert!(is(metrics.get("connected_binaries"), 1) && is(metrics.get("connected_phones"), 1));
    assert_eq!(relay.wait_for_event("server_id_conflict")["server_id"], "held");
    assert_eq!(relay.events_named("server_claimed").len(), 1);
    assert!(!format!("{:?}", relay.events()).contains("rival-version"));
}

#[test]
fn during_grace_phones_stay_and_more_may_come_but_a_frame_has_nowhere_to_go() {
    let relay = Relay::start();
    let binary = Client::binary(&relay, "grace");
    let mut before = phone(&relay, "grace");
    let metrics = lose(&relay, binary);
    assert!(is(metrics.get("connected_binaries"), 0) && is(metrics.get("connected_phones"), 1));

    let mut during = phone(&relay, "grace");
    assert_eq!(before.admitted(), Ok(()));
    before.send("\"anybody there?\"");
    assert_eq!(told(&mut before), said((4404, "binary disconnected")));
    assert_eq!(during.admitted(), Ok(()), "it did not send a frame");
    let metrics = relay.wait_for_metric("connected_phones", 1.0);
    assert!(is(metrics.dropped("phone_to_binary", "no_binary"), 1));
    assert!(is(metrics.dropped_in_all("phone_to_binary"), 1));
    assert!(is(metrics.closed("client", "binary_disconnected"), 1));
    assert_eq!(relay.wait_for_event("server_released")["server_id"], "grace");
}

#[test]
fn a_reclaim_evicts_every_phone_and_the_old_timer_never_fires() {
    let relay = Relay::with(SHORT_GRACE);
    let _later = Client::binary(&relay, "later");
    let binary = Client::binary(&relay, "back");
    let mut phones = vec![phone(&relay, "back"), phone(&relay, "back")];
    lose(&relay, binary);
    phones.push(phone(&relay, "back"));
    let mut binary = Client::binary(&relay, "back");
    for phone in &mut phones {
        assert_eq!(told(phone), said((4404, "binary reclaimed server-id")));
    }
    let reclaimed = relay.wait_for_event("server_reclaimed");
    assert_eq!((&reclaimed["server_id"], &reclaimed["phones"]), (&"back".into(), &3.into()));

    let mut phone = phone(&relay, "back");
    // Grace periods are equally long: once a later one has expired, the time of the cancelled one is over.
    let later = Client::binary(&relay, "latest");
    later.drop_connection();
    let metrics = relay.wait_for_metric("grace_expiries_total", 1.0);
    assert_eq!(relay.events_named("server_expired").len(), 1);
    assert_eq!(relay.wait_for_event("server_expired")["server_id"], "latest");
    assert!(is(metrics.get("reclaims_total"), 1) && is(metrics.get("evicted_phones_total"), 3));
    assert!(is(metrics.closed("client", "binary_reclaimed"), 3));
    assert!(is(metrics.get("connected_binaries"), 2) && is(metrics.get("gracing_binaries"), 0));
    phone.send("\"to the new one\"");
    assert_eq!(binary.json()["frame"], "to the new one", "no notice of the evicted phones comes before");
}

#[test]
fn when_grace_expires_every_phone_is_told_and_the_server_id_is_unknown() {
    let relay = Relay::with(SHORT_GRACE);
    let binary = Client::binary(&relay, "gone");
    let mut bystander = Client::binary(&relay, "bystander");
    let mut other = phone(&relay, "bystander");
    let mut phones = [phone(&relay, "gone"), phone(&relay, "gone")];
    binary.drop_connection();
    for phone in &mut phones {
        assert_eq!(told(phone), said((1011, "binary did not reconnect")));
    }
    let metrics = relay.wait_for_metric("grace_expiries_total", 1.0);
    assert!(is(metrics.get("gracing_binaries"), 0) && is(metrics.get("reclaims_total"), 0));
    assert!(is(metrics.get("connected_binaries"), 1) && is(metrics.get("connected_phones"), 1));
    let expired = relay.wait_for_event("server_expired");
    assert_eq!((&expired["server_id"], &expired["phones"]), (&"gone".into(), &2.into()));

    assert_eq!(told(&mut Client::phone(&relay, "gone")), said(NO_SERVER));
    other.send("1");
    assert_eq!(bystander.json()["frame"], 1, "another server-id notices nothing");
    // A binary that comes after the expiry finds a free server-id.
    let _binary = Client::binary(&relay, "gone");
    phone(&relay, "gone");
    let metrics = relay.metrics();
    assert!(
        is(metrics.get("reclaims_total"), 0) && is(metrics.closed("client", "binary_did_not_reconnect"), 2)
    );
    assert_eq!(relay.events_named("server_claimed").len(), 3);
}

#[test]
fn a_phone_without_a_server_is_told_so() {
    let relay = Relay::start();
    let _other = Client::binary(&relay, "elsewhere");
    for id in ["nobody", "Elsewhere", "elsewhere2", "elsewher"] {
        assert_eq!(told(&mut Client::phone(&relay, id)), said(NO_SERVER), "{id}");
    }
    let metrics = relay.metrics();
    assert!(is(metrics.upgrades("client", "reject_404"), 4) && is(metrics.upgrades("client", "accept"), 0));
    assert!(is(metrics.get("register_failures_total{kind=\"no_server\"}"), 4));
    assert!(is(metrics.closed("client", "no_server"), 4));
    assert_eq!(relay.wait_for_event("phone_refused")["cause"], "no_server");
}

#[test]
fn sixteen_phones_fill_a_server_id_also_during_grace() {
    let relay = Relay::with(SHORT_GRACE);
    let binary = Client::binary(&relay, "full");
    let _other = Client::binary(&relay, "roomy");
    let mut phones: Vec<_> = (0..16).map(|_| phone(&relay, "full")).collect();
    assert_eq!(told(&mut Client::phone(&relay, "full")), said(FULL));
    phone(&relay, "roomy");
    binary.drop_connection();
    relay.wait_for_metric("gracing_binaries", 1.0);
    let refused = told(&mut Client::phone(&relay, "full"));
    // Once the slot is gone as well, that there is no server wins. On a slow machine it may be gone by now.
    assert!(refused == said(FULL) || refused == said(NO_SERVER), "{refused:?}");
    relay.wait_for_metric("grace_expiries_total", 1.0);
    assert_eq!(told(&mut Client::phone(&relay, "full")), said(NO_SERVER));
    for phone in &mut phones {
        assert_eq!(told(phone), said((1011, "binary did not reconnect")));
    }
    let metrics = relay.metrics();
    let full = metrics.upgrades("client", "reject_429");
    assert!(full >= 1.0 && (full - metrics.closed("client", "too_many_phones")).abs() < f64::EPSILON);
    assert!((full - metrics.get("register_failures_total{kind=\"phones_at_cap\"}")).abs() < f64::EPSILON);
    assert!(is(metrics.upgrades("client", "accept"), 17));
}

#[test]
fn two_dozen_phones_racing_for_sixteen_places_get_sixteen() {
    let relay = Relay::start();
    let _binary = Client::binary(&relay, "race");
    let (address, start) = (relay.address, Arc::new(Barrier::new(24)));
    let racers: Vec<_> = (0..24)
        .map(|_| {
            let start = Arc::clone(&start);
            std::thread::spawn(move || {
                start.wait();
                let mut phone =
                    client::connect(address, "/v2/client", &phone_headers("race")).expect("upgraded");
                let admitted = phone.admitted();
                (phone, admitted)
            })
        })
        .collect();
    let racers: Vec<_> = racers.into_iter().map(|racer| racer.join().unwrap()).collect();
    let lost: Vec<_> = racers.iter().filter_map(|(_, admitted)| admitted.clone().err()).collect();
    assert_eq!(lost, vec![said(FULL); 8]);
    let metrics = relay.metrics();
    assert!(is(metrics.upgrades("client", "accept"), 16) && is(metrics.upgrades("client", "reject_429"), 8));
    assert!(is(metrics.get("connected_phones"), 16));
}

#[test]
fn a_phone_gives_its_place_back_however_it_goes() {
    type Exit = fn(Client, TcpStream, &str);
    let relay = Relay::with("[limits]\nphones_per_server = 1\n");
    let ways: [(&str, Exit); 7] = [
        ("peer_closed", |_, mut phone, _| {
            phone.write_all(&client::frame(0x88, b"")).unwrap();
        }),
        ("peer_lost", |_, phone, _| drop(phone)),
        ("peer_lost", |_, phone, _| {
            phone.shutdown(Shutdown::Write).unwrap();
        }),
        ("peer_lost", |mut binary, phone, conn_id| {
            binary.send(format!("{{\"conn_id\":\"{conn_id}\",\"frame\":1}}"));
            client::reset(phone);
        }),
        ("invalid_json", |_, mut phone, _| {
            phone.write_all(&client::frame(0x81, b"{")).unwrap();
        }),
        ("binary_request", |mut binary, _, conn_id| {
            binary.send(format!("{{\"conn_id\":\"{conn_id}\",\"close_code\":4000}}"));
        }),
        ("message_too_big", |_, mut phone, _| {
            phone.write_all(&client::header(0x81, 1 << 62)).unwrap();
        }),
    ];
    for (number, (cause, exit)) in ways.into_iter().enumerate() {
        let id = format!("place-{number}");
        let mut binary = Client::binary(&relay, &id);
        let mut stream = client::raw(relay.address, "/v2/client", &phone_headers(&id));
        stream.write_all(&client::frame(0x81, b"0")).unwrap();
        let conn_id = binary.json()["conn_id"].as_str().unwrap().to_owned();
        assert_eq!(Client::phone(&relay, &id).admitted(), Err(said(FULL)), "{cause}");
        let before = relay.metrics();
        // Else the test's end of the connection stays open.
        let keep = (cause != "peer_lost").then(|| stream.try_clone().unwrap());
        exit(binary, stream, &conn_id);
        let after = relay.wait_for_metric("connected_phones", 0.0);
        let series = format!("connections_closed_total{{cause=\"{cause}\",endpoint=\"client\"}}");
        let _ = relay.wait_for_metric(&series, before.closed("client", cause) + 1.0);
        assert!(is(after.get("connected_phones"), 0), "{cause}");
        phone(&relay, &id);
        relay.wait_for_metric("connected_phones", 0.0);
        drop(keep);
    }
    let causes = eventually("all events", || {
        let events = relay.events_named("phone_unregistered");
        if events.len() == 14 { Ok(events) } else { Err(format!("{}", events.len())) }
    });
    assert!(causes.iter().any(|event| event["cause"] == "binary_request"));
}

#[test]
fn however_a_binarys_connection_ends_its_phones_wait_for_it() {
    type Ending = dyn Fn(&mut TcpStream);
    fn write(bytes: Vec<u8>) -> impl Fn(&mut TcpStream) {
        move |binary| binary.write_all(&bytes).unwrap()
    }
    let relay = Relay::start();
    let fin = |binary: &mut TcpStream| binary.shutdown(Shutdown::Write).unwrap();
    let reset = |binary: &mut TcpStream| {
        client::reset(std::mem::replace(binary, TcpStream::connect(binary.peer_addr().unwrap()).unwrap()));
    };
    let ways: Vec<(&str, Box<Ending>)> = vec![
        ("peer_closed", Box::new(write(client::frame(0x88, &client::close_payload(1000, "bye"))))),
        ("peer_closed", Box::new(write(client::frame(0x88, &client::close_payload(4001, ""))))),
        ("peer_closed", Box::new(write(client::frame(0x88, b"")))),
        ("peer_lost", Box::new(fin)),
        ("peer_lost", Box::new(reset)),
        // Not masked; reserved bits; reserved opcodes; a fragmented ping; one that is too long; a continuation of
        // nothing; a message inside a message; close frames of one byte, with an illegal code, not in UTF-8.
        ("peer_lost", Box::new(write(vec![0x81, 1, b'1']))),
        ("peer_lost", Box::new(write(client::frame(0xc1, b"1")))),
        ("peer_lost", Box::new(write(client::frame(0x83, b"1")))),
        ("peer_lost", Box::new(write(client::frame(0x8b, b"1")))),
        ("peer_lost", Box::new(write(client::frame(0x09, b"1")))),
        ("peer_lost", Box::new(write(client::frame(0x89, &[0; 126])))),
        ("peer_lost", Box::new(write(client::frame(0x80, b"1")))),
        ("peer_lost", Box::new(write([client::frame(0x01, b"1"), client::frame(0x81, b"1")].concat()))),
        ("peer_lost", Box::new(write(client::frame(0x88, b"1")))),
        ("peer_lost", Box::new(write(client::frame(0x88, &client::close_payload(1005, ""))))),
        ("peer_lost", Box::new(write(client::frame(0x88, b"\x03\xe8\xff\xfe")))),
        ("message_too_big", Box::new(write(client::header(0x81, 1 << 31)))),
    ];
    let total = u32::try_from(ways.len()).unwrap();
    let mut phones = Vec::new();
    for (number, (cause, end)) in ways.into_iter().enumerate() {
        let id = format!("end-{number}");
        let mut binary = client::raw(relay.address, "/v2/server", &binary_headers(&id));
        let mut phone = phone(&relay, &id);
        phone.send("\"unread\"");
        let before = relay.wait_for_metric(
            "frames_forwarded_total{direction=\"phone_to_binary\"}",
            f64::from(u32::try_from(number).unwrap()) + 1.0,
        );
        end(&mut binary);
        let series = format!("connections_closed_total{{cause=\"{cause}\",endpoint=\"server\"}}");
        let after = relay.wait_for_metric(&series, before.closed("server", cause) + 1.0);
        assert!(is(after.get("gracing_binaries") - before.get("gracing_binaries"), 1), "{number} {cause}");
        assert!(is(after.dropped_in_all("binary_to_phone"), 0), "{number} {cause}: it sent no message");
        assert_eq!(phone.admitted(), Ok(()), "{number} {cause}");
        phones.push(phone);
    }
    let metrics = relay.metrics();
    assert!(is(metrics.get("gracing_binaries"), total) && is(metrics.get("connected_binaries"), 0));
    assert!(is(metrics.get("connected_phones"), total));
    assert_eq!(relay.events_named("server_released").len(), phones.len());
}
