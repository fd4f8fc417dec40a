//! The step in which a client is redirected to another listener.

use super::refusal::Refusal;
use super::steps::{Opened, take_first};
use crate::account::Ending;
use crate::redirect::{BAD_REQUEST, Redirect};
use crate::refuse::Reply;
use crate::sniff::{SniffFailure, sniff_http};

impl Opened<'_> {
    /// Reads a request, and returns the response to it.
    pub(super) fn redirect(self, redirect: &Redirect) -> impl Future<Output = Refusal> {
        let Self {
            client,
            state,
            at,
            entry,
        } = self;
        // Boxed: other listeners do not pay for it.
        Box::pin(async move {
            let read = sniff_http(client, at, &state.hello_memory, take_first(entry)).await;
            entry.sniff_finished();
            let bytes_read = read.as_ref().map_or_else(|error| error.bytes_read, |(_, bytes)| *bytes);
            entry.traffic().up.add(bytes_read);
            match read {
                Ok((head, _)) => match redirect.response(&head) {
                    Some(response) => Refusal::Responded(Ending::Redirected, Reply::Message(response.into())),
                    None => Refusal::Responded(Ending::RequestInvalid, Reply::Message(BAD_REQUEST.into())),
                },
                Err(error) if matches!(error.reason, SniffFailure::TooLong) => {
                    Refusal::Responded(Ending::HelloTooLong, Reply::Message(BAD_REQUEST.into()))
                }
                Err(error) => Refusal::Sniff(error),
            }
        })
    }
}
