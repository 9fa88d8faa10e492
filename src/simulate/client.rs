//! HTTP client of one load thread, based on ureq, with one connection and a reused response buffer.
//!
//! It neither retries nor follows redirects, so the caller sees exactly what the server answered.

use std::io::{self, Read};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ureq::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use ureq::{Agent, Error};

use crate::simulate::answer::Answer;
use crate::simulate::transport::{FixedResolver, TcpConnector};

/// Most bytes of a response body that are read; the rest of a longer one is ignored.
const MAX_ANSWER_BYTES: u64 = 64 << 20;

/// Idle time after which a connection is not reused; must be below the producer's idle timeout.
const MAX_IDLE: Duration = Duration::from_secs(15);

/// URL, addresses, headers and timeout that all clients of a run share.
#[derive(Clone, Debug)]
pub struct Target {
    uri: Uri,
    addresses: Vec<SocketAddr>,
    headers: HeaderMap,
    /// Values of `Authorization`, which the clients take in turn.
    keys: Vec<HeaderValue>,
    next_key: Arc<AtomicUsize>,
    timeout: Duration,
}

impl Target {
    /// Parses `url` and resolves its host, once for the whole run.
    ///
    /// # Errors
    /// Text for the user: the URL or a header is malformed, or the host cannot be resolved.
    pub fn resolve(
        url: &str,
        content_type: &'static str,
        headers: &[(String, String)],
        keys: &[String],
        timeout: Duration,
    ) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("--url {url}: {error}"))?;
        let host = uri.host().ok_or_else(|| format!("--url {url}: no host"))?;
        let port = uri.port_u16().unwrap_or(80);
        let addresses: Vec<_> = (host.trim_matches(['[', ']']), port)
            .to_socket_addrs()
            .map_err(|error| format!("--url {url}: {error}"))?
            .collect();
        let mut map = HeaderMap::new();
        map.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        for (name, value) in headers {
            let bad = |what: String| format!("--header {name}: {what}");
            map.insert(
                name.parse::<HeaderName>().map_err(|error| bad(error.to_string()))?,
                value.parse::<HeaderValue>().map_err(|error| bad(error.to_string()))?,
            );
        }
        let key = |key: &String| {
            let mut value = HeaderValue::try_from(format!("Bearer {key}"))
                .map_err(|_| "--key: a key has only letters, digits and `_`".to_owned())?;
            value.set_sensitive(true);
            Ok(value)
        };
        let keys = keys.iter().map(key).collect::<Result<_, String>>()?;
        Ok(Self { uri, addresses, headers: map, keys, next_key: Arc::default(), timeout })
    }

    /// The headers of the next client.
    fn headers(&self) -> HeaderMap {
        let mut headers = self.headers.clone();
        if !self.keys.is_empty() {
            let key = self.next_key.fetch_add(1, Ordering::Relaxed) % self.keys.len();
            headers.insert(header::AUTHORIZATION, self.keys[key].clone());
        }
        headers
    }
}

/// A request without a usable response. The server may have processed it.
#[derive(Debug)]
pub struct Unanswered {
    /// A short cause without addresses, so that equal failures can be counted together.
    pub cause: String,
    /// True if the status 2xx had arrived before the response broke off: the server has accepted the request.
    pub was_accepted: bool,
}

/// Posts request bodies over one keep-alive connection.
pub struct Client {
    agent: Agent,
    uri: Uri,
    headers: HeaderMap,
    answer: Vec<u8>,
}

impl Client {
    /// Creates a client, which connects at its first request.
    pub fn new(target: Target) -> Self {
        // Timeouts per read and write only: for one on the whole call, ureq would start a thread per request.
        let config = Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("event-pipeline-simulate/", env!("CARGO_PKG_VERSION")))
            .accept("")
            .timeout_connect(Some(target.timeout))
            .timeout_per_read(Some(target.timeout))
            .timeout_per_write(Some(target.timeout))
            .max_idle_age(MAX_IDLE)
            .max_idle_connections(1)
            .max_idle_connections_per_host(1)
            .input_buffer_size(4096)
            .output_buffer_size(4096)
            .build();
        let agent = Agent::with_parts(config, TcpConnector, FixedResolver(target.addresses.clone()));
        Self { agent, headers: target.headers(), uri: target.uri, answer: Vec::new() }
    }

    /// Posts `body` once and reads the response.
    ///
    /// # Errors
    /// The response did not arrive, or not completely.
    pub fn post(&mut self, body: &[u8]) -> Result<Answer<'_>, Unanswered> {
        self.answer.clear();
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        request.headers_mut().clone_from(&self.headers);
        let unanswered = |cause, was_accepted| Unanswered { cause, was_accepted };
        let mut response = self.agent.run(request).map_err(|error| unanswered(cause(&error), false))?;
        let status = response.status();
        let retry_after = response
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok())
            .map(Duration::from_secs);
        let mut reader = response.body_mut().as_reader().take(MAX_ANSWER_BYTES);
        reader
            .read_to_end(&mut self.answer)
            .map_err(|error| unanswered(io_cause(&error), status.is_success()))?;
        Ok(Answer { status: status.as_u16(), retry_after, body: &self.answer })
    }
}

fn cause(error: &Error) -> String {
    match error {
        Error::Io(error) => io_cause(error),
        Error::Timeout(which) => format!("timeout ({which})"),
        other => other.to_string(),
    }
}

/// Returns only the kind of an I/O error, since texts that contain numbers could not be counted together.
fn io_cause(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(inner) => cause(inner),
        None => error.kind().to_string(),
    }
}
