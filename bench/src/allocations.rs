//! An allocator that counts while it is asked to.
#![expect(unsafe_code, reason = "GlobalAlloc is an unsafe trait")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

struct Counting;

static ON: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicU64 = AtomicU64::new(0);
static LIVE: AtomicI64 = AtomicI64::new(0);
static PEAK: AtomicI64 = AtomicI64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What a piece of work took from the heap.
#[derive(Clone, Copy, Debug)]
pub struct Allocations {
    /// How many blocks, those grown included.
    pub count: u64,
    /// How many bytes at most at a time.
    pub peak: i64,
}

/// Counts what `work` allocates; what it returns counts too.
pub fn count<T>(work: impl FnOnce() -> T) -> (T, Allocations) {
    COUNT.store(0, Relaxed);
    LIVE.store(0, Relaxed);
    PEAK.store(0, Relaxed);
    ON.store(true, Relaxed);
    let result = work();
    ON.store(false, Relaxed);
    (result, Allocations { count: COUNT.load(Relaxed), peak: PEAK.load(Relaxed) })
}

fn changed(bytes: i64, blocks: u64) {
    if ON.load(Relaxed) {
        COUNT.fetch_add(blocks, Relaxed);
        let live = LIVE.fetch_add(bytes, Relaxed) + bytes;
        PEAK.fetch_max(live, Relaxed);
    }
}

fn size(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

// SAFETY: every call is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        changed(size(layout.size()), 1);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        changed(-size(layout.size()), 0);
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        changed(size(new_size) - size(layout.size()), 1);
        // SAFETY: as the caller promised.
        unsafe { System.realloc(block, layout, new_size) }
    }
}
