//! TCP transport for ureq that needs few system calls: one write for head and body, and one peek to check
//! whether an idle connection is still open.
//!
//! ureq's own transport makes two writes and two checks of three calls each, which takes a fifth more CPU
//! time per request and wakes the server twice.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Error, Timeout};

use crate::linux;

/// Size in bytes at which buffered output is written even before ureq waits for the response.
const MAX_GATHERED: usize = 64 << 10;

/// Opens a [`TcpTransport`] to the first address that accepts a connection.
#[derive(Debug)]
pub struct TcpConnector;

impl Connector<()> for TcpConnector {
    type Out = TcpTransport;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<TcpTransport>, Error> {
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in &details.addrs {
            let opened = match details.timeout.not_zero() {
                Some(limit) => TcpStream::connect_timeout(address, *limit),
                None => TcpStream::connect(address),
            };
            match opened {
                Ok(stream) => return TcpTransport::new(stream, details.config).map(Some),
                Err(error) => last = error,
            }
        }
        Err(if timed_out(&last) { Error::Timeout(Timeout::Connect) } else { Error::Io(last) })
    }
}

/// Returns the addresses resolved at the start, so that requests do not resolve the host name.
#[derive(Debug)]
pub struct FixedResolver(pub Vec<SocketAddr>);

impl Resolver for FixedResolver {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let mut found = self.empty();
        for address in self.0.iter().take(16) {
            found.push(*address);
        }
        if found.is_empty() { Err(Error::HostNotFound) } else { Ok(found) }
    }
}

/// One connection.
#[derive(Debug)]
pub struct TcpTransport {
    stream: TcpStream,
    buffers: LazyBuffers,
    gathered: Vec<u8>,
    read_limit: Option<Duration>,
    write_limit: Option<Duration>,
    /// ureq checks whether a connection is open both when it returns it to the pool and when it takes it out
    /// again. The first check directly follows a read and needs no system call.
    just_read: bool,
}

impl TcpTransport {
    fn new(stream: TcpStream, config: &Config) -> Result<Self, Error> {
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffers: LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size()),
            gathered: Vec::new(),
            read_limit: None,
            write_limit: None,
            just_read: false,
        })
    }

    fn write_gathered(&mut self, timeout: NextTimeout) -> Result<(), Error> {
        let timeout = timeout.for_write();
        let limit = timeout.not_zero().map(|limit| *limit);
        if limit != self.write_limit {
            self.stream.set_write_timeout(limit)?;
            self.write_limit = limit;
        }
        let written = self.stream.write_all(&self.gathered);
        self.gathered.clear();
        match written {
            // A server that rejects a request early closes its reading side; its response may still arrive.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written.map_err(|error| limit_or_io(error, timeout.reason)),
        }
    }
}

impl Transport for TcpTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.gathered.extend_from_slice(&self.buffers.output()[..amount]);
        if self.gathered.len() >= MAX_GATHERED { self.write_gathered(timeout) } else { Ok(()) }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        if !self.gathered.is_empty() {
            self.write_gathered(timeout)?;
        }
        let timeout = timeout.for_read();
        let limit = timeout.not_zero().map(|limit| *limit);
        if limit != self.read_limit {
            self.stream.set_read_timeout(limit)?;
            self.read_limit = limit;
        }
        let amount = loop {
            match self.stream.read(self.buffers.input_append_buf()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read.map_err(|error| limit_or_io(error, timeout.reason))?,
            }
        };
        self.buffers.input_appended(amount);
        self.just_read = true;
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        std::mem::take(&mut self.just_read) || linux::is_quiet(&self.stream)
    }
}

fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

fn limit_or_io(error: io::Error, reason: Timeout) -> Error {
    if timed_out(&error) { Error::Timeout(reason) } else { Error::Io(error) }
}
