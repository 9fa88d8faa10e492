//! Names the parts of a request that can be in progress.

use super::body::Body;
use super::head::Parsed;
use super::scan::Scan;

/// What is being read.
#[derive(Debug)]
pub enum Reading {
    /// In a head, or before it, after this many bytes of empty lines.
    Head(Scan, usize),
    /// The owner has to decide about a head.
    Decide(u64, Parsed),
    /// In an accepted body; the flag says whether another head may follow.
    Body(Body, bool),
    /// In the body of a refused request, with this many bytes to go.
    Skip(u64),
    /// Nothing more is parsed.
    Over,
}

/// How far a step has come.
#[derive(Debug)]
pub enum Progress {
    /// Take another step.
    Again,
    /// There is nothing to do without input, a decision or an answer.
    Wait,
    /// The body of this request needs more than the given bytes.
    Room(u64, usize),
    /// The body of this request is complete.
    Body(u64, Vec<u8>),
}

/// What the client has to deliver in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owed {
    /// Nothing: the connection is idle.
    Nothing,
    /// The rest of a head.
    Head,
    /// The rest of a body.
    Body,
    /// The rest of a body that is discarded.
    Skipped,
}
