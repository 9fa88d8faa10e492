//! Chooses the URL of each attempt of one load thread, as a load balancer would. Pure.

use std::time::{Duration, Instant};

/// Time after which a thread tries its own URL again, which has failed.
const AWAY: Duration = Duration::from_secs(10);

/// The URLs of one thread, as indexes.
#[derive(Debug)]
pub struct Route {
    count: usize,
    home: usize,
    current: usize,
    /// When the own URL failed, unless the thread uses it.
    left: Option<Instant>,
}

impl Route {
    /// The route of a thread over `count` URLs; the threads are spread over them.
    pub fn new(thread: u32, count: usize) -> Self {
        let home = thread as usize % count;
        Self { count, home, current: home, left: None }
    }

    /// The URL of an attempt at `now`.
    pub fn choose(&mut self, now: Instant) -> usize {
        if self.left.is_some_and(|left| now.saturating_duration_since(left) >= AWAY) {
            self.current = self.home;
            self.left = None;
        }
        self.current
    }

    /// The chosen URL failed at `now`, so the next attempt goes to the one after it.
    pub fn failed(&mut self, now: Instant) {
        self.current = (self.current + 1) % self.count;
        let left = self.left.unwrap_or(now);
        self.left = (self.current != self.home).then_some(left);
    }
}

/// True if an answer with this status says that the server, or a proxy's server, cannot serve at the moment.
pub fn is_out_of_use(status: u16) -> bool {
    matches!(status, 502..=504)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_spread_and_return_to_their_own_url_after_a_while() {
        let now = Instant::now();
        let homes: Vec<_> = (0..6).map(|thread| Route::new(thread, 3).choose(now)).collect();
        assert_eq!(homes, [0, 1, 2, 0, 1, 2]);
        let mut route = Route::new(2, 3);
        route.failed(now);
        assert_eq!(route.choose(now + AWAY - Duration::from_millis(1)), 0);
        route.failed(now + AWAY / 2);
        assert_eq!(route.choose(now + AWAY / 2), 1, "the next one has failed too");
        assert_eq!(route.choose(now + AWAY), 2, "ten seconds after its own one failed");
    }

    #[test]
    fn where_all_fail_each_is_tried_in_turn_and_a_single_one_always() {
        let now = Instant::now();
        let mut route = Route::new(1, 3);
        let mut tried = Vec::new();
        for _ in 0..6 {
            tried.push(route.choose(now));
            route.failed(now);
        }
        assert_eq!(tried, [1, 2, 0, 1, 2, 0]);
        let mut only = Route::new(7, 1);
        only.failed(now);
        assert_eq!((only.choose(now), only.left), (0, None));
    }
}
