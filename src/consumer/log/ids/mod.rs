//! The ids of logged events, by which a repeated event is recognised. Pure.

mod fingerprint;
mod window;

pub use fingerprint::{Fingerprint, Key};
pub use window::{Generation, Limits, Settings, Window};
