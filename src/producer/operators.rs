//! Serves the pages for operators on an address of their own (`ADMIN_ADDR`).

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use crate::producer::answer::Answer;
use crate::producer::handler::Handler;
use crate::producer::pages::show;
use crate::producer::routes::Route;
use crate::status_page::{Page, StatusPage};

/// Starts to serve them; dropping the result ends that.
///
/// # Errors
/// The address cannot be bound or the thread cannot be started.
pub fn serve_pages(addr: SocketAddr, handler: Arc<Handler>) -> io::Result<StatusPage> {
    let listener = TcpListener::bind(addr).map_err(|error| {
        io::Error::new(error.kind(), format!("ADMIN_ADDR={addr}: {error}; choose a free address"))
    })?;
    let page = StatusPage::start(listener, move |path| page(path, &handler))?;
    log::info!("pages for operators at {}", page.addr());
    Ok(page)
}

fn page(path: &str, handler: &Handler) -> Option<Page> {
    let route = Route::of(path);
    if matches!(route, Route::RegisterEvent | Route::Unknown) {
        return None;
    }
    if let Some(gate) = &handler.gate {
        handler.metrics.access.show_last_used(&gate.keys());
    }
    let Answer { status, content_type, body, .. } =
        show(route, handler.server, &handler.queue, &handler.health, &handler.metrics);
    let body = String::from_utf8_lossy(&body).into_owned();
    Some(Page { status: status.line(), content_type, body })
}
