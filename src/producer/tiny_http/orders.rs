//! Defines the orders for the closer, and how a request looks before it is served.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use tiny_http::Request;

use crate::producer::tiny_http::connections::Connection;

/// A request as it was received, before it may be served.
#[derive(Debug)]
pub struct Arrival {
    pub request: Request,
    /// When it was received.
    pub at: Instant,
}

/// An instruction for the closer.
pub enum Order {
    /// Send the last answer and end the connection.
    End(Box<Ending>),
    /// End the connection of this client, whose request will be abandoned.
    Shut(SocketAddr),
    /// Find out whether the parked requests belong to a connection that has ended or to a new one with the
    /// same address.
    Late(SocketAddr),
    /// No more orders follow: carry out the waiting ones and stop.
    Stop,
}

/// The last request on its connection, with the bytes of its answer.
pub struct Ending {
    pub request: Request,
    /// Its connection, on which it is the request being served.
    pub connection: Arc<Connection<Arrival>>,
    /// The answer: empty if the client cannot receive it any more, `None` if the request was lost in a panic.
    pub bytes: Option<Vec<u8>>,
}

impl Order {
    pub fn peer(&self) -> Option<SocketAddr> {
        match self {
            Self::End(ending) => Some(ending.connection.peer),
            Self::Shut(peer) | Self::Late(peer) => Some(*peer),
            Self::Stop => None,
        }
    }
}
