//! Holds the connections of one event loop by token.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

use crate::producer::edge::connection::Connection;
use crate::producer::edge::mailbox::Token;

/// One connection with its socket.
#[derive(Debug)]
pub struct Client<T> {
    /// Never blocks.
    pub socket: TcpStream,
    /// Its state.
    pub connection: Connection,
    /// What belongs to the request whose body is being read.
    pub taking: Option<T>,
    /// The socket has, or may have, something to read.
    pub readable: bool,
    /// The client has shut its sending side: the end of the input follows what can be read.
    pub hung_up: bool,
    /// The socket has, or may have, room to write.
    pub writable: bool,
    /// Bytes of answers that had not been sent when that was last looked at.
    pub unsent: usize,
    /// It is in the list of connections to look at.
    pub listed: bool,
    /// It is beyond the limit, so it only gets an answer that says so.
    pub is_refused: bool,
}

impl<T> Client<T> {
    /// A connection that has to be looked at.
    pub fn new(socket: TcpStream, connection: Connection, is_refused: bool) -> Self {
        Self {
            socket,
            connection,
            taking: None,
            readable: true,
            hung_up: false,
            writable: true,
            unsent: 0,
            listed: true,
            is_refused,
        }
    }

    /// Reads once.
    ///
    /// # Errors
    /// The connection is dead.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        match self.socket.read(buffer) {
            Ok(0) => {
                self.readable = false;
                self.connection.end_of_input();
            }
            Ok(count) => {
                // Fewer bytes than asked for are all that there are; more of them are reported. An end that has
                // been reported already is not reported again.
                self.readable = count == buffer.len() || self.hung_up;
                self.connection.receive(&buffer[..count]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Writes what is ready to be sent, as far as the client takes it.
    ///
    /// # Errors
    /// The connection is dead.
    pub fn write(&mut self, now: Instant) -> io::Result<()> {
        while self.writable && !self.connection.output().is_empty() {
            let output = self.connection.output();
            match self.socket.write(output) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    self.writable = count == output.len();
                    self.connection.sent(count, now);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Connections by token. A slot is used again, but with another generation.
#[derive(Debug)]
pub struct Clients<T> {
    slots: Vec<(u32, Option<Client<T>>)>,
    free: Vec<u32>,
}

impl<T> Clients<T> {
    /// Creates it without connections.
    pub fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new() }
    }

    /// The token of the next connection.
    pub fn next_token(&self) -> Token {
        let index = self.free.last().map_or(self.slots.len(), |index| *index as usize);
        token(index, self.slots.get(index).map_or(0, |slot| slot.0))
    }

    /// Adds a connection under [`Clients::next_token`].
    pub fn add(&mut self, client: Client<T>) {
        match self.free.pop() {
            Some(index) => self.slots[index as usize].1 = Some(client),
            None => self.slots.push((0, Some(client))),
        }
    }

    /// The connection with this token, if it still exists.
    pub fn get(&mut self, token: Token) -> Option<&mut Client<T>> {
        let (index, generation) = parts(token);
        self.slots.get_mut(index).filter(|slot| slot.0 == generation)?.1.as_mut()
    }

    /// Removes and returns the connection with this token.
    pub fn remove(&mut self, token: Token) -> Option<Client<T>> {
        let (index, generation) = parts(token);
        let slot = self.slots.get_mut(index).filter(|slot| slot.0 == generation)?;
        let client = slot.1.take()?;
        slot.0 = generation.wrapping_add(1);
        self.free.push(index as u32);
        Some(client)
    }

    /// All connections.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Token, &mut Client<T>)> {
        let slots = self.slots.iter_mut().enumerate();
        slots.filter_map(|(index, (generation, client))| Some((token(index, *generation), client.as_mut()?)))
    }
}

fn token(index: usize, generation: u32) -> Token {
    Token(u64::from(generation) << 32 | index as u64)
}

fn parts(token: Token) -> (usize, u32) {
    ((token.0 & u64::from(u32::MAX)) as usize, (token.0 >> 32) as u32)
}
