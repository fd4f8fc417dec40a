//! Reads the access log with all its rotated files.

use std::fs::{read_dir, read_to_string};
use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;

use crate::records::session;

/// One line of the access log.
#[derive(Debug)]
pub struct Line {
    /// The session, identified by the address of the peer; `None` if the soak does not use that address.
    pub session: Option<u32>,
    pub listener: String,
    pub pool: String,
    pub server: String,
    pub ending: String,
    /// The client that a proxy in front named; else the peer.
    pub client: String,
    /// The number of refusals by the same guard since its last line that were not logged.
    pub suppressed: u64,
    pub up: u64,
    pub down: u64,
}

impl Line {
    fn parse(text: &str) -> Option<Self> {
        let line: Value = serde_json::from_str(text).ok()?;
        let word = |key: &str| line[key].as_str().unwrap_or_default().to_owned();
        let peer: SocketAddr = word("peer").parse().ok()?;
        let SocketAddr::V4(peer) = peer else { return None };
        Some(Self {
            session: session(*peer.ip()),
            listener: word("listener"),
            pool: word("pool"),
            server: word("server"),
            ending: word("ending"),
            client: word("client"),
            suppressed: line["suppressed"].as_u64().unwrap_or(0),
            up: line["bytes_up"].as_u64()?,
            down: line["bytes_down"].as_u64()?,
        })
    }
}

/// The parsed lines of the access logs in this directory, and the text of the lines that cannot be parsed.
pub fn read(directory: &Path) -> (Vec<Line>, Vec<String>) {
    let (mut lines, mut broken) = (Vec::new(), Vec::new());
    for entry in read_dir(directory).expect("the directory exists").flatten() {
        if entry.file_name().to_string_lossy().starts_with("access") {
            let text = read_to_string(entry.path()).expect("nobody removes the logs");
            for line in text.lines() {
                match Line::parse(line) {
                    Some(line) => lines.push(line),
                    None => broken.push(line.to_owned()),
                }
            }
        }
    }
    (lines, broken)
}
