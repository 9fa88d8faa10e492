//! What the audit reads, piece by piece: lines of a log, or rows of a lake.

/// A line or a row, or part of one.
pub enum Piece<'a> {
    /// The beginning of a log, or of a lake: what follows has an order of its own.
    Begin,
    /// A line, without its line ending.
    Line(&'a [u8]),
    /// The beginning and the last byte of a line that is too long to hold in memory.
    Long(&'a [u8]),
    /// The end of a compressed file, after its last line ending; or a line that a lake has rejected.
    Torn(&'a [u8]),
    /// The end of a plain file, after its last line ending; it may still be growing.
    Open(&'a [u8]),
    /// The event of a row.
    Event(&'a [u8]),
    /// A file of a lake that no manifest lists yet.
    Unlisted,
    /// What is wrong with a file of a lake.
    Damaged(String),
}
