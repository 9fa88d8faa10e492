//! Sends one signed request after the other to an S3 server, with limits in time and a few repetitions.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};
use ureq::http::{self, Request, Response, StatusCode};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, SendBody};

use crate::config::{S3Config, S3Url};
use crate::consumer::log::forward::ForwardError;
use crate::retry::Backoff;
use crate::transport::tls;

/// An answer whose body was not read yet.
pub type Answer = Response<ureq::Body>;

/// How often a request is sent whose answer says that the server is busy or failing, or that is not answered.
const ATTEMPTS: u32 = 3;

/// First and longest wait before it is sent again.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const MAX_WAIT: Duration = Duration::from_secs(2);

/// Longest time until a connection is there.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// A request takes too long if less than this is sent in a second, in bytes.
const SLOWEST_BYTES: u64 = 64 << 10;

/// How long a signature is valid. The clocks of both sides may differ.
const VALID: Duration = Duration::from_secs(900);

/// What is sent.
#[derive(Clone, Copy)]
pub enum Body<'a> {
    /// Nothing, and the answer is short.
    Empty,
    /// Nothing, and the answer has so many bytes.
    Long(u64),
    Text(&'a str),
    /// `bytes` of a file.
    File {
        path: &'a Path,
        from: u64,
        bytes: u64,
    },
}

/// A connection to the server of a bucket.
pub struct Client {
    agent: Agent,
    config: S3Config,
    server: String,
    /// Where requests are signed for.
    pub bucket: Bucket,
}

impl Client {
    /// Sends nothing yet.
    ///
    /// # Errors
    /// A setting or a file with certificates cannot be used. The text is one sentence.
    pub fn new(config: &S3Config, url: &S3Url) -> Result<Self, String> {
        let region = config.region();
        let server =
            config.endpoint().map_or_else(|| format!("https://s3.{region}.amazonaws.com"), str::to_owned);
        // Other servers are often reached by an address, and a certificate of AWS does not cover names with dots.
        let is_in_path = config.endpoint().is_some() || url.bucket.contains('.');
        let style = if is_in_path { UrlStyle::Path } else { UrlStyle::VirtualHost };
        let endpoint = server.parse().map_err(|error| format!("AWS_ENDPOINT_URL_S3={server}: {error}"))?;
        let bucket = Bucket::new(endpoint, style, url.bucket.clone(), region.to_owned())
            .map_err(|error| format!("LAKE_S3_URL={url} at {server}: {error}"))?;
        let tls = if server.starts_with("https:") { tls_config(config)? } else { TlsConfig::default() };
        let agent = Agent::config_builder()
            .tls_config(tls)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("event-pipeline/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(CONNECT_LIMIT))
            .timeout_connect(Some(CONNECT_LIMIT))
            .timeout_per_read(Some(config.timeout()))
            .timeout_per_write(Some(config.timeout()))
            .build()
            .new_agent();
        Ok(Self { agent, config: config.clone(), server, bucket })
    }

    /// Where requests are sent to.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The keys to sign a request with, as they are now.
    ///
    /// # Errors
    /// There are none.
    pub fn keys(&self) -> Result<Credentials, ForwardError> {
        let keys = self.config.keys().map_err(ForwardError::Place)?;
        let text = |secret: &[u8]| String::from_utf8_lossy(secret).into_owned();
        let secret = text(keys.secret.reveal());
        Ok(match &keys.token {
            Some(token) => Credentials::new_with_token(keys.id, secret, text(token.reveal())),
            None => Credentials::new(keys.id, secret),
        })
    }

    /// Signs and sends a request. It is sent again if the server is busy or failing.
    ///
    /// # Errors
    /// There is no answer, or it is time to stop. Any answer is returned, whatever it says.
    pub fn send<'a, A: S3Action<'a>>(
        &self,
        mut action: A,
        headers: &[(&'static str, &str)],
        body: Body<'_>,
        stop: &dyn Fn() -> bool,
    ) -> Result<Answer, ForwardError> {
        for (name, value) in headers {
            action.headers_mut().insert(*name, (*value).to_owned());
        }
        let mut backoff = Backoff::new(FIRST_WAIT, MAX_WAIT);
        loop {
            let sent = self.send_once(&action, headers, body, stop);
            if stop() {
                return Err(ForwardError::Stopped);
            }
            let may_succeed = sent.as_ref().map_or(true, |answer| is_busy(answer.status()));
            if !may_succeed || backoff.failures() + 1 == ATTEMPTS {
                return sent.map_err(|error| self.lost(&error));
            }
            pause(backoff.next_wait(fastrand::f64()), stop);
        }
    }

    fn send_once<'a, A: S3Action<'a>>(
        &self,
        action: &A,
        headers: &[(&'static str, &str)],
        body: Body<'_>,
        stop: &dyn Fn() -> bool,
    ) -> io::Result<Answer> {
        let mut request = Request::builder().method(A::METHOD.to_str()).uri(action.sign(VALID).as_str());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (bytes, from): (u64, Box<dyn Read>) = match body {
            Body::Empty => return self.run(request.body(SendBody::none()), 0),
            Body::Long(bytes) => return self.run(request.body(SendBody::none()), bytes),
            Body::Text(text) => (text.len() as u64, Box::new(text.as_bytes())),
            Body::File { path, from, bytes } => (bytes, Box::new(slice(path, from, bytes)?)),
        };
        let mut from = Stoppable { from, stop };
        self.run(request.header("content-length", bytes).body(SendBody::from_reader(&mut from)), bytes)
    }

    /// Sends a request; `bytes` are to be transferred.
    fn run(&self, request: http::Result<Request<SendBody<'_>>>, bytes: u64) -> io::Result<Answer> {
        let limit = self.config.timeout() + Duration::from_secs(bytes / SLOWEST_BYTES);
        let request = request.map_err(io::Error::other)?;
        let request = self.agent.configure_request(request).timeout_global(Some(limit)).build();
        self.agent.run(request).map_err(ureq::Error::into_io)
    }

    /// There is no answer.
    pub fn lost(&self, error: &io::Error) -> ForwardError {
        ForwardError::Place(format!("a request to S3 at {} failed: {error}", self.server))
    }
}

/// A source that ends early once it is time to stop.
pub struct Stoppable<'a> {
    pub from: Box<dyn Read + 'a>,
    pub stop: &'a dyn Fn() -> bool,
}

impl Read for Stoppable<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if (self.stop)() { Err(io::Error::other("the consumer stops")) } else { self.from.read(buffer) }
    }
}

/// A part of a file.
fn slice(path: &Path, from: u64, bytes: u64) -> io::Result<impl Read> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let mut file = File::open(path).map_err(named)?;
    file.seek(SeekFrom::Start(from)).map_err(named)?;
    Ok(file.take(bytes))
}

/// True for answers after which the same request may succeed.
fn is_busy(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// Waits, unless it is time to stop.
fn pause(wait: Duration, stop: &dyn Fn() -> bool) {
    let end = Instant::now() + wait;
    while !stop() && Instant::now() < end {
        thread::sleep(Duration::from_millis(50).min(wait));
    }
}

/// Which servers are trusted.
fn tls_config(config: &S3Config) -> Result<TlsConfig, String> {
    let (name, path) = config.authorities();
    let authorities = tls::certificates(name, &path)?;
    let authorities: Vec<_> = authorities.iter().map(|one| Certificate::from_der(one).to_owned()).collect();
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&authorities))
        .unversioned_rustls_crypto_provider(tls::cryptography())
        .build())
}
