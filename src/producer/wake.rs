//! Wakes other threads once for a whole batch of work, instead of once for each part of it.

use std::cell::RefCell;
use std::sync::Arc;

/// Most calls that are put off; beyond that, a thread that waits would lose more time than its wake-up costs.
const MOST_PUT_OFF: usize = 64;

/// A thread that can be woken.
pub trait Wake {
    /// Wakes it.
    fn wake(&self);
}

/// The threads to wake at the end of the batch, and the number of calls that were put off.
type PutOff = (Vec<Arc<dyn Wake>>, usize);

thread_local!(static PUT_OFF: RefCell<Option<PutOff>> = const { RefCell::new(None) });

/// Runs `work`, and wakes the threads that it has something for at the end.
pub fn together(work: impl FnOnce()) {
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            wake_all(PUT_OFF.take());
        }
    }
    PUT_OFF.set(Some((Vec::new(), 0)));
    let _end = End;
    work();
}

fn wake_all(put_off: Option<PutOff>) {
    put_off.iter().flat_map(|(threads, _)| threads).for_each(|thread| thread.wake());
}

/// Wakes `thread`: now, or at the end of [`together`].
pub fn wake<W: Wake + 'static>(thread: &Arc<W>) {
    let full = PUT_OFF.with_borrow_mut(|put_off| {
        let Some((threads, calls)) = put_off else {
            thread.wake();
            return None;
        };
        *calls += 1;
        if !threads.iter().any(|other| std::ptr::addr_eq(Arc::as_ptr(other), Arc::as_ptr(thread))) {
            threads.push(thread.clone());
        }
        (*calls >= MOST_PUT_OFF).then(|| std::mem::take(put_off.as_mut().expect("it is set")))
    });
    wake_all(full);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[derive(Default)]
    struct Sleeper(AtomicUsize);

    impl Wake for Sleeper {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_batch_wakes_each_thread_once_unless_it_is_long() {
        let (first, second) = (Arc::new(Sleeper::default()), Arc::new(Sleeper::default()));
        let woken = || (first.0.load(Ordering::Relaxed), second.0.load(Ordering::Relaxed));
        wake(&first);
        assert_eq!(woken(), (1, 0));
        together(|| {
            (0..10).for_each(|_| wake(&first));
            wake(&second);
            assert_eq!(woken(), (1, 0));
        });
        assert_eq!(woken(), (2, 1));
        together(|| (0..130).for_each(|_| wake(&first)));
        assert_eq!(woken(), (5, 1));
    }
}
