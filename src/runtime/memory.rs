//! Gives memory back to the operating system when many connections have gone.
//!
//! The C library's allocator gives back what is free at the end of its heap, and one small allocation that lives long keeps all before it.
//! After a wave of connections nearly all of that is free and stays resident. `malloc_trim(3)` gives back every free page; it takes
//! milliseconds, so it is called seldom, and from a thread that nobody waits for.
//!
//! To it, what a thread has freed and keeps for itself is not free: a few blocks of each small size, which lie wherever the last connections
//! lay, most of them alone on a page. So each worker first takes those out of its cache, as what they are: memory to be had
//! at once. They are freed by a thread that ends, whose cache ends with it.

use std::thread;
use std::time::Duration;

use async_io::Timer;

use super::worker::Worker;

/// How often is looked.
const INTERVAL: Duration = Duration::from_secs(5);

/// How many connections must have gone since the most there were, for it to be worth it.
const MANY: usize = 256;

/// The sizes of which a thread keeps blocks for itself, and how many of each at most (glibc up to 2.41 has 7, since then 16; blocks of
/// other sizes, which it keeps since then too, are so large that few pages are kept for them).
const CACHED_SIZES: [usize; 64] = {
    let mut sizes = [0; 64];
    let mut nth = 0;
    while nth < sizes.len() {
        sizes[nth] = 24 + 16 * nth;
        nth += 1;
    }
    sizes
};
const CACHED: usize = 16;

/// Gives memory back whenever the number of connections fell by many and by a quarter. `peak` returns the most there were since it was
/// last asked, and how many there are; `workers` are those that they lived on.
pub async fn keep(workers: Vec<Worker>, peak: impl Fn() -> (usize, usize)) {
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
            give_back(&workers).await;
        }
    }
}

async fn give_back(workers: &[Worker]) {
    // One after the other: it is half a megabyte each.
    for worker in workers {
        let cached = worker.spawn(async { take_cached() }).await;
        smol::unblock(|| free_elsewhere(cached)).await;
    }
    smol::unblock(trim).await;
}

/// As many blocks of each size as the thread may have in its cache, which is empty then.
fn take_cached() -> Vec<Vec<u8>> {
    CACHED_SIZES.iter().flat_map(|size| (0..CACHED).map(|_| Vec::with_capacity(*size))).collect()
}

/// Frees them on a thread that ends. If there is no thread to be had, they are freed here.
fn free_elsewhere(cached: Vec<Vec<u8>>) {
    if let Ok(freeing) = thread::Builder::new().name("trim".to_owned()).spawn(|| drop(cached)) {
        let _ = freeing.join();
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
