//! Tests of the event loops with real sockets and a service that answers from another thread.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam::channel::{Sender, unbounded};

use crate::producer::answer::Answer;
use crate::producer::edge::connection::{Expired, Length, Limits, Refusal};
use crate::producer::edge::loops::{Loops, Settings};
use crate::producer::edge::serve::{Decision, Reply, Serve};
use crate::producer::head::Head;
use crate::producer::status::{ErrorTag, Status};

const LONG: Duration = Duration::from_secs(60);

/// Answers each body with its length, from a thread of its own; `/here` is answered at once.
struct Echo {
    later: Sender<(Reply, Answer)>,
    refused: AtomicUsize,
    /// Requests for `/much`.
    served: AtomicUsize,
}

impl Serve for Echo {
    type Taking = String;

    fn head(&self, head: Head<'_>, length: Length, _: Instant) -> Decision<String> {
        match head.target {
            "/here" => Decision::Answer(Answer::new(Status::Ok, "text/plain", b"here".to_vec())),
            "/large" => Decision::Answer(Answer::new(Status::Ok, "text/plain", vec![b'x'; 3 << 20])),
            "/panic" => panic!("on purpose"),
            "/hold" => {
                thread::sleep(Duration::from_millis(300));
                Decision::Answer(Answer::new(Status::Ok, "text/plain", Vec::new()))
            }
            target => {
                let room = if length == Length::Chunked { 10 } else { 1 << 20 };
                Decision::Accept { room, taking: target.to_owned() }
            }
        }
    }

    fn extend(&self, _: &mut String, held: usize) -> Result<usize, Answer> {
        if held < 1000 { Ok(held + 100) } else { Err(Answer::too_large("body", 1000)) }
    }

    fn serve(&self, taking: String, body: Vec<u8>, reply: Reply, _: Instant) {
        assert_ne!(taking, "/fails", "on purpose");
        if taking == "/much" {
            self.served.fetch_add(1, Ordering::SeqCst);
            return reply.send(Answer::new(Status::Ok, "text/plain", vec![b'x'; 1 << 20]));
        }
        let answer = Answer::new(Status::Ok, "text/plain", format!("{taking} {}", body.len()).into_bytes());
        let _ = self.later.send((reply, answer));
    }

    fn gave_up(&self, _: String, _: Option<Status>) {}

    fn refused(&self, _: Refusal, _: bool) {
        self.refused.fetch_add(1, Ordering::SeqCst);
    }

    fn lost(&self, _: Status) {}

    fn expired(&self, _: Expired) {}

    fn connections(&self, _: i64) {}
}

struct Server {
    loops: Loops,
    echo: Arc<Echo>,
}

fn serve(limits: Limits, max_connections: usize) -> Server {
    let (later, due) = unbounded::<(Reply, Answer)>();
    thread::spawn(move || {
        for (reply, answer) in due {
            // One that is dropped is answered all the same.
            if !answer.body.starts_with(b"/lost") {
                reply.send(answer);
            }
        }
    });
    let echo = Arc::new(Echo { later, refused: AtomicUsize::new(0), served: AtomicUsize::new(0) });
    let addr = SocketAddr::from(([127, 0, 0, 1], 0));
    let settings = Settings { addr, loops: Some(2), max_connections, limits };
    let refuse = || Answer::error(ErrorTag::Overloaded, "too many connections").closing(true);
    Server { loops: Loops::start(&settings, &echo, refuse).expect("loops start"), echo }
}

impl Server {
    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.loops.bound()).expect("connects");
        socket.set_read_timeout(Some(LONG)).expect("a timeout");
        socket
    }

    /// Everything that the server answers to `request`, until it closes.
    fn exchange(&self, request: &str) -> String {
        let mut socket = self.connect();
        socket.write_all(request.as_bytes()).expect("sends");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("reads");
        answer
    }

    fn stop(self) {
        for thread in self.loops.stop() {
            thread.join().expect("ends");
        }
    }
}

fn post(target: &str, body: &str) -> String {
    format!("POST {target} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

const LAST: &str = "GET /here HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn many_clients_get_their_answers_in_order() {
    let server = serve(Limits::default(), 1000);
    let requests = post("/a", "12345") + &post("/b", "1") + LAST;
    thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                let answer = server.exchange(&requests);
                let places: Vec<_> = ["/a 5", "/b 1", "here"].iter().map(|text| answer.find(text)).collect();
                assert!(places.is_sorted() && places[0].is_some(), "{answer}");
            });
        }
    });
    eventually("every connection is closed", || server.loops.connections() == 0);
    server.stop();
}

#[test]
fn a_client_that_pipelines_more_than_allowed_gets_every_answer() {
    let server = serve(Limits { pipelined: 2, output_bytes: 1000, ..Limits::default() }, 10);
    let answer = server.exchange(&(post("/a", "x").repeat(500) + LAST));
    assert_eq!((answer.matches("/a 1").count(), answer.matches("here").count()), (500, 1));
    server.stop();
}

#[test]
fn a_large_answer_waits_for_a_client_that_reads_slowly() {
    let server = serve(Limits::default(), 10);
    let mut socket = server.connect();
    let request = "GET /large HTTP/1.1\r\nHost: h\r\n\r\n".to_owned() + LAST;
    socket.write_all(request.as_bytes()).expect("sends");
    thread::sleep(Duration::from_millis(100));
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("reads");
    assert!(answer.len() > 3 << 20 && answer.ends_with("here"));
    server.stop();
}

#[test]
fn an_end_that_comes_with_the_request_is_noticed() {
    let server = serve(Limits::default(), 100);
    let mut others: Vec<_> = (0..20).map(|_| server.connect()).collect();
    let mut holding = [server.connect(), server.connect()];
    eventually("all are open", || server.loops.connections() == 22);
    // Both loops sleep while requests and ends arrive, so that one look at each socket finds both.
    holding
        .iter_mut()
        .for_each(|socket| socket.write_all(b"GET /hold HTTP/1.1\r\nHost: h\r\n\r\n").expect("sends"));
    thread::sleep(Duration::from_millis(50));
    for socket in &mut others {
        socket.write_all(post("/a", "x").as_bytes()).expect("sends");
        socket.shutdown(Shutdown::Write).expect("shuts");
    }
    for socket in &mut others {
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("the server closes, long before the connection is idle");
        assert!(answer.ends_with("/a 1"), "{answer}");
    }
    server.stop();
}

#[test]
fn answers_that_nobody_reads_do_not_pile_up() {
    let server = serve(Limits::default(), 1000);
    let requests = post("/much", "x").repeat(50);
    let deaf: Vec<_> = (0..50)
        .map(|_| {
            let mut socket = server.connect();
            socket.write_all(requests.as_bytes()).expect("sends");
            socket
        })
        .collect();
    let mut reader = server.connect();
    reader.write_all((post("/much", "x").repeat(20) + LAST).as_bytes()).expect("sends");
    let mut answers = Vec::new();
    reader.read_to_end(&mut answers).expect("reads");
    assert!(answers.len() > 20 << 20 && answers.ends_with(b"here"), "a client that reads gets everything");
    // The kernel holds a few of each connection.
    let served = server.echo.served.load(Ordering::SeqCst);
    assert!(served < 50 * 25, "{served} of {}", 50 * 50 + 20);
    drop(deaf);
    server.stop();
}

#[test]
fn a_body_that_is_too_large_is_refused_and_the_answer_can_be_read() {
    let server = serve(Limits::default(), 10);
    let mut socket = server.connect();
    let chunks = format!("{:x}\r\n{}\r\n", 1 << 16, "x".repeat(1 << 16)).repeat(32);
    let head = "POST /c HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    socket.write_all((head.to_owned() + &chunks).as_bytes()).expect("is read to its end");
    socket.shutdown(Shutdown::Write).expect("shuts");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("no reset");
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("Connection: close"), "{answer}");
    server.stop();
}

#[test]
fn a_lost_request_is_answered_500_and_a_panic_costs_only_its_connection() {
    let server = serve(Limits::default(), 10);
    assert!(server.exchange(&post("/lost", "")).starts_with("HTTP/1.1 500"));
    assert!(server.exchange(&post("/fails", "")).starts_with("HTTP/1.1 500"));
    assert_eq!(server.exchange("GET /panic HTTP/1.1\r\nHost: h\r\n\r\n"), "");
    assert!(server.exchange(LAST).ends_with("here"));
    assert!(server.exchange("GET / HTTP/3.0\r\n").starts_with("HTTP/1.1 505"));
    assert_eq!(server.echo.refused.load(Ordering::SeqCst), 1);
    server.stop();
}

#[test]
fn a_connection_beyond_the_limit_is_answered_503() {
    let server = serve(Limits::default(), 2);
    let held = [server.connect(), server.connect()];
    eventually("both are open", || server.loops.connections() == 2);
    let mut answer = String::new();
    server.connect().read_to_string(&mut answer).expect("reads");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    for _ in 0..50 {
        // Whenever its request arrives, the client can read why it is refused.
        let answer = server.exchange(&post("/a", "x"));
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("Connection: close"), "{answer}");
    }
    drop(held);
    eventually("both are closed", || server.loops.connections() == 0);
    assert!(server.exchange(LAST).ends_with("here"));
    server.stop();
}

#[test]
fn an_idle_or_slow_connection_ends_in_time() {
    let limits = Limits {
        idle_time: Duration::from_millis(300),
        head_time: Duration::from_millis(300),
        ..Limits::default()
    };
    let server = serve(limits, 10);
    assert_eq!(server.exchange(""), "");
    assert!(server.exchange("GET / HT").starts_with("HTTP/1.1 408"));
    server.stop();
}

#[test]
fn retiring_ends_idle_connections_and_refuses_new_ones() {
    let server = serve(Limits::default(), 10);
    let mut idle = server.connect();
    idle.write_all(post("/a", "x").as_bytes()).expect("sends");
    eventually("it is open", || server.loops.connections() == 1);
    server.loops.stop_accepting();
    server.loops.retire();
    let mut answer = String::new();
    idle.read_to_string(&mut answer).expect("reads");
    // The request may have been read before or after.
    assert!(answer.is_empty() || answer.ends_with("/a 1"), "{answer}");
    eventually("nothing is open", || server.loops.connections() == 0);
    assert!(TcpStream::connect(server.loops.bound()).is_err());
    server.stop();
}
