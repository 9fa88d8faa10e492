//! Counts panics, and tells those of tiny_http's threads from those of our own.

use std::panic::{set_hook, take_hook};
use std::sync::Arc;
use std::thread;

use crate::producer::metrics::ProducerMetrics;
use crate::producer::tiny_http::listener::Listener;

/// Counts panics from now on. Some clients make tiny_http's threads panic (a reset right after connecting); these
/// panics are logged only at debug level, so that a scanner cannot fill the log. Panics of our own threads are
/// logged in full. tiny_http's accept thread panics silently when it cannot duplicate a socket.
pub fn count(metrics: &Arc<ProducerMetrics>, listener: &Arc<Listener>) {
    let (metrics, listener) = (metrics.clone(), listener.clone());
    let log_in_full = take_hook();
    set_hook(Box::new(move |info| {
        metrics.http.panics.inc();
        if thread::current().name().is_some() {
            return log_in_full(info);
        }
        log::debug!("a thread of tiny_http panicked: {info}");
        if info.location().is_some_and(|at| at.file().ends_with("refined_tcp_stream.rs")) {
            listener.suspect();
        }
    }));
}
