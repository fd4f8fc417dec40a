//! The step that redirects a client to another listener. It also answers the HTTP challenges of an ACME server.

use super::refusal::Refusal;
use super::steps::{Opened, take_read_ahead};
use crate::account::Ending;
use crate::redirect::{BAD_REQUEST, HEAD_TOO_LARGE, REQUEST_TIMEOUT, Redirect, challenge_response};
use crate::refuse::Reply;
use crate::sniff::http::InvalidRequest;
use crate::sniff::{SniffError, SniffFailure, sniff_http};

impl Opened<'_> {
    /// Reads the client's HTTP request. Returns the response as a [`Refusal`], even if it is a redirect: the client
    /// gets no server.
    pub(super) fn redirect(self, redirect: &Redirect) -> impl Future<Output = Refusal> {
        let Self {
            client,
            state,
            at,
            entry,
        } = self;
        async move {
            let read = sniff_http(client, at, &state.hello_memory, take_read_ahead(entry)).await;
            entry.sniff_finished();
            let bytes_read = read.as_ref().map_or_else(|error| error.bytes_read, |(_, bytes)| *bytes);
            entry.traffic().up.add(bytes_read);
            match read {
                Ok((head, _)) => {
                    let (ending, response) = if let Some(answer) = state.challenges.key_authorization(&head.path) {
                        (Ending::AcmeChallenge, challenge_response(&answer))
                    } else if let Some(response) = redirect.response(&head) {
                        (Ending::Redirected, response)
                    } else {
                        (Ending::RequestInvalid, BAD_REQUEST.to_owned())
                    };
                    Refusal::Responded(ending, Reply::Message(response.into()))
                }
                Err(error) => refusal(error),
            }
        }
    }
}

/// The refusal of a client whose request could not be read. [`Refusal::Sniff`] answers an invalid request with 400, but
/// gives no response to a client that has sent nothing in time: it may be a browser that connects in advance.
fn refusal(error: SniffError) -> Refusal {
    let (ending, response) = match error.reason {
        SniffFailure::TooSlow if error.bytes_read > 0 => (Ending::HelloTimeout, REQUEST_TIMEOUT),
        SniffFailure::TooLong => (Ending::HelloTooLong, HEAD_TOO_LARGE),
        SniffFailure::Request(InvalidRequest::TooManyFields) => (Ending::RequestInvalid, HEAD_TOO_LARGE),
        _ => return Refusal::Sniff(error),
    };
    Refusal::Responded(ending, Reply::Message(response.into()))
}
