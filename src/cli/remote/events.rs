//! The stream of events of the API (`GET /api/v1/events`).

use hyper::StatusCode;
use hyper::body::Bytes;

use super::{ApiRequest, Peer, RESPONSE_BYTES_MAX, RemoteError, rejection};
use crate::http_client::{self, StreamedResponse};

/// The stream of events. Each event has a name and a line of JSON.
pub(in crate::cli) struct EventStream {
    response: StreamedResponse,
    /// The bytes that were received and not yet returned: any number of whole events, and perhaps a part of the next.
    received: Vec<u8>,
}

impl EventStream {
    pub(super) async fn open(peer: Peer) -> Result<Self, RemoteError> {
        let request = peer.http_request(ApiRequest::get("/api/v1/events"))?;
        let response = http_client::open(peer.stream, request)
            .await
            .map_err(RemoteError::Connection)?;
        let mut stream = Self {
            response,
            received: Vec::new(),
        };
        if stream.response.status == StatusCode::OK {
            return Ok(stream);
        }
        while let Some(bytes) = stream.receive().await? {
            stream.received.extend_from_slice(&bytes);
        }
        Err(rejection(stream.response.status, &stream.received))
    }

    /// The name and the data of the next event. An event is not lost if this future is dropped.
    ///
    /// # Errors
    /// The stream has ended, the connection is lost, or an event is longer than a response may be.
    pub(in crate::cli) async fn next(&mut self) -> Result<(String, String), RemoteError> {
        let mut searched = 0;
        loop {
            if let Some(end) = find(&self.received[searched..], b"\n\n") {
                let event: Vec<u8> = self.received.drain(..searched + end + 2).collect();
                return Ok(parse(&String::from_utf8_lossy(&event)));
            }
            searched = self.received.len().saturating_sub(1);
            let Some(bytes) = self.receive().await? else {
                return Err(RemoteError::Ended);
            };
            self.received.extend_from_slice(&bytes);
        }
    }

    async fn receive(&mut self) -> Result<Option<Bytes>, RemoteError> {
        if self.received.len() > RESPONSE_BYTES_MAX {
            return Err(RemoteError::Connection("the response is too long".into()));
        }
        self.response.next().await.map_err(RemoteError::Connection)
    }
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

/// The fields `event` and `data` of an event (WHATWG HTML, section 9.2.6). A missing field is empty.
fn parse(event: &str) -> (String, String) {
    let field = |name: &str| {
        let value = event
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.unwrap_or_default().to_owned()
    };
    (field("event"), field("data"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_and_the_data_of_an_event_are_read_or_empty() {
        let (name, data) = parse("event: sample\ndata: {\"a: b\": 1}\n\n");
        assert_eq!((&*name, &*data), ("sample", "{\"a: b\": 1}"));
        assert_eq!(parse(": comment\n\n"), (String::new(), String::new()));
    }

    #[test]
    fn the_end_of_an_event_is_found() {
        assert_eq!(find(b"a\n\nb", b"\n\n"), Some(1));
        assert_eq!(find(b"a\nb\n", b"\n\n"), None);
    }
}
