//! Events about certificates. Nobody from outside can cause them, so none has a bound.

use std::fmt::Display;
use std::time::{Duration, SystemTime};

use super::TARGET;
use super::value::{Count, Outside, Pair, Plain, Seconds, Value};
use crate::tls::certificate::date;

/// A certificate is shown to those who connect from now on: for these names, until then.
pub fn certificate_loaded(names: &[String], not_after: SystemTime) {
    let names = names.join(" ");
    emit!(INFO, "certificate_loaded", names = Outside::Text(&names), not_after = Plain(date(not_after)));
}

/// There is no certificate yet, so every handshake fails until `directory` has issued one for these names.
/// It is asked after `asks_in`.
pub fn certificate_awaited(names: &[String], directory: &str, asks_in: Duration) {
    let names = names.join(" ");
    emit!(
        WARN,
        "certificate_awaited",
        names = Outside::Text(&names),
        directory = Outside::Text(&directory),
        asks_in = Seconds(asks_in),
    );
}

/// SIGHUP asked for another attempt at a certificate, and there were too many of late; the next one is after `retry_in`.
pub fn certificate_order_postponed(retry_in: Duration) {
    emit!(WARN, "certificate_order_postponed", retry_in = Seconds(retry_in));
}

/// The authority issued a certificate for these names, until then.
pub fn certificate_issued(names: &[String], not_after: SystemTime) {
    let names = names.join(" ");
    emit!(INFO, "certificate_issued", names = Outside::Text(&names), not_after = Plain(date(not_after)));
}

/// The authority did not issue a certificate, `failures` times in a row now; it is asked again after `retry_in`.
pub fn certificate_order_failed(cause: &dyn Display, failures: u32, retry_in: Duration) {
    emit!(
        WARN,
        "certificate_order_failed",
        cause = Outside::Text(cause),
        failures = Count(failures.into()),
        retry_in = Seconds(retry_in),
    );
}

/// The certificate that was issued is shown, but cannot be kept in `tls.state`: the next start will have to ask again.
pub fn certificate_not_kept(cause: &dyn Display) {
    emit!(ERROR, "certificate_not_kept", cause = Outside::Text(cause));
}

/// What is kept in `tls.state` from earlier cannot be used, so the authority is asked for a new certificate.
pub fn certificate_unusable(cause: &dyn Display) {
    emit!(WARN, "certificate_unusable", cause = Outside::Text(cause));
}

/// The certificate ends soon, though it should have been renewed by now.
pub fn certificate_expiring(not_after: SystemTime, left: Duration) {
    emit!(WARN, "certificate_expiring", not_after = Plain(date(not_after)), left = Seconds(left));
}

/// The certificate has ended: clients refuse it.
pub fn certificate_expired(not_after: SystemTime) {
    emit!(ERROR, "certificate_expired", not_after = Plain(date(not_after)));
}
