//! Measures how late this machine is, so that a test of a time limit is judged beside a control of the same moment.
//!
//! One thread sleeps for 5 ms and sends a byte to another one and back, over and over. On a quiet machine that takes
//! 5 ms. On one with other work it takes longer, and so does each step of the program under test.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A limit may be exceeded by so many times what the slowest step of the control took meanwhile.
const STEPS: u32 = 20;

const PAUSE: Duration = Duration::from_millis(5);

/// Steps are kept as the slowest one of each such span.
const SPAN: Duration = Duration::from_millis(100);

/// How long they are kept; no test judges a longer time.
const KEPT: usize = 9000;

struct Control {
    /// When each span began, and how late its slowest step was.
    spans: VecDeque<(Instant, Duration)>,
    /// When the step that runs now began.
    step_began: Instant,
}

impl Control {
    fn add(&mut self, began: Instant, late: Duration) {
        match self.spans.back_mut() {
            Some((span, slowest)) if began.duration_since(*span) < SPAN => *slowest = late.max(*slowest),
            _ => self.spans.push_back((began, late)),
        }
        if self.spans.len() > KEPT {
            self.spans.pop_front();
        }
    }
}

fn control() -> MutexGuard<'static, Control> {
    static CONTROL: OnceLock<Mutex<Control>> = OnceLock::new();
    let control = CONTROL.get_or_init(|| {
        thread::spawn(step_for_ever);
        Mutex::new(Control { spans: VecDeque::new(), step_began: Instant::now() })
    });
    control.lock().unwrap_or_else(PoisonError::into_inner)
}

fn step_for_ever() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let mut near = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
    let mut far = listener.accept().expect("accept").0;
    thread::spawn(move || {
        let mut byte = [0];
        while far.read_exact(&mut byte).and_then(|()| far.write_all(&byte)).is_ok() {}
    });
    loop {
        let began = Instant::now();
        control().step_began = began;
        thread::sleep(PAUSE);
        near.write_all(&[0]).and_then(|()| near.read_exact(&mut [0])).expect("echoed");
        control().add(began, began.elapsed().saturating_sub(PAUSE));
    }
}

/// What `limit` comes to on this machine, as late as it was between `from` and `to`.
pub fn allowed(limit: Duration, from: Instant, to: Instant) -> Duration {
    limit + slowest(from, to) * STEPS
}

/// How late the slowest step was that ended after `from` and began before `to`; the one that runs now counts too.
fn slowest(from: Instant, to: Instant) -> Duration {
    let control = control();
    let running = to.saturating_duration_since(control.step_began.max(from)).saturating_sub(PAUSE);
    let past = control.spans.iter().rev().skip_while(|(began, _)| *began > to);
    let past = past.take_while(|(began, late)| *began + SPAN + *late >= from);
    past.map(|(_, late)| *late).fold(running, Duration::max)
}

/// Measures a time that has a limit.
#[derive(Clone, Copy, Debug)]
pub struct Watch(Instant);

impl Watch {
    pub fn start() -> Self {
        // The control begins with its first question.
        let now = Instant::now();
        drop(control());
        Self(now)
    }

    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    /// From the start of `before` to its own.
    pub fn since(&self, before: &Self) -> Duration {
        self.0 - before.0
    }

    /// How late the slowest step of the control was since the start.
    pub fn late(&self) -> Duration {
        slowest(self.0, Instant::now())
    }

    /// What `limit` comes to on this machine, as late as it was since the start.
    pub fn allows(&self, limit: Duration) -> Duration {
        allowed(limit, self.0, Instant::now())
    }

    /// Panics when `limit` has passed, and not because the machine was late.
    #[track_caller]
    pub fn assert_within(&self, limit: Duration, what: &str) {
        let (took, allowed) = (self.elapsed(), self.allows(limit));
        assert!(took < allowed, "{what}: took {took:?}, limit {limit:?}, {allowed:?} beside the control");
    }
}
