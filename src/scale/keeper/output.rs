//! The output of a clone, as events.

use std::io;
use std::os::fd::OwnedFd;

use tokio::sync::mpsc::Sender;

use super::message::ProcessEvent;
use crate::scale::{PrintedLine, PrintedPipe};

/// Reports what a clone prints, until all its processes have closed their ends of the pipe, or nobody receives the
/// events any more.
pub(super) async fn forward(pipe: OwnedFd, events: Sender<ProcessEvent>) -> io::Result<()> {
    let mut pipe = PrintedPipe::new(pipe)?;
    while let Some(lines) = pipe.next().await? {
        for PrintedLine { line, suppressed } in lines {
            if events.send(ProcessEvent::Output(line, suppressed)).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}
