//! Copies the files of the lake to a bucket in S3, and proves that they are there.
//!
//! Start with `bucket` (the steps for one file); `parts` is the same for a large one, `client` sends the requests, and
//! `answer` says in words what was refused.

mod answer;
mod bucket;
mod client;
mod parts;

pub use bucket::Bucket;
