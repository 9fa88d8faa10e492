//! Lower bound for the producer's cost: tiny_http reads the event and answers immediately, with the same
//! bytes and the same listener options, but without Kafka. Usage: `floor ADDRESS`.

use std::env;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::SystemTime;

use socket2::SockRef;
use time::OffsetDateTime;
use time::macros::format_description;
use tiny_http::{Request, Server};

/// More workers were not faster on two cores.
const WORKERS: usize = 2;

const BODY: &str = r#"{"status":"ok","topic":"events","partition":0,"offset":1234567}"#;

fn main() {
    let addr: SocketAddr =
        env::args().nth(1).and_then(|text| text.parse().ok()).expect("usage: floor ADDRESS");
    let server = Arc::new(listen(addr).expect("the address can be bound"));
    // As in the producer, these occupy tiny_http's permanent threads, so that each client gets its own one.
    let _plugs: Vec<TcpStream> = (0..4).map(|_| TcpStream::connect(addr).expect("connects")).collect();
    let threads: Vec<_> = (0..WORKERS)
        .map(|_| {
            let server = server.clone();
            thread::spawn(move || serve(&server))
        })
        .collect();
    for thread in threads {
        thread.join().expect("serves");
    }
}

fn listen(addr: SocketAddr) -> io::Result<Server> {
    let listener = TcpListener::bind(addr)?;
    let socket = SockRef::from(&listener);
    socket.listen(1024)?;
    socket.set_tcp_nodelay(true)?;
    Server::from_listener(listener, None).map_err(io::Error::other)
}

fn serve(server: &Server) {
    let (mut body, mut head, mut dated) = (Vec::new(), String::new(), 0);
    while let Ok(request) = server.recv() {
        let second = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |age| age.as_secs());
        if second != dated {
            (head, dated) = (head_of(OffsetDateTime::now_utc()), second);
        }
        // Ignore clients that have disconnected.
        let _ = answer(request, &mut body, &head);
    }
}

fn answer(mut request: Request, body: &mut Vec<u8>, head: &str) -> io::Result<()> {
    body.resize(request.body_length().unwrap_or(0), 0);
    request.as_reader().read_exact(body)?;
    let mut writer = request.into_writer();
    writer.write_all(head.as_bytes())?;
    writer.flush()
}

fn head_of(now: OffsetDateTime) -> String {
    let format = format_description!(
        "[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT"
    );
    let date = now.format(format).expect("a date can be written");
    format!(
        "HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    )
}
