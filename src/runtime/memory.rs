//! Gives memory back to the operating system when connections, or what waited for them, have gone.
//!
//! The C library's allocator gives back what is free at the end of its heap, and one small allocation that lives long keeps all before it.
//! After a wave of connections, or of frames that waited, nearly all of that is free and stays resident. `malloc_trim(3)` gives back every free page.
//! Meanwhile nobody can allocate who needs more than a thread has at hand: that was 1.7 ms for each 10 MiB that were free, and is why it is not called
//! often. How much is free only the allocator knows, so what counts is how many connections there are, and how much is resident (`Watch`).
//!
//! To the allocator, what a thread has freed and keeps at hand is not free: a few blocks of each small size, which lie wherever the last connections
//! lay, most of them alone on a page. So each worker first takes those out of its cache, as what they are: memory to be had
//! at once. They are freed by a thread that ends, whose cache ends with it.

use std::fs::File;
use std::io::Read;
use std::thread;
use std::time::Duration;

use async_io::Timer;
use rustix::param::page_size;

use super::worker::Worker;

/// How often is looked.
const INTERVAL: Duration = Duration::from_secs(5);

/// How many connections must have gone since the most there were, for it to be worth it.
const MANY: usize = 256;

/// How much more than a quarter more must be resident, in KiB.
const MUCH: usize = 1024;

/// The most looks between two tries, if what is resident is in use: five minutes.
const LONGEST: u32 = 64;

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

/// Gives memory back when it is worth it. `peak` returns the most connections there were since it was last asked, and how many there are;
/// `workers` are those that they lived on.
pub async fn keep(workers: Vec<Worker>, peak: impl Fn() -> (usize, usize)) {
    let mut watch = Watch::new(resident());
    loop {
        Timer::after(INTERVAL).await;
        let (peak, now) = peak();
        if watch.is_worth_it(resident(), peak, now) {
            give_back(&workers).await;
            watch.gave_back(resident());
        }
    }
}

/// When it is worth it. Plain data: at every look it is told how much is resident, in KiB.
///
/// It is when the number of connections fell by many and by a quarter, and then once more at the next look, because some may still be going. It may be
/// when much more is resident than there once was: what took it may be gone by now. If nothing comes of that, it is in use, and the next try comes
/// after twice as many looks. So memory is given back after about as long as it was used, and a relay that needs it is left alone.
#[derive(Debug)]
struct Watch {
    /// The least that was resident after something was given back, or at the start.
    least: usize,
    /// What was resident when the looks were last counted from one.
    grown_to: usize,
    /// Looks between two tries, and until the next one.
    pause: u32,
    left: u32,
    /// The most connections since many have gone.
    most: usize,
    again: bool,
}

impl Watch {
    fn new(resident: usize) -> Self {
        Self { least: resident, grown_to: resident, pause: 1, left: 1, most: 0, again: false }
    }

    fn is_worth_it(&mut self, resident: usize, peak: usize, now: usize) -> bool {
        self.most = peak.max(self.most);
        let have_gone = have_many_gone(self.most, now);
        if have_gone {
            self.most = now;
        }
        if std::mem::replace(&mut self.again, have_gone) || have_gone {
            return true;
        }
        if !is_much_more(resident, self.least) {
            (self.pause, self.left) = (1, 1);
            return false;
        }
        if is_much_more(resident, self.grown_to) {
            self.grown_to = resident;
            (self.pause, self.left) = (1, 1);
        }
        self.left -= 1;
        if self.left > 0 {
            return false;
        }
        self.pause = (self.pause * 2).min(LONGEST);
        self.left = self.pause;
        true
    }

    fn gave_back(&mut self, resident: usize) {
        self.least = resident.min(self.least);
        self.grown_to = resident.min(self.grown_to);
    }
}

fn have_many_gone(most: usize, now: usize) -> bool {
    most.saturating_sub(now) >= MANY.max(most / 4)
}

fn is_much_more(resident: usize, than: usize) -> bool {
    resident > than + than / 4 + MUCH
}

/// What of this process is in memory, in KiB; 0 if the system does not say.
fn resident() -> usize {
    let mut statm = [0; 128];
    let read = File::open("/proc/self/statm").and_then(|mut file| file.read(&mut statm)).unwrap_or(0);
    let pages =
        std::str::from_utf8(&statm[..read]).ok().and_then(|statm| statm.split(' ').nth(1)?.parse().ok());
    pages.unwrap_or(0) * page_size() / 1024
}

async fn give_back(workers: &[Worker]) {
    // One after the other: it is half a megabyte each.
    for worker in workers {
        let cached = worker.spawn(async { take_cached() }).await;
        smol::unblock(|| free_elsewhere(cached)).await;
    }
    smol::unblock(trim).await;
}

/// As many blocks of each size as the thread may have in its cache, and more. Little is in it then: where the heap has free blocks of just that size, the
/// allocator puts some in for each that it has to look for.
fn take_cached() -> Vec<Vec<u8>> {
    CACHED_SIZES.iter().flat_map(|size| (0..CACHED).map(|_| Vec::with_capacity(*size))).collect()
}

/// Frees them on a thread that ends. If there is no thread to be had, they are freed here.
fn free_elsewhere(cached: Vec<Vec<u8>>) {
    if let Ok(freeing) = thread::Builder::new().name("trim".to_owned()).spawn(|| drop(cached)) {
        let _ = freeing.join();
    }
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
            assert_eq!(have_many_gone(most, now), worth, "{most} {now}");
        }
    }

    /// The looks, counted from 1, at which it was tried.
    fn tries(watch: &mut Watch, resident: impl Fn(usize) -> usize, looks: usize) -> Vec<usize> {
        let mut tried = Vec::new();
        for look in 1..=looks {
            if watch.is_worth_it(resident(look), 10, 10) {
                watch.gave_back(resident(look));
                tried.push(look);
            }
        }
        tried
    }

    #[test]
    fn many_connections_that_go_are_worth_two_tries() {
        let mut watch = Watch::new(6000);
        assert!(!watch.is_worth_it(6100, 1000, 1000));
        assert!(watch.is_worth_it(6100, 1000, 500));
        assert!(watch.is_worth_it(6100, 500, 500));
        assert!(!watch.is_worth_it(6100, 500, 500));
    }

    #[test]
    fn what_is_in_use_is_tried_less_and_less_often() {
        let mut watch = Watch::new(6000);
        assert!(tries(&mut watch, |_| 8000, 100).is_empty(), "a little more is nothing");
        assert_eq!(tries(&mut watch, |_| 120_000, 260), [1, 3, 7, 15, 31, 63, 127, 191, 255]);
        assert_eq!(tries(&mut watch, |_| 200_000, 8), [1, 3, 7], "it is something else that has come");
        assert!(tries(&mut watch, |_| 6500, 10).is_empty(), "it has gone");
        assert_eq!(tries(&mut watch, |_| 120_000, 4), [1, 3]);
    }

    #[test]
    fn the_system_says_how_much_is_resident() {
        let before = resident();
        assert!(before > 500, "{before}");
        let much = vec![1_u8; 64 << 20];
        assert!(resident() > before + 60_000, "{}", much.len());
    }
}
