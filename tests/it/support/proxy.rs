//! A TCP proxy that forwards, stalls, slows, swallows and cuts, switchable while connections are open.
//!
//! In front of Kafka it follows the frames: it puts its own port into the addresses that brokers tell, so that
//! clients stay behind it, and can lose the reply of one kind of request.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

const CHUNK_BYTES: usize = 64 * 1024;
/// Longer replies hold records, never addresses.
const ADDRESSES_MAX_BYTES: usize = 64 * 1024;

/// What happens to the bytes of all connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Forward,
    /// Bytes wait until the mode changes; connections stay open.
    Stall,
    /// Requests are read and thrown away; nothing ever comes back.
    Blackhole,
    /// New connections are closed at once, open ones go on.
    Refuse,
    /// Every chunk waits so long.
    Delay(Duration),
    /// At most so many bytes a second and direction.
    Throttle(u32),
}

/// A direction of the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Request,
    Reply,
}

/// What becomes of a chunk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Pass,
    Vanish,
    CutAfter(usize),
    /// It arrives, but no reply to it does.
    LastWords,
}

/// Makes other bytes of a reply, its size in front.
type Mangle = Box<dyn FnMut(&[u8]) -> Vec<u8> + Send>;

/// One listener in front of one upstream. Dropping it cuts all connections.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    upstream: String,
    /// Brokers' ports and the proxies' in front of them; empty without Kafka.
    ports: Vec<(u16, u16)>,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    mode: Mode,
    closed: bool,
    open: Vec<[TcpStream; 2]>,
    accepted: usize,
    cut_after: Option<(Direction, usize)>,
    /// A text in a request, and whether that request arrives.
    cut_at: Option<(&'static [u8], bool)>,
    lose_replies: Option<Loss>,
    mangle: Option<Mangle>,
}

/// Replies to lose: of this many requests of `api_key` that contain `text`.
#[derive(Clone, Copy)]
struct Loss {
    api_key: i16,
    text: &'static [u8],
    times: usize,
}

impl Loss {
    fn is_of(&self, request: &[u8]) -> bool {
        let holds = |text: &[u8]| text.is_empty() || request.windows(text.len()).any(|part| part == text);
        request[4..6] == self.api_key.to_be_bytes() && holds(self.text)
    }
}

impl Proxy {
    /// In front of anything: bytes are not looked at.
    pub fn tcp(upstream: impl ToString) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        Self::start(listener, upstream.to_string(), Vec::new())
    }

    /// One proxy for each of `brokers` (addresses, as in `KAFKA_BROKERS`); each tells the addresses of all.
    pub fn kafka(brokers: &str) -> Vec<Self> {
        let upstreams: Vec<&str> = brokers.split(',').collect();
        let listeners: Vec<TcpListener> =
            upstreams.iter().map(|_| TcpListener::bind("127.0.0.1:0").expect("bind")).collect();
        let port_of = |address: &str| address.rsplit(':').next().and_then(|port| port.parse().ok());
        let ports: Vec<(u16, u16)> = (upstreams.iter().zip(&listeners))
            .map(|(upstream, listener)| {
                (port_of(upstream).expect("a port"), listener.local_addr().expect("address").port())
            })
            .collect();
        (listeners.into_iter().zip(upstreams))
            .map(|(listener, upstream)| Self::start(listener, upstream.to_owned(), ports.clone()))
            .collect()
    }

    fn start(listener: TcpListener, upstream: String, ports: Vec<(u16, u16)>) -> Self {
        let state = State {
            mode: Mode::Forward,
            closed: false,
            open: Vec::new(),
            accepted: 0,
            cut_after: None,
            cut_at: None,
            lose_replies: None,
            mangle: None,
        };
        let shared = Arc::new(Shared { upstream, ports, state: Mutex::new(state), changed: Condvar::new() });
        let address = listener.local_addr().expect("address");
        let acceptor = shared.clone();
        thread::spawn(move || accept(&listener, &acceptor));
        Self { address, shared }
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what happens to all bytes from now on.
    pub fn set(&self, mode: Mode) {
        self.shared.lock().mode = mode;
        self.shared.changed.notify_all();
    }

    /// Closes every open connection; new ones are welcome.
    pub fn cut(&self) {
        self.shared.lock().cut();
        self.shared.changed.notify_all();
    }

    /// Cuts one connection, once: the one whose bytes in `direction` go past so many more (0: at the next byte).
    pub fn cut_after(&self, direction: Direction, bytes: usize) {
        self.shared.lock().cut_after = Some((direction, bytes));
    }

    /// Cuts one connection, once: the one in which a request with `text` comes next, before it or right after it.
    pub fn cut_at(&self, text: &'static [u8], is_delivered: bool) {
        self.shared.lock().cut_at = Some((text, is_delivered));
    }

    /// True until a connection was cut by [`Proxy::cut_after`] or [`Proxy::cut_at`].
    pub fn is_to_cut(&self) -> bool {
        matches!(*self.shared.lock(), State { cut_after: Some(_), .. } | State { cut_at: Some(_), .. })
    }

    /// Kafka only: cuts the connection instead of the next `times` replies to requests of `api_key`.
    pub fn lose_replies(&self, api_key: i16, times: usize) {
        self.lose_replies_to(api_key, b"", times);
    }

    /// The same for requests that contain `text`. A client may also send requests to produce that hold no records.
    pub fn lose_replies_to(&self, api_key: i16, text: &'static [u8], times: usize) {
        self.shared.lock().lose_replies = Some(Loss { api_key, text, times });
    }

    /// Sends what `mangle` makes of each reply of Kafka, size in front, instead of the reply.
    pub fn mangle(&self, mangle: impl FnMut(&[u8]) -> Vec<u8> + Send + 'static) {
        self.shared.lock().mangle = Some(Box::new(mangle));
    }

    /// Replies of [`Proxy::lose_replies`] still to lose.
    pub fn replies_to_lose(&self) -> usize {
        self.shared.lock().lose_replies.map_or(0, |loss| loss.times)
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.shared.lock().accepted
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.cut();
        // Wakes the acceptor, which sees that it is over.
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    /// What becomes of a chunk in view of [`Proxy::cut_at`].
    fn fate_at(&mut self, direction: Direction, chunk: &[u8]) -> Fate {
        let Some((text, is_delivered)) = self.cut_at.filter(|_| direction == Direction::Request) else {
            return Fate::Pass;
        };
        if chunk.windows(text.len()).all(|part| part != text) {
            return Fate::Pass;
        }
        self.cut_at = None;
        if is_delivered { Fate::LastWords } else { Fate::CutAfter(0) }
    }

    fn cut(&mut self) {
        for stream in self.open.drain(..).flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds a chunk back as long as the mode wants, then says what becomes of it.
    fn admit(&self, direction: Direction, chunk: &[u8]) -> Fate {
        let (length, mut state) = (chunk.len(), self.lock());
        while state.mode == Mode::Stall && !state.closed {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let wait = match state.mode {
            Mode::Blackhole => return Fate::Vanish,
            Mode::Delay(wait) => wait,
            Mode::Throttle(per_second) => Duration::from_secs_f64(length as f64 / f64::from(per_second)),
            _ => Duration::ZERO,
        };
        let fate = match &mut state.cut_after {
            Some((wanted, left)) if *wanted == direction => {
                let fate = if length > *left { Fate::CutAfter(*left) } else { Fate::Pass };
                *left = left.saturating_sub(length);
                fate
            }
            _ => state.fate_at(direction, chunk),
        };
        if fate != Fate::Pass {
            state.cut_after = None;
        }
        drop(state);
        thread::sleep(wait);
        fate
    }

    fn loses_reply(&self, request: &[u8]) -> bool {
        match &mut self.lock().lose_replies {
            Some(loss) if loss.times > 0 && loss.is_of(request) => {
                loss.times -= 1;
                true
            }
            _ => false,
        }
    }

    /// Writes `bytes`; an error once the connection is to be cut.
    fn pass(
        &self,
        direction: Direction,
        bytes: &[u8],
        from: &TcpStream,
        to: &mut TcpStream,
    ) -> io::Result<()> {
        for chunk in bytes.chunks(CHUNK_BYTES) {
            match self.admit(direction, chunk) {
                Fate::Pass => to.write_all(chunk)?,
                Fate::Vanish => {}
                Fate::LastWords => {
                    from.shutdown(Shutdown::Both)?;
                    to.write_all(chunk)?;
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                Fate::CutAfter(length) => {
                    to.write_all(&chunk[..length])?;
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
            }
        }
        Ok(())
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming().map_while(Result::ok) {
        let mut state = shared.lock();
        if state.closed {
            return;
        }
        state.accepted += 1;
        if state.mode == Mode::Refuse {
            continue;
        }
        drop(state);
        if let Ok(server) = TcpStream::connect(&shared.upstream) {
            // An error here is a client that has gone already.
            let _ = connect(client, server, shared);
        }
    }
}

fn connect(client: TcpStream, server: TcpStream, shared: &Arc<Shared>) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    shared.lock().open.push([client.try_clone()?, server.try_clone()?]);
    let requests = Arc::new(Mutex::new(VecDeque::new()));
    for direction in [Direction::Request, Direction::Reply] {
        let (mut from, mut to) = match direction {
            Direction::Request => (client.try_clone()?, server.try_clone()?),
            Direction::Reply => (server.try_clone()?, client.try_clone()?),
        };
        let (shared, requests) = (shared.clone(), requests.clone());
        thread::spawn(move || {
            let done = if shared.ports.is_empty() {
                copy_bytes(&shared, direction, &mut from, &mut to)
            } else {
                copy_frames(&shared, direction, &requests, &mut from, &mut to)
            };
            // An end in good order closes one half; after a cut nothing more may pass in either direction.
            let _ = to.shutdown(if done.is_ok() { Shutdown::Write } else { Shutdown::Both });
            if done.is_err() {
                let _ = from.shutdown(Shutdown::Both);
            }
        });
    }
    Ok(())
}

fn copy_bytes(
    shared: &Shared,
    direction: Direction,
    from: &mut TcpStream,
    to: &mut TcpStream,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        match from.read(&mut chunk)? {
            0 => return Ok(()),
            length => shared.pass(direction, &chunk[..length], from, to)?,
        }
    }
}

/// Kafka's frames: a size, then for a request its key, version and correlation id. Replies come in order.
fn copy_frames(
    shared: &Shared,
    direction: Direction,
    requests: &Mutex<VecDeque<Vec<u8>>>,
    from: &mut TcpStream,
    to: &mut TcpStream,
) -> io::Result<()> {
    loop {
        let mut size = [0; 4];
        match from.read_exact(&mut size) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        }
        let mut frame = size.to_vec();
        frame.resize(4 + u32::from_be_bytes(size) as usize, 0);
        from.read_exact(&mut frame[4..])?;
        let mut requests = requests.lock().unwrap_or_else(PoisonError::into_inner);
        if direction == Direction::Request {
            requests.push_back(frame.clone());
        } else if requests.pop_front().is_some_and(|request| shared.loses_reply(&request)) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        } else if frame.len() <= ADDRESSES_MAX_BYTES {
            replace_ports(&mut frame, &shared.ports);
        }
        drop(requests);
        if direction == Direction::Reply
            && let Some(mangle) = &mut shared.lock().mangle
        {
            frame = mangle(&frame);
        }
        shared.pass(direction, &frame, from, to)?;
    }
}

/// In every version of every reply a host string is followed by its port in four bytes.
fn replace_ports(frame: &mut [u8], ports: &[(u16, u16)]) {
    const HOST: &[u8] = b"127.0.0.1";
    for start in 0..frame.len().saturating_sub(HOST.len() + 3) {
        let Some(port) = frame[start..].strip_prefix(HOST).and_then(|rest| rest.first_chunk::<4>()) else {
            continue;
        };
        let told = u32::from_be_bytes(*port);
        if let Some((_, proxy)) = ports.iter().find(|(broker, _)| u32::from(*broker) == told) {
            let at = start + HOST.len();
            frame[at..at + 4].copy_from_slice(&u32::from(*proxy).to_be_bytes());
        }
    }
}
