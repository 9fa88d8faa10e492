//! Settings of the producer's HTTP server, with all of its limits.

use std::net::SocketAddr;

use clap::{Args, ValueEnum};

use crate::access::file::LargestRequest;

use super::values::{listen_address, number};

/// Limits of the HTTP server.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "HTTP")]
pub struct HttpConfig {
    /// IP address and port to listen on; `localhost` is 127.0.0.1
    #[arg(long = "http-addr", env = "HTTP_ADDR", default_value = "127.0.0.1:5000",
          value_parser = listen_address, value_name = "IP:PORT")]
    pub addr: SocketAddr,

    /// HTTP server: `tiny_http`, `edge` (our own, for clients that are not trusted), or `auto`, which uses
    /// tiny_http while HTTP_ADDR is a loopback address, else edge
    #[arg(long = "http-server", env = "HTTP_SERVER", default_value = "auto", value_enum)]
    pub wanted_server: HttpServer,

    /// Event loops of edge; unset means one per core, at most 4
    #[arg(hide = true, long = "http-event-loops", env = "HTTP_EVENT_LOOPS", value_parser = number::<u16>(1..=64))]
    pub event_loops: Option<u16>,

    /// Worker threads of tiny_http
    #[arg(hide = true, long = "http-workers", env = "HTTP_WORKERS", default_value_t = 4,
          value_parser = number::<u16>(1..=256))]
    pub workers: u16,

    /// Threads for compressed and large bodies (above 1 KiB with tiny_http, 4 KiB with edge), so that these
    /// cannot starve small requests
    #[arg(hide = true, long = "http-body-threads", env = "HTTP_BODY_THREADS", default_value_t = 16,
          value_parser = number::<u16>(1..=256))]
    pub body_threads: u16,

    /// Threads that write responses (tiny_http) or pass them to the event loops (edge); unset means 2 with
    /// tiny_http, 1 with edge
    #[arg(hide = true, long = "http-reply-threads", env = "HTTP_REPLY_THREADS", value_parser = number::<u16>(1..=64))]
    pub reply_threads: Option<u16>,

    /// Maximum number of open client connections; the newest ones above it are closed within half a second
    /// (tiny_http) or answered 503 (edge); unset means 2048 with tiny_http, 10000 with edge
    #[arg(long = "http-max-connections", env = "HTTP_MAX_CONNECTIONS",
          value_parser = number::<u32>(1..=100_000))]
    max_connections: Option<u32>,

    /// Time after which an idle connection is closed, in seconds; unset means 60 with tiny_http, 75 with edge
    #[arg(long = "http-idle-timeout-secs", env = "HTTP_IDLE_TIMEOUT_SECS",
          value_parser = number::<u32>(1..=86_400), value_name = "SECS")]
    idle_timeout_secs: Option<u32>,

    /// Largest request line with headers, in bytes (edge)
    #[arg(long = "http-max-head-bytes", env = "HTTP_MAX_HEAD_BYTES", default_value_t = 32 << 10,
          value_parser = number::<u32>(4096..=1 << 20), value_name = "BYTES")]
    pub max_head_bytes: u32,

    /// Slowest upload, in bytes per second: adds to HTTP_REQUEST_TIMEOUT_SECS, up to 10 minutes in total (edge)
    #[arg(hide = true, long = "http-min-body-rate", env = "HTTP_MIN_BODY_RATE", default_value_t = 16 << 10,
          value_parser = number::<u32>(1..=1 << 30), value_name = "BYTES")]
    pub min_body_rate: u32,

    /// Answers that may wait for a client to read them, in bytes; above it the connection is closed (edge)
    #[arg(hide = true, long = "http-max-output-bytes", env = "HTTP_MAX_OUTPUT_BYTES", default_value_t = 256 << 10,
          value_parser = number::<u32>(4096..=1 << 30), value_name = "BYTES")]
    pub max_output_bytes: u32,

    /// Longest time from the first to the last byte of a request (tiny_http) or head (edge), in seconds
    #[arg(long = "http-request-timeout-secs", env = "HTTP_REQUEST_TIMEOUT_SECS", default_value_t = 20,
          value_parser = number::<u32>(1..=3600), value_name = "SECS")]
    pub request_timeout_secs: u32,

    /// Largest request body, in bytes, both compressed and decompressed
    #[arg(long, env = "MAX_BODY_BYTES", default_value_t = 8 << 20,
          value_parser = number::<u64>(1024..=64 << 20), value_name = "BYTES")]
    pub max_body_bytes: u64,

    /// Maximum number of events in one request (array or NDJSON)
    #[arg(long, env = "MAX_REQUEST_EVENTS", default_value_t = 10_000,
          value_parser = number::<u32>(1..=1_000_000))]
    pub max_request_events: u32,

    /// Maximum number of requests that a connection may send ahead of its responses; above it the connection
    /// is closed (tiny_http) or not read until there are responses (edge)
    #[arg(hide = true, long = "http-max-pipelined", env = "HTTP_MAX_PIPELINED", default_value_t = 256,
          value_parser = number::<u32>(1..=100_000))]
    pub max_pipelined: u32,

    /// Number of threads that tiny_http may lose permanently (to `HTTP/2.0` request lines); above it the
    /// producer drains and exits with code 70
    #[arg(long = "http-leak-budget", env = "HTTP_LEAK_BUDGET", default_value_t = 256,
          value_parser = number::<u32>(1..=100_000))]
    pub leak_budget: u32,

    /// Largest event, in bytes, including its timestamp and what else is added to it
    #[arg(long, env = "MAX_EVENT_BYTES", default_value_t = 512 << 10,
          value_parser = number::<u64>(64..=900_000), value_name = "BYTES")]
    pub max_event_bytes: u64,
}

/// HTTP server of the producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HttpServer {
    /// tiny_http on a loopback address, else our own.
    Auto,
    /// The tiny_http crate.
    #[value(name = "tiny_http")]
    TinyHttp,
    /// Our own, on event loops.
    #[cfg(feature = "edge")]
    Edge,
}

impl HttpServer {
    /// The value of the setting.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::TinyHttp => "tiny_http",
            #[cfg(feature = "edge")]
            Self::Edge => "edge",
        }
    }

    /// Open files that each connection needs.
    pub fn descriptors_per_connection(self) -> u32 {
        if self == Self::TinyHttp { 2 } else { 1 }
    }
}

impl HttpConfig {
    /// The largest request, which limits of clients must let through.
    pub fn largest_request(&self) -> LargestRequest {
        LargestRequest { events: self.max_request_events.into(), bytes: self.max_body_bytes }
    }

    /// The server that runs; never [`HttpServer::Auto`].
    pub fn server(&self) -> HttpServer {
        match self.wanted_server {
            HttpServer::Auto => Self::automatic(self.addr.ip().is_loopback()),
            wanted => wanted,
        }
    }

    #[cfg(feature = "edge")]
    fn automatic(is_loopback: bool) -> HttpServer {
        if is_loopback { HttpServer::TinyHttp } else { HttpServer::Edge }
    }

    #[cfg(not(feature = "edge"))]
    fn automatic(_: bool) -> HttpServer {
        HttpServer::TinyHttp
    }

    /// The default of a setting that the two servers have different ones for.
    fn by_server<T>(&self, tiny_http: T, edge: T) -> T {
        if self.server() == HttpServer::TinyHttp { tiny_http } else { edge }
    }

    /// Most open client connections.
    pub fn max_connections(&self) -> u32 {
        self.max_connections.unwrap_or(self.by_server(2048, 10_000))
    }

    /// Threads that write responses or pass them on. A client can hold up one that writes, but none that passes
    /// them on, and a second one of those costs more in wake-ups than it saves.
    pub fn reply_threads(&self) -> u16 {
        self.reply_threads.unwrap_or(self.by_server(2, 1))
    }

    /// Time after which an idle connection is closed, in seconds.
    pub fn idle_timeout_secs(&self) -> u32 {
        self.idle_timeout_secs.unwrap_or(self.by_server(60, 75))
    }
}
