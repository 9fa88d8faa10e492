//! Counts what a thread allocates, so that a test can hold a call to a bound whatever other tests do meanwhile.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The allocator of the tests: the system's, counted.
pub struct Counting;

#[derive(Clone, Copy)]
struct Counts {
    /// Bytes now; less than zero in a thread that frees what others allocated.
    held: isize,
    most_held: isize,
    largest: usize,
}

thread_local! {
    static COUNTS: Cell<Counts> = const { Cell::new(Counts { held: 0, most_held: 0, largest: 0 }) };
}

fn count(freed: usize, allocated: usize) {
    // A thread that ends has no counts left.
    let _ = COUNTS.try_with(|counts| {
        let mut now = counts.get();
        now.held += allocated as isize - freed as isize;
        now.most_held = now.most_held.max(now.held);
        now.largest = now.largest.max(allocated);
        counts.set(now);
    });
}

// SAFETY: every call goes to the system's allocator as it came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(0, layout.size());
        // SAFETY: the caller's promise is the one that the system asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(0, layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(layout.size(), 0);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(layout.size(), size);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// What a call took.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// Most bytes held at once, beyond what was held before.
    pub most: usize,
    /// The largest allocation.
    pub largest: usize,
}

/// Runs `call` and counts what this thread allocates in it.
pub fn taken_by<T>(call: impl FnOnce() -> T) -> (T, Taken) {
    let before = COUNTS.get().held;
    COUNTS.set(Counts { held: before, most_held: before, largest: 0 });
    let value = call();
    let counts = COUNTS.get();
    (value, Taken { most: (counts.most_held - before) as usize, largest: counts.largest })
}
