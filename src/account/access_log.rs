//! The access log: one record per session, written when the session ends.
//!
//! A thread of its own writes the records, so the log never slows traffic: when it cannot keep up, records are dropped
//! and counted.

mod access_record;
mod output;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use metrics::Counter;
use parking_lot::Mutex;

pub use access_record::{AccessRecord, ClientCertFields, LogFormat, TlsFields};
pub use output::{AccessTarget, Output};

/// The most records that are queued. Each takes about 1 KB: names and protocol lists are bounded.
pub const QUEUE_RECORDS_MAX: usize = 16 * 1024;

/// Pause of the writer after each batch: many records cost one wake-up, and no record waits longer than this, unless
/// the target is slow or fails.
const BATCH_INTERVAL: Duration = Duration::from_millis(100);

/// How long the exiting process waits for the writer thread. The target may be a pipe that nobody reads.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);

enum Message {
    Record(Box<AccessRecord>),
    /// Wakes the writer, which looks at [`LogControl::reopen`].
    Wake,
    /// Switch to [`LogControl::next_output`].
    Switch,
}

/// The sending side of the access log. Cheap to clone: every worker has one.
#[derive(Clone, Debug)]
pub struct AccessLog {
    queue: SyncSender<Message>,
    control: Arc<LogControl>,
    dropped: Counter,
}

/// Settings and requests shared with the writer thread.
#[derive(Debug, Default)]
struct LogControl {
    is_on: AtomicBool,
    logs_empty_sessions: AtomicBool,
    /// Request to reopen the file.
    reopen: AtomicBool,
    /// The request to switch to another output and format once the records queued before the request are written.
    /// `None` for the output turns the log off. A later request replaces an earlier one.
    // A blocking mutex: locked for one statement, at a reload only.
    next_output: Mutex<Option<(Option<Output>, LogFormat)>>,
    /// Request to switch at the next message: no [`Message::Switch`] could be sent.
    switch_at_once: AtomicBool,
}

impl AccessLog {
    /// Whether records are written anywhere. If not, callers need not build any.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.control.is_on.load(Relaxed)
    }

    /// Whether empty sessions are logged too. [`Ending::is_probe_like`] says which sessions these are.
    ///
    /// [`Ending::is_probe_like`]: super::Ending::is_probe_like
    #[must_use]
    pub fn is_logging_empty_sessions(&self) -> bool {
        self.control.logs_empty_sessions.load(Relaxed)
    }

    /// Sets what [`AccessLog::is_logging_empty_sessions`] returns, for all clones.
    pub fn set_logs_empty_sessions(&self, is_wanted: bool) {
        self.control.logs_empty_sessions.store(is_wanted, Relaxed);
    }

    /// Switches to another output and format, after the records queued so far are written. `None` turns the log off.
    pub fn switch(&self, output: Option<Output>, format: LogFormat) {
        self.control.is_on.store(output.is_some(), Relaxed);
        if self.control.next_output.lock().replace((output, format)).is_some() {
            return; // the message of the earlier request has not arrived yet
        }
        // A full queue means that the writer is busy or its target is blocked. The message must not be lost, or the log
        // would stay with the old target; a thread waits until there is space for it.
        if let Err(TrySendError::Full(message)) = self.queue.try_send(Message::Switch) {
            let queue = self.queue.clone();
            let waiting = thread::Builder::new().spawn(move || queue.send(message));
            if let Err(error) = waiting {
                self.control.switch_at_once.store(true, Relaxed);
                tracing::warn!(%error, "queued records go to the new target of the access log: no thread can be started");
            }
        }
    }

    /// Queues a record. If the queue is full, the record is dropped and counted.
    pub fn write(&self, record: AccessRecord) {
        if self.queue.try_send(Message::Record(Box::new(record))).is_err() {
            self.dropped.increment(1);
        }
    }

    /// Requests that the file be opened again, after it may have been renamed (log rotation).
    pub fn reopen(&self) {
        self.control.reopen.store(true, Relaxed);
        let _ = self.queue.try_send(Message::Wake); // if the queue is full, the writer sees the request at its next record
    }
}

/// Handle to the writer thread, to be finished after the last session has ended.
#[derive(Debug)]
pub struct AccessLogWriter {
    /// Disconnects when the writer thread ends.
    done: Receiver<()>,
}

impl AccessLogWriter {
    /// Waits until the writer thread has ended, at most 2 s; returns whether it has. Every [`AccessLog`] must have been
    /// dropped before: the thread runs as long as one exists.
    #[must_use]
    pub fn finish(self) -> bool {
        matches!(
            self.done.recv_timeout(FINISH_TIMEOUT),
            Err(RecvTimeoutError::Disconnected)
        )
    }
}

/// Starts the writer thread. `dropped` counts the records that could not be written.
///
/// # Errors
/// The file cannot be opened, or the thread cannot be started.
pub fn start(target: &AccessTarget, format: LogFormat, dropped: Counter) -> io::Result<(AccessLog, AccessLogWriter)> {
    let output = Output::open(target)?;
    let control = Arc::new(LogControl::default());
    control.is_on.store(output.is_some(), Relaxed);
    let (queue, messages) = sync_channel(QUEUE_RECORDS_MAX);
    let (alive, done) = sync_channel::<()>(0);
    let log = AccessLog {
        queue,
        control,
        dropped,
    };
    let (control, dropped) = (Arc::clone(&log.control), log.dropped.clone());
    thread::Builder::new().name("access-log".to_owned()).spawn(move || {
        run_writer(output, format, &messages, &control, &dropped);
        drop(alive);
    })?;
    Ok((log, AccessLogWriter { done }))
}

/// Writes queued records until every sender is dropped.
fn run_writer(
    mut output: Option<Output>,
    mut format: LogFormat,
    messages: &Receiver<Message>,
    control: &LogControl,
    dropped: &Counter,
) {
    loop {
        // What could not be written is retried, even if no further message arrives.
        let is_failing = output.as_ref().is_some_and(Output::is_failing);
        let timeout = if is_failing { BATCH_INTERVAL } else { Duration::MAX };
        let first = match messages.recv_timeout(timeout) {
            Ok(first) => Some(first),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        for message in first.into_iter().chain(messages.try_iter()) {
            let mut is_switch_due = control.switch_at_once.swap(false, Relaxed);
            match (message, &mut output) {
                (Message::Record(record), Some(output)) => dropped.increment(output.write(&record.render(format))),
                (Message::Record(_), None) => {} // the log was turned off while the session ended
                (Message::Wake, _) => {}
                (Message::Switch, _) => is_switch_due = true,
            }
            let next = is_switch_due.then(|| control.next_output.lock().take()).flatten();
            if let Some((next, next_format)) = next {
                format = next_format;
                let previous = std::mem::replace(&mut output, next);
                dropped.increment(previous.map_or(0, Output::close));
            }
            if let (true, Some(output)) = (control.reopen.swap(false, Relaxed), &mut output) {
                dropped.increment(output.reopen());
            }
        }
        if let Some(output) = &mut output {
            output.flush();
        }
        thread::sleep(BATCH_INTERVAL);
    }
    let lost = output.map_or(0, Output::close);
    dropped.increment(lost);
    if lost > 0 {
        tracing::warn!(lost, "the last lines of the access log could not be written");
    }
}

#[cfg(test)]
mod tests;
