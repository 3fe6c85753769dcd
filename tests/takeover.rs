//! A second binary for a held server-id: the conflict probe, and what becomes of both (PROTOCOL § 2).

mod support;

use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use support::client::{self, Client, binary_headers, close_frame};
use support::held::{Held, PING, PONG, TEXT};
use support::kept::Kept;
use support::relay::{Metrics, Relay};
use support::{DEADLINE, eventually};

const CLAIMED: (u16, &str) = (4409, "server-id already claimed");
const EVICTED: (u16, &str) = (4404, "binary reclaimed server-id");

/// A short conflict probe, for tests that wait for its end. Where it is left at 10 s, nothing may wait for it.
const SHORT_PROBE: &str = "[session]\nconflict_probe = \"300ms\"\n";

/// Less than the conflict probe that is built in.
const PROMPT: Duration = Duration::from_secs(6);

fn is(value: f64, expected: usize) -> bool {
    (value - expected as f64).abs() < f64::EPSILON
}

fn said((code, reason): (u16, &str)) -> (u16, String) {
    (code, reason.to_owned())
}

/// A phone that is known to be registered.
fn phone(relay: &Relay, server_id: &str) -> Client {
    Client::phone(relay, server_id).admitted_client()
}

/// Waits until an incumbent that reads nothing else gets the probe's ping.
fn is_probed(incumbent: &mut Held) {
    assert_eq!(incumbent.next(), (PING, Vec::new()));
}

/// A frame crosses in both directions.
fn they_talk(binary: &mut Client, phone: &mut Client) {
    let conn_id = phone.conn_id(binary);
    binary.send(format!("{{\"conn_id\":\"{conn_id}\",\"frame\":\"down\"}}"));
    assert_eq!(phone.text(), "\"down\"");
}

/// Nobody was displaced, reclaimed or released.
fn untouched(metrics: &Metrics) -> bool {
    ["takeovers_total", "reclaims_total", "evicted_phones_total", "gracing_binaries"]
        .iter()
        .all(|series| is(metrics.get(series), 0))
}

#[test]
fn a_live_incumbent_answers_and_nothing_of_its_own_changes() {
    let relay = Relay::start();
    let binary = Kept::binary(&relay, "live");
    let mut phone = phone(&relay, "live");
    let began = Instant::now();
    for refused in 1..=3 {
        assert_eq!(Client::binary(&relay, "live").closed(), said(CLAIMED));
        phone.send("\"still there?\"");
        let envelope = binary.json();
        assert_eq!(envelope["frame"], "still there?");
        let conn_id = envelope["conn_id"].as_str().unwrap();
        binary.send(&format!("{{\"conn_id\":\"{conn_id}\",\"frame\":\"still here\"}}"));
        assert_eq!(phone.text(), "\"still here\"");
        let metrics = relay.metrics();
        assert!(is(metrics.upgrades("server", "reject_409"), refused) && untouched(&metrics));
        assert!(is(metrics.get("register_failures_total{kind=\"server_in_use\"}"), refused));
        assert!(is(metrics.closed("server", "already_claimed"), refused));
    }
    assert!(began.elapsed() < PROMPT, "an answer ends the wait");
    assert_eq!(relay.wait_for_event("server_id_conflict")["server_id"], "live");
    assert!(relay.events_named("server_id_takeover").is_empty());
}

#[test]
fn whatever_an_incumbent_sends_is_an_answer() {
    let relay = Relay::start();
    let mut incumbent = Held::binary(&relay, "busy");
    let began = Instant::now();
    let answers: [&[u8]; 3] =
        [b"{\"push_wake\":{\"platform\":\"fcm\",\"token\":\"t\"}}", b"{malformed", b"1"];
    for answer in answers {
        let mut newcomer = Client::binary(&relay, "busy");
        is_probed(&mut incumbent);
        incumbent.write(&client::frame(TEXT, answer));
        assert_eq!(newcomer.closed(), said(CLAIMED));
    }
    assert!(began.elapsed() < PROMPT && untouched(&relay.metrics()));
}

#[test]
fn an_incumbent_whose_phone_is_stalled_answers_all_the_same() {
    let relay = Relay::start();
    let mut binary = Client::binary(&relay, "stalled");
    let (mut slow, conn_id) = Held::phone_of(&relay, &mut binary, "stalled");
    let frame = "s".repeat(100_000);
    let mut sent = 0;
    while relay.metrics().queued("client") < 1_000_000.0 {
        binary.send(format!("{{\"conn_id\":\"{conn_id}\",\"frame\":\"{frame}\"}}"));
        sent += 1;
        assert_eq!(binary.admitted(), Ok(()));
    }
    let began = Instant::now();
    let mut newcomer = Client::binary(&relay, "stalled");
    // While it waits for the answer to its own ping, the incumbent reads the relay's and answers.
    eventually("the newcomer's fate", || {
        assert_eq!(binary.admitted(), Ok(()));
        let refused = relay.metrics().upgrades("server", "reject_409");
        if is(refused, 1) { Ok(()) } else { Err(format!("{refused} refused")) }
    });
    assert_eq!(newcomer.closed(), said(CLAIMED));
    assert!(began.elapsed() < PROMPT && untouched(&relay.metrics()));
    for _ in 0..sent {
        assert_eq!(slow.text().len(), frame.len() + 2);
    }
    let metrics = relay.quiet(1, sent);
    assert!(is(metrics.dropped_in_all("binary_to_phone"), 0) && is(metrics.get("connected_phones"), 1));
}

#[test]
fn a_silent_incumbent_loses_its_place_and_its_end_does_not_touch_its_successor() {
    let relay = Relay::with(&format!("{SHORT_PROBE}grace = \"400ms\"\n"));
    let mut old = Held::binary(&relay, "silent");
    let mut evicted = [phone(&relay, "silent"), phone(&relay, "silent")];
    let began = Instant::now();
    let mut binary = Client::binary(&relay, "silent").admitted_client();
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
    for phone in &mut evicted {
        assert_eq!(phone.closed(), said(EVICTED));
    }
    let mut fresh = phone(&relay, "silent");
    let conn_id = fresh.conn_id(&mut binary);
    // What the displaced one still says reaches nobody, although it names a phone that is there.
    old.send(&format!("{{\"conn_id\":\"{conn_id}\",\"frame\":\"from the grave\"}}"));
    assert_eq!(old.next(), (PING, Vec::new()));
    assert_eq!(old.rest(), [close_frame(1011, "heartbeat timeout")]);
    they_talk(&mut binary, &mut fresh);

    let metrics = relay.metrics();
    assert!(is(metrics.get("takeovers_total"), 1) && is(metrics.get("reclaims_total"), 0));
    assert!(
        is(metrics.get("evicted_phones_total"), 2) && is(metrics.closed("client", "binary_reclaimed"), 2)
    );
    assert!(is(metrics.closed("server", "heartbeat_timeout"), 1) && is(metrics.get("gracing_binaries"), 0));
    assert!(is(metrics.get("connected_binaries"), 1) && is(metrics.get("connected_phones"), 1));
    assert!(is(metrics.upgrades("server", "accept"), 2) && is(metrics.upgrades("server", "reject_409"), 0));
    let event = relay.wait_for_event("server_id_takeover");
    let keys: Vec<_> = event.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["event", "level", "phones", "remote", "server_id", "timestamp"]);
    assert_eq!(
        (&event["server_id"], &event["phones"], &event["remote"]),
        (&"silent".into(), &2.into(), &"127.0.0.1".into())
    );

    // Grace periods are equally long: when a later one is over, one that the displaced one began would be, too.
    Client::binary(&relay, "later").drop_connection();
    let metrics = relay.wait_for_metric("grace_expiries_total", 1.0);
    assert_eq!(relay.events_named("server_expired").len(), 1);
    let released = relay.events_named("server_released");
    assert!(released.len() == 1 && released[0]["server_id"] == "later", "{released:?}");
    assert!(is(metrics.get("connected_binaries"), 1) && is(metrics.get("gracing_binaries"), 0));
    they_talk(&mut binary, &mut fresh);
}

#[test]
fn of_six_newcomers_against_one_dead_incumbent_one_wins() {
    let relay = Relay::with(SHORT_PROBE);
    let mut old = Held::binary(&relay, "six");
    let mut evicted = phone(&relay, "six");
    let (address, start) = (relay.address, Arc::new(Barrier::new(6)));
    let newcomers: Vec<_> = (0..6)
        .map(|_| {
            let start = Arc::clone(&start);
            std::thread::spawn(move || {
                start.wait();
                let mut newcomer =
                    client::connect(address, "/v2/server", &binary_headers("six")).expect("upgraded");
                let admitted = newcomer.admitted();
                // The winner goes on answering, in case another one asks about it later than the rest.
                (Kept::over(newcomer.socket().try_clone().unwrap()), admitted)
            })
        })
        .collect();
    let newcomers: Vec<_> = newcomers.into_iter().map(|newcomer| newcomer.join().unwrap()).collect();
    let (won, lost): (Vec<_>, Vec<_>) = newcomers.into_iter().partition(|(_, admitted)| admitted.is_ok());
    assert_eq!(
        lost.into_iter().filter_map(|(_, told)| told.err()).collect::<Vec<_>>(),
        vec![said(CLAIMED); 5]
    );
    assert_eq!(evicted.closed(), said(EVICTED));
    assert_eq!(old.rest(), [close_frame(1011, "heartbeat timeout")]);

    let [(winner, _)] = won.as_slice() else { panic!("{} winners", won.len()) };
    phone(&relay, "six").send("\"to the winner\"");
    assert_eq!(winner.json()["frame"], "to the winner");
    let metrics = relay
        .wait_for_metric("connections_closed_total{cause=\"heartbeat_timeout\",endpoint=\"server\"}", 1.0);
    assert!(is(metrics.get("takeovers_total"), 1) && is(metrics.get("evicted_phones_total"), 1));
    assert!(is(metrics.upgrades("server", "accept"), 2) && is(metrics.upgrades("server", "reject_409"), 5));
    assert!(is(metrics.closed("server", "already_claimed"), 5) && is(metrics.get("connected_binaries"), 1));
    assert!(is(metrics.get("reclaims_total"), 0) && is(metrics.get("gracing_binaries"), 0));
    assert_eq!(relay.events_named("server_id_takeover").len(), 1);
}

#[test]
fn an_incumbent_that_goes_during_the_probe_makes_room_at_once() {
    let relay = Relay::start();
    let mut phones = Vec::new();
    let began = Instant::now();
    for cause in ["peer_closed", "peer_lost"] {
        let id = format!("going-{cause}");
        let mut old = Held::binary(&relay, &id);
        let mut waiting = phone(&relay, &id);
        let mut newcomer = Client::binary(&relay, &id);
        is_probed(&mut old);
        if cause == "peer_closed" {
            // It says something, but that is no answer: it goes.
            old.write(&client::frame(0x88, b""));
            assert_eq!(old.rest(), [close_frame(1000, "")]);
        } else {
            drop(old);
        }
        let metrics = relay.wait_for_metric(
            &format!("connections_closed_total{{cause=\"{cause}\",endpoint=\"server\"}}"),
            1.0,
        );
        assert!(is(metrics.get("takeovers_total"), 0));
        assert_eq!(newcomer.admitted(), Ok(()));
        assert_eq!(waiting.closed(), said(EVICTED));
        phones.push((phone(&relay, &id), newcomer));
    }
    assert!(began.elapsed() < PROMPT, "nobody waits for the end of a probe that has its answer");
    let metrics = relay.metrics();
    assert!(is(metrics.get("reclaims_total"), 2) && is(metrics.get("takeovers_total"), 0));
    assert!(is(metrics.get("evicted_phones_total"), 2) && is(metrics.upgrades("server", "reject_409"), 0));
    assert!(is(metrics.upgrades("server", "accept"), 4) && is(metrics.get("gracing_binaries"), 0));
    for (phone, newcomer) in &mut phones {
        they_talk(newcomer, phone);
    }
}

#[test]
fn a_newcomer_that_hangs_up_during_the_probe_is_counted_and_nothing_else() {
    let relay = Relay::start();
    let mut incumbent = Held::binary(&relay, "patient");
    let mut phone = phone(&relay, "patient");
    let began = Instant::now();
    let newcomer = Client::binary(&relay, "patient");
    is_probed(&mut incumbent);
    newcomer.drop_connection();
    let series = "ws_upgrade_attempts_total{endpoint=\"server\",outcome=\"reject_409\"}";
    relay.wait_for_metric(series, 1.0);
    assert!(began.elapsed() < PROMPT, "it is not waited for");
    // The incumbent owes its answer still, and the next newcomer waits for the same one. Nothing shows when it has begun
    // to, so the answer is given until it has an effect.
    let mut newcomer = Client::binary(&relay, "patient");
    eventually("the second refusal", || {
        incumbent.write(&client::frame(PONG, b""));
        let refused = relay.metrics().upgrades("server", "reject_409");
        if is(refused, 2) { Ok(()) } else { Err(format!("{refused} refused")) }
    });
    assert_eq!(newcomer.closed(), said(CLAIMED));
    phone.send("\"through\"");
    assert!(incumbent.text().ends_with("\"frame\":\"through\"}"));
    let metrics = relay.metrics();
    assert!(untouched(&metrics) && is(metrics.get("connected_binaries"), 1));
    assert!(is(metrics.upgrades("server", "accept"), 1) && is(metrics.upgrades("server", "reject_409"), 2));
    assert!(
        is(metrics.closed("server", "peer_lost"), 1) && is(metrics.closed("server", "already_claimed"), 1)
    );
}

#[test]
fn what_a_newcomer_sends_during_the_probe_counts_when_it_has_won() {
    const WAKES: usize = 600;
    let relay = Relay::with(SHORT_PROBE);
    let mut old = Held::binary(&relay, "eager");
    let wake = client::frame(TEXT, b"{\"push_wake\":{\"platform\":\"fcm\",\"token\":\"t\"}}");
    // More than the relay takes of it before it is let in, then a ping and the first fragment of a message.
    let mut early = wake.repeat(WAKES);
    early.extend(client::frame(PING, b"early"));
    early.extend(client::frame(0x01, b"{\"frame\":\"in two halves\",\"conn_id\":"));
    let mut newcomer = client::raw_with(relay.address, "/v2/server", &binary_headers("eager"), &early);
    is_probed(&mut old);
    assert!(is(relay.metrics().get("push_wakes_total{outcome=\"off\"}"), 0), "nothing counts before");
    assert_eq!(client::read_frame(&mut newcomer), Some((PONG, b"early".to_vec())));
    let metrics = relay.wait_for_metric("push_wakes_total{outcome=\"off\"}", WAKES as f64);
    assert!(is(metrics.get("takeovers_total"), 1));

    let mut phone = phone(&relay, "eager");
    phone.send("1");
    let (_, envelope) = client::read_frame(&mut newcomer).unwrap();
    let conn_id = String::from_utf8(envelope[12..30].to_vec()).unwrap();
    std::io::Write::write_all(&mut newcomer, &client::frame(0x80, format!("\"{conn_id}\"}}").as_bytes()))
        .unwrap();
    assert_eq!(phone.text(), "\"in two halves\"");
    assert_eq!(old.rest(), [close_frame(1011, "heartbeat timeout")]);
    relay.quiet(1, 1);
}

#[test]
fn a_drain_during_a_probe_is_an_answer() {
    let mut relay = Relay::with("[drain]\nspread = \"1m\"\ntimeout = \"1m\"\n");
    let mut incumbent = Held::binary(&relay, "drained");
    let mut newcomer = Client::binary(&relay, "drained");
    is_probed(&mut incumbent);
    let began = Instant::now();
    relay.signal("TERM");
    // It has no moment of its own, and does not wait for the incumbent's.
    assert_eq!(newcomer.closed(), (1001, "shutting down; retry-after=60".to_owned()));
    assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
    assert!(is(relay.metrics().upgrades("server", "reject_draining"), 1));
    relay.signal("TERM");
    assert_eq!(incumbent.rest(), [close_frame(1001, "shutting down; retry-after=60")]);
    drop((newcomer, incumbent));
    assert_eq!(relay.wait_for_exit().code(), Some(0));
    assert!(relay.events_named("server_id_takeover").is_empty());
}

#[test]
fn an_incumbent_that_is_blocked_in_the_kernel_is_cut_at_once() {
    let relay = Relay::with(&format!("{SHORT_PROBE}write_timeout = \"1m\"\n"));
    let mut old = Held::binary(&relay, "blocked");
    let mut sender = Client::phone(&relay, "blocked");
    let frame = format!("\"{}\"", "b".repeat(50_000));
    let mut sent = 0;
    while relay.metrics().queued("server") < 1_000_000.0 {
        sender.send(&frame);
        sent += 1;
        assert_eq!(sender.admitted(), Ok(()));
    }
    let began = Instant::now();
    let mut binary = Client::binary(&relay, "blocked").admitted_client();
    assert_eq!(sender.closed(), said(EVICTED));
    let metrics = relay
        .wait_for_metric("connections_closed_total{cause=\"heartbeat_timeout\",endpoint=\"server\"}", 1.0);
    assert!(began.elapsed() < DEADLINE / 2, "it was cut through the write that was blocked");
    // All but the frame that is half written died at once.
    assert!(metrics.queued("server") <= 50_200.0 && is(metrics.get("takeovers_total"), 1));
    they_talk(&mut binary, &mut phone(&relay, "blocked"));
    let arrived = old.rest();
    assert_eq!(arrived.last(), Some(&close_frame(1011, "heartbeat timeout")));
    let metrics = relay.quiet(sent + 1, 1);
    assert!(is(metrics.dropped("phone_to_binary", "receiver_closed"), sent - (arrived.len() - 1)));
    assert!(is(metrics.dropped_in_all("phone_to_binary"), sent - (arrived.len() - 1)));
}
