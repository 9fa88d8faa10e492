//! Queues the requests whose body is still on its way or has to be decompressed, for the threads that do that.

use crossbeam::channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use crate::producer::admitted::Admitted;
use crate::producer::front::Request;

/// Most large bodies that may wait for a thread to read them.
const CAPACITY: usize = 512;

/// A request whose body has to be read.
pub struct BodyTask {
    pub request: Request,
    pub admitted: Admitted,
}

/// The sending end of the channel to the body threads.
pub struct BodyQueue(Mutex<Option<Sender<BodyTask>>>);

impl BodyQueue {
    /// Creates the queue, with the receiving end for the threads.
    pub fn new() -> (Self, Receiver<BodyTask>) {
        let (sender, receiver) = bounded(CAPACITY);
        (Self(Mutex::new(Some(sender))), receiver)
    }

    /// The sending end, unless the queue is closed.
    pub fn sender(&self) -> Option<Sender<BodyTask>> {
        self.0.lock().clone()
    }

    /// True if bodies are waiting because all threads are busy.
    pub fn is_backed_up(&self) -> bool {
        self.0.lock().as_ref().is_some_and(|sender| !sender.is_empty())
    }

    /// Ends the threads once the waiting bodies are read.
    pub fn close(&self) {
        self.0.lock().take();
    }
}
