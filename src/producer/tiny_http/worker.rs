//! Receives requests and passes them to the handler: the workers' loop, and the loop for a replaced server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tiny_http::Server;

use crate::producer::handler::{Handler, Reply};
use crate::producer::tiny_http::exchange::{Exchanges, TinyHttpExchange};
use crate::producer::tiny_http::listener::{Listener, Received};
use crate::producer::tiny_http::orders::Arrival;

/// How often the thread of a replaced server checks whether it should end.
const RETIRED_TICK: Duration = Duration::from_secs(1);

/// What a thread that receives requests needs.
#[derive(Clone)]
pub struct Worker {
    pub handler: Arc<Handler>,
    pub exchanges: Arc<Exchanges>,
    pub listener: Arc<Listener>,
}

impl Worker {
    /// Runs until the listener is stopped. Calls `rebuild` with the generation of an accept loop that ended.
    ///
    /// The worker keeps the permit to receive until it has something to write, which may block; passing the
    /// permit on after each call would cost one more sleep and wake-up.
    pub fn run(&self, rebuild: impl Fn(u64)) {
        let handler = &*self.handler;
        let (mut ready, mut replies): (Vec<Box<TinyHttpExchange>>, Vec<Reply>) = (Vec::new(), Vec::new());
        loop {
            let mut received = Received::Requests;
            let permit = self.listener.permit();
            while replies.is_empty() && matches!(received, Received::Requests) {
                received = permit.receive(|arrival| {
                    handler.catch_panic(|| ready.extend(self.exchanges.arrive(arrival)));
                });
                for exchange in ready.drain(..) {
                    handler.catch_panic(|| {
                        let request = exchange.into_request();
                        replies.extend(request.and_then(|request| handler.advance(request)));
                    });
                }
            }
            drop(permit);
            for reply in replies.drain(..) {
                handler.catch_panic(|| handler.answer(reply));
            }
            match received {
                Received::Requests => {}
                Received::Stopped => return,
                Received::AcceptLoopEnded(generation, error) => {
                    log::error!("the accept loop ended: {error}; rebuilding it");
                    rebuild(generation);
                }
            }
        }
    }

    /// Serves the clients of a replaced server until the listener is stopped: their connections stay open and
    /// keep sending requests to it.
    pub fn serve_replaced(&self, server: &Server) {
        self.listener.await_leave(server);
        while !self.listener.is_stopped() {
            let Ok(Some(request)) = server.recv_timeout(RETIRED_TICK) else { continue };
            self.handler.catch_panic(|| {
                let exchange = self.exchanges.arrive(Arrival { request, at: Instant::now() });
                if let Some(request) = exchange.and_then(|exchange| exchange.into_request()) {
                    self.handler.serve(request);
                }
            });
        }
    }
}
