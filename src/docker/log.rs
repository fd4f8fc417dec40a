//! The output of a container.
//!
//! ```text
//!  0          1         4          8             8 + size
//! ┌──────────┬─────────┬──────────┬─────────────┐
//! │ stream   │ 0  0  0 │ size     │ output      │  stream: stdout 1, stderr 2; the size is big-endian
//! └──────────┴─────────┴──────────┴─────────────┘  (Docker Engine API, ContainerAttach, "Stream format")
//! ```

use std::time::SystemTime;

use hyper::Method;

use super::engine::{DockerEngine, DockerError, query, timestamp};
use crate::http_client::StreamedResponse;

const HEADER_BYTES: usize = 8;

/// The output of a container, as it comes.
pub(crate) struct ContainerLog {
    response: StreamedResponse,
    frames: Frames,
}

impl DockerEngine {
    /// The output of a container from this time on.
    ///
    /// # Errors
    /// Those of the request; [`Rejection`](super::Rejection) also if the engine cannot read the container's log.
    pub(crate) async fn log(&self, container: &str, since: SystemTime) -> Result<ContainerLog, DockerError> {
        let since = timestamp(since);
        let query = query(&[("follow", "1"), ("stdout", "1"), ("stderr", "1"), ("since", &since)]);
        let path = format!("/containers/{container}/logs?{query}");
        Ok(ContainerLog {
            response: self.stream(Method::GET, &path).await?,
            frames: Frames::default(),
        })
    }
}

impl ContainerLog {
    /// The next piece of the log, which may be empty; `None`: the log has ended. There is no deadline: a container may
    /// print nothing for any time. Nothing is lost if this future is dropped.
    ///
    /// # Errors
    /// The connection has failed.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, DockerError> {
        let bytes = self.response.next().await?;
        Ok(bytes.map(|bytes| self.frames.contents(&bytes)))
    }
}

/// Removes the headers from a log.
#[derive(Default)]
struct Frames {
    /// The first bytes of the next frame's header; empty once the header is complete.
    header: Vec<u8>,
    /// How many bytes of the current frame's output are still to come; 0: a header comes next.
    left: usize,
}

impl Frames {
    /// The output in the next bytes of the log.
    fn contents(&mut self, mut bytes: &[u8]) -> Vec<u8> {
        let mut contents = Vec::with_capacity(bytes.len());
        while !bytes.is_empty() {
            if self.left == 0 {
                let (header, rest) = bytes.split_at(bytes.len().min(HEADER_BYTES - self.header.len()));
                self.header.extend_from_slice(header);
                bytes = rest;
                if let Ok([_, _, _, _, size @ ..]) = <[u8; HEADER_BYTES]>::try_from(&*self.header) {
                    self.left = u32::from_be_bytes(size) as usize;
                    self.header.clear();
                }
                continue;
            }
            let (content, rest) = bytes.split_at(bytes.len().min(self.left));
            contents.extend_from_slice(content);
            self.left -= content.len();
            bytes = rest;
        }
        contents
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_headers_are_removed_at_any_split() {
        let log = b"\x01\0\0\0\0\0\0\x04one\n\x02\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\x03two";
        for cut in 0..=log.len() {
            let mut frames = Frames::default();
            let (first, second) = log.split_at(cut);
            let contents = [frames.contents(first), frames.contents(second)].concat();
            assert_eq!(contents, b"one\ntwo", "cut at {cut}");
        }
    }
}
