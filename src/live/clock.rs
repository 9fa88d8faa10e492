//! Makes a snapshot once per second, in a thread of its own, from whatever the other threads have found by then.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::live::ask::Slot;
use crate::live::board::{Board, Snapshot};
use crate::live::pace::{Pace, SHOW};
use crate::live::sample::Taken;
use crate::live::tail::Found;
use crate::live::view::{Moment, View};
use crate::shutdown::Shutdown;
use crate::thread::spawn;

/// What the snapshots are made of.
pub struct Clock {
    pub view: View,
    /// The answers of the programs of `view`, in their order.
    pub slots: Vec<Slot>,
    /// Events, unless they are off.
    pub found: Option<Found>,
    pub board: Arc<Board>,
}

impl Clock {
    /// Starts until the shutdown.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(mut self, pace: Pace, shutdown: Shutdown) -> io::Result<JoinHandle<()>> {
        spawn("snapshots", move || pace.each(SHOW, &shutdown, || self.tick()))
    }

    fn tick(&mut self) {
        for (watched, slot) in self.view.programs.iter_mut().zip(&self.slots) {
            let answer = slot.lock().clone();
            if let Some(answer) = answer {
                watched.take(&answer);
            }
        }
        let taken = self.found.as_ref().map_or_else(Taken::default, |found| found.lock().take());
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let moment = Moment { now: Instant::now(), unix_millis: unix.as_millis() as u64 };
        let rendered = self.view.render(moment, &taken);
        let (whole, change) = (rendered.whole.into(), rendered.change.into());
        self.board.publish(Snapshot { number: rendered.number, whole, change });
    }
}
