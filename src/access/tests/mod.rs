//! Tests of several files of the room together.

mod file;
