//! Gives memory back to the operating system when many connections have gone.
//!
//! The C library's allocator gives back what is free at the end of its heap, and one small allocation that lives long keeps all before it.
//! After a wave of connections nearly all of that is free and stays resident. `malloc_trim(3)` gives back every free page; it takes
//! milliseconds, so it is called seldom, and from a thread that nobody waits for.

use std::time::Duration;

use async_io::Timer;

/// How often is looked.
const INTERVAL: Duration = Duration::from_secs(5);

/// How many connections must have gone since the most there were, for it to be worth it.
const MANY: usize = 256;

/// Gives memory back whenever the number of connections fell by many and by a quarter. `peak` returns the most there were since it was
/// last asked, and how many there are.
pub async fn keep(peak: impl Fn() -> (usize, usize)) {
    let mut most = 0;
    let mut times = 0;
    loop {
        Timer::after(INTERVAL).await;
        let (peak, now) = peak();
        most = peak.max(most);
        if is_worth_it(most, now) {
            most = now;
            // Once more at the next look: some may still be going.
            times = 2;
        }
        if times > 0 {
            times -= 1;
            smol::unblock(trim).await;
        }
    }
}

fn is_worth_it(most: usize, now: usize) -> bool {
    let gone = most.saturating_sub(now);
    gone >= MANY.max(most / 4)
}

/// The one call in this program that Rust cannot check. It takes no pointer and has no requirements (`malloc_trim(3)`).
#[cfg(target_env = "gnu")]
fn trim() {
    #[expect(unsafe_code, reason = "declares a function of the C library; calling it is safe")]
    unsafe extern "C" {
        safe fn malloc_trim(pad: usize) -> std::ffi::c_int;
    }
    malloc_trim(0);
}

/// Other C libraries give memory back by themselves, or cannot.
#[cfg(not(target_env = "gnu"))]
fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_that_go_are_not_worth_it() {
        for (most, now, worth) in [
            (0, 0, false),
            (255, 0, false),
            (256, 0, true),
            (10_000, 8_000, false),
            (10_000, 7_500, true),
            (5, 9, false),
        ] {
            assert_eq!(is_worth_it(most, now), worth, "{most} {now}");
        }
    }
}
