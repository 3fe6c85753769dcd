//! The steps of a probe, in the order they are made; each needs the one before.
//!
//! At any moment at most one connection has something to say. While that is waited for, the other is watched: a close
//! there is often the reason for the silence here, and a message there is one that should not exist.

use std::fmt::Display;
use std::future::Future;
use std::time::Instant;

use async_tungstenite::tungstenite::Utf8Bytes;
use data_encoding::HEXLOWER;
use futures_lite::future;

use super::Plan;
use super::clock::Clock;
use super::dial;
use super::envelope::{conn_id, must_wrap, wrapped};
use super::explain::{self, Trouble, must_equal};
use super::frame::{Frames, Towards};
use super::link::{Leg, Link};
use super::report::{Failure, Report, milliseconds};
use super::tls::{self, TlsClient};

/// The code that the binary asks the relay to close a phone with. It means nothing to anybody.
const DIRECTIVE_CODE: u16 = 4999;

/// The code that the second phone closes with; any code of the private range would do.
const PHONE_CODE: u16 = 4001;

const PHONES_FRAME: &str = "the phone's frame in its envelope, at the binary,";
const BINARYS_FRAME: &str = "the binary's frame, at the phone,";
const NOTICE: &str = "the close notice, at the binary,";

/// Makes every step, says what was checked, and stops at the first that fails.
pub(super) async fn run(plan: &Plan, report: &mut Report, say: &mut dyn FnMut(&str)) -> Result<(), Failure> {
    let clock = Clock::start(plan.deadlines);
    let target = &plan.target;
    let (random, seed) = random().map_err(|error| fail("prepare", error))?;
    let server_id = plan.server_id.clone().unwrap_or(random);
    let mut frames = Frames::new(plan.size, seed);

    let client = target.tls_name().map(|name| TlsClient::new(name.clone(), &plan.trust)).transpose();
    let client = client.map_err(|why| fail("tls", why))?;

    let (address, stream) = dial::reach(&clock, target).await.map_err(at("connect"))?;
    say(&format!("ok   connect          {address}"));

    let stream = tls::secured(&clock, target, client.as_ref(), stream).await.map_err(at("tls"))?;
    report.tls = tls::session(&stream);
    if let Some(session) = &report.tls {
        say(&format!("ok   tls              {session}"));
    }

    let mut binary =
        Link::open(&clock, stream, Leg::Binary, target, &server_id, plan.size).await.map_err(at("claim"))?;
    say(&format!("ok   claim            {server_id}"));

    let stream = dial::dial(&clock, target, address, client.as_ref()).await.map_err(at("phone"))?;
    let joining = Link::open(&clock, stream, Leg::Phone, target, &server_id, plan.size);
    let mut phone = beside(joining, &mut binary).await.map_err(at("phone"))?;
    say("ok   phone            connected");

    let first_id =
        round_trips(plan, report, &mut frames, &mut binary, &mut phone).await.map_err(at("round trips"))?;
    say(&format!("ok   round trips      {} frames of {} B each way, bytes verified", plan.count, plan.size));
    if let Some(times) = report.round_trip() {
        say(&format!(
            "     round trip       p50 {}  p99 {}  max {}",
            milliseconds(times.p50),
            milliseconds(times.p99),
            milliseconds(times.max)
        ));
    }

    let frame = frames.next(plan.count, Towards::Phone);
    close_directive(report, &frame, &first_id, &mut binary, &mut phone)
        .await
        .map_err(at("close directive"))?;
    drop(phone);
    say(&format!("ok   close directive  the phone got its last frame, then {DIRECTIVE_CODE}"));

    let stream = dial::dial(&clock, target, address, client.as_ref()).await.map_err(at("close notice"))?;
    let joining = Link::open(&clock, stream, Leg::Phone, target, &server_id, plan.size);
    let mut phone = beside(joining, &mut binary).await.map_err(at("close notice"))?;
    let frame = frames.next(plan.count, Towards::Binary);
    close_notice(report, &frame, &first_id, &mut binary, &mut phone).await.map_err(at("close notice"))?;
    say(&format!(
        "ok   close notice     the binary got the phone's last frame, then the notice of {PHONE_CODE}"
    ));

    binary.send_close(1000).await.map_err(at("goodbye"))?;
    binary.closed(1000, "the answer to the binary's close").await.map_err(at("goodbye"))?;
    say("ok   goodbye          the binary closed with 1000 and was answered");
    Ok(())
}

/// Frames there and back, one in flight. Returns the phone's `conn_id`.
async fn round_trips(
    plan: &Plan,
    report: &mut Report,
    frames: &mut Frames,
    binary: &mut Link,
    phone: &mut Link,
) -> Result<String, Trouble> {
    let mut known: Option<String> = None;
    for number in 0..plan.count {
        match round_trip(number, known.take(), report, frames, binary, phone).await {
            Ok(id) => known = Some(id),
            // The relay closes the phone and tells the binary, and the binary may hear of it first.
            Err(Trouble::Notice { code, .. }) => return Err(phone.announced_close(code).await),
            Err(trouble) => return Err(trouble),
        }
    }
    known.ok_or_else(|| Trouble::Wrong {
        due: "at least one round trip".to_owned(),
        received: "a plan for none".to_owned(),
    })
}

/// One frame there and one back. Returns the phone's `conn_id`, which is `known` from the second on.
async fn round_trip(
    number: u32,
    known: Option<String>,
    report: &mut Report,
    frames: &mut Frames,
    binary: &mut Link,
    phone: &mut Link,
) -> Result<String, Trouble> {
    // Frames can be large: they are shared with what sends them, and those that are done with are let go.
    let question = Utf8Bytes::from(frames.next(number, Towards::Binary));
    let answer = frames.next(number, Towards::Phone);
    let begun = Instant::now();

    phone.send_text(question.clone()).await?;
    report.frames_sent += 1;
    let envelope = beside(binary.frame(PHONES_FRAME), phone).await?;
    let id = match known {
        Some(id) => id,
        None => conn_id(PHONES_FRAME, &envelope)?,
    };
    must_wrap(PHONES_FRAME, &id, &question, &envelope)?;
    drop((question, envelope));
    report.frames_received += 1;

    binary.send_text(wrapped(&id, &answer)).await?;
    report.frames_sent += 1;
    let delivered = beside(phone.text(BINARYS_FRAME), binary).await?;
    must_equal(BINARYS_FRAME, &answer, &delivered)?;
    report.frames_received += 1;

    report.round_trips.push(begun.elapsed());
    Ok(id)
}

/// The binary has the relay deliver a last frame and close the phone.
async fn close_directive(
    report: &mut Report,
    frame: &str,
    id: &str,
    binary: &mut Link,
    phone: &mut Link,
) -> Result<(), Trouble> {
    let directive = format!(r#"{{"conn_id":"{id}","frame":{frame},"close_code":{DIRECTIVE_CODE}}}"#);
    binary.send_text(directive).await?;
    report.frames_sent += 1;
    let delivered = beside(phone.text(BINARYS_FRAME), binary).await?;
    must_equal(BINARYS_FRAME, frame, &delivered)?;
    report.frames_received += 1;
    beside(phone.closed(DIRECTIVE_CODE, "the close that the binary asked for"), binary).await
}

/// A second phone says one thing and leaves; the binary must hear both, and nothing of the first phone.
async fn close_notice(
    report: &mut Report,
    frame: &str,
    first_id: &str,
    binary: &mut Link,
    phone: &mut Link,
) -> Result<(), Trouble> {
    // Both at once: the notice must not overtake the frame.
    phone.send_text(frame).await?;
    report.frames_sent += 1;
    phone.send_close(PHONE_CODE).await?;

    let envelope = binary.text(PHONES_FRAME).await?;
    let id = conn_id(PHONES_FRAME, &envelope)?;
    if id == first_id {
        return Err(Trouble::Wrong {
            due: "the frame of the second phone under a conn_id of its own".to_owned(),
            received: format!("{} for the first phone, which is gone", explain::shown(&envelope)),
        });
    }
    must_wrap(PHONES_FRAME, &id, frame, &envelope)?;
    report.frames_received += 1;

    let notice = binary.text(NOTICE).await?;
    must_equal(NOTICE, &format!(r#"{{"conn_id":"{id}","close_code":{PHONE_CODE}}}"#), &notice)?;
    beside(phone.closed(PHONE_CODE, "the answer to the phone's close"), binary).await
}

/// The outcome of `wait`, unless something comes on a connection on which nothing is due.
async fn beside<T>(wait: impl Future<Output = Result<T, Trouble>>, quiet: &mut Link) -> Result<T, Trouble> {
    future::or(wait, async { Err(quiet.intruder().await) }).await
}

/// A server-id that nobody holds, and a seed for the padding.
fn random() -> Result<(String, u64), getrandom::Error> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)?;
    Ok((format!("probe-{}", HEXLOWER.encode(&bytes)), getrandom::u64()?))
}

fn at(step: &'static str) -> impl Fn(Trouble) -> Failure {
    move |trouble| fail(step, trouble)
}

fn fail(step: &'static str, why: impl Display) -> Failure {
    Failure { step, message: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_server_id_is_fresh() {
        let (one, _) = random().unwrap();
        let (two, _) = random().unwrap();
        assert_ne!(one, two);
        assert_eq!(one.len(), "probe-".len() + 16);
    }
}
