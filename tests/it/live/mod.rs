//! The live page from outside: who may see it, what viewers can do to it, what it shows, and what it does to others.

mod access;
mod apart;
mod browser;
mod events;
mod viewers;

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use tungstenite::{Error, HandshakeError, Message, WebSocket};

use crate::support::http::{Client, Response};
use crate::support::process::{Program, Running};
use crate::support::wait::{eventually, secs};

/// A live page that is ready.
pub struct Live {
    pub program: Running,
    pub address: SocketAddr,
}

/// Starts a live page with further settings, without events and of programs that do not exist, unless these say otherwise.
#[track_caller]
pub fn serve(settings: &[(&str, &str)]) -> Live {
    let own = [("LIVE_EVENTS", "off"), ("LIVE_PRODUCERS", "127.0.0.1:1"), ("LIVE_CONSUMERS", "")];
    let program =
        own.iter().chain(settings).fold(Program::live(), |program, (name, value)| program.env(name, value));
    let mut program = program.start();
    let address = program.address();
    let live = Live { program, address };
    eventually(secs(60), "there is a snapshot", || live.ask("/readyz", &[]).status == 200);
    live
}

impl Live {
    /// `Host` of a browser of this machine.
    fn host(&self) -> String {
        format!("localhost:{}", self.address.port())
    }

    /// One request with these headers, and `Host` if they have none.
    #[track_caller]
    fn ask(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        let host = self.host();
        let own = [("Host", host.as_str())];
        let own = own.iter().filter(|_| !headers.iter().any(|(name, _)| *name == "Host"));
        let lines: String = own.chain(headers).map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let mut client = Client::connect(self.address).expect("connects");
        client.send_raw(format!("GET {path} HTTP/1.1\r\n{lines}\r\n").as_bytes()).expect("sent");
        client.read_response().expect("an answer")
    }

    /// A viewer that sees snapshots.
    #[track_caller]
    fn viewer(&self) -> Viewer {
        self.try_viewer(TcpStream::connect(self.address).expect("connects")).expect("a seat")
    }

    /// The same over this connection; otherwise the status of the refusal.
    fn try_viewer(&self, stream: TcpStream) -> Result<Viewer, u16> {
        stream.set_read_timeout(Some(secs(60))).expect("set");
        stream.set_write_timeout(Some(secs(60))).expect("set");
        let uri = format!("ws://{}/ws", self.host()).parse().expect("a URI");
        let request = tungstenite::ClientRequestBuilder::new(uri)
            .with_header("Origin", format!("http://{}", self.host()));
        match tungstenite::client(request, stream) {
            Ok((socket, _)) => Ok(Viewer { socket }),
            Err(HandshakeError::Failure(Error::Http(response))) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// The first snapshot of a new viewer.
    #[track_caller]
    fn snapshot(&self) -> Value {
        self.viewer().next()
    }
}

/// A viewer.
struct Viewer {
    socket: WebSocket<TcpStream>,
}

impl Viewer {
    /// The next snapshot.
    #[track_caller]
    fn next(&mut self) -> Value {
        self.try_next().unwrap_or_else(|error| panic!("no snapshot: {error}"))
    }

    fn try_next(&mut self) -> Result<Value, Error> {
        loop {
            match self.socket.read()? {
                Message::Text(text) => return Ok(serde_json::from_str(&text).expect("JSON")),
                Message::Close(_) => return Err(Error::ConnectionClosed),
                _ => {}
            }
        }
    }

    /// Reads until the other side ends.
    #[track_caller]
    fn wait_ended(&mut self, limit: Duration) {
        eventually(limit, "the viewer is ended", || self.try_next().is_err());
    }
}

/// Polls new viewers' snapshots until one fits.
#[track_caller]
fn wait_for(live: &Live, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
    let mut viewer = live.viewer();
    let mut last = Value::Null;
    eventually(secs(90), what, || {
        last = viewer.next();
        is_it(&last)
    });
    last
}
