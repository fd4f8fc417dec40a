//! What a clone prints, as events.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc::Sender;
use tokio::time::Instant;

use super::message::Event;
use crate::scale::{PrintedLine, PrintedLines};

/// Reports what a clone prints, until all its processes have closed their ends of the pipe.
pub(super) async fn forward(id: u64, pipe: OwnedFd, events: Sender<Event>) -> io::Result<()> {
    let mut pipe = Receiver::from_owned_fd(pipe)?;
    let mut printed = PrintedLines::new(Instant::now());
    let mut buffer = [0; 4096];
    loop {
        let read = pipe.read(&mut buffer).await?;
        let now = Instant::now();
        let lines = match read {
            0 => printed.finish(now).into_iter().collect(),
            _ => printed.push(&buffer[..read], now),
        };
        for PrintedLine { line, suppressed } in lines {
            if events.send(Event::Output { id, line, suppressed }).await.is_err() {
                return Ok(());
            }
        }
        if read == 0 {
            return Ok(());
        }
    }
}
