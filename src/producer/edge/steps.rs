//! Does what the state machine of a connection asks for.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::producer::edge::clients::Client;
use crate::producer::edge::connection::{Moment, Refusal, Step};
use crate::producer::edge::mailbox::{Mailbox, Token};
use crate::producer::edge::serve::{Decision, Reply, Serve};

/// Serves the requests of a connection that are complete. Returns false if answers have to be sent before it goes on.
pub fn serve<S: Serve>(
    client: &mut Client<S::Taking>,
    token: Token,
    service: &S,
    mailbox: &Arc<Mailbox>,
    moment: Moment<'_>,
) -> bool {
    loop {
        match client.connection.next(moment) {
            Step::Wait => return true,
            Step::Request(number, head, length) => match service.head(head, length, moment.now) {
                Decision::Answer(answer) => client.connection.answer(number, &answer, moment),
                Decision::Accept { room, taking } => {
                    client.taking = Some(taking);
                    client.connection.accept(room, moment.now);
                }
            },
            Step::Room(number, held) => {
                let Some(taking) = client.taking.as_mut() else { return true };
                match service.extend(taking, held) {
                    Ok(room) => client.connection.extend(room),
                    Err(answer) => {
                        client.connection.answer(number, &answer, moment);
                        if let Some(taking) = client.taking.take() {
                            service.gave_up(taking, Some(answer.status));
                        }
                    }
                }
            }
            Step::Body(number, body) => {
                let Some(taking) = client.taking.take() else { return true };
                let reply = Reply::new(mailbox.clone(), token, number);
                // A reply that is dropped in a panic answers 500.
                let _ = catch_unwind(AssertUnwindSafe(|| service.serve(taking, body, reply, moment.now)));
                // It may have been answered at once, with much more than it had. The answer has to be sent
                // before the next request, or a client that does not read could have any number of them.
                if !mailbox.is_empty() && !client.connection.is_between() {
                    return false;
                }
            }
            Step::Refused(refusal) => gave_up(service, refusal, client.taking.take()),
        }
    }
}

/// Counts a refusal, whose request may have been accepted before.
pub fn gave_up<S: Serve>(service: &S, refusal: Refusal, taking: Option<S::Taking>) {
    service.refused(refusal, taking.is_some());
    if let Some(taking) = taking {
        service.gave_up(taking, Some(refusal.answer().status));
    }
}
