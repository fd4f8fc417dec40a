//! One line a session when it ends. Lines are written by a thread of their own: a log that cannot keep up drops lines
//! and counts them, it never slows traffic.

use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use metrics::Counter;
use serde::Serialize;
use serde_json::Value;

pub use super::output::Output;

/// Lines that may wait to be written: of about 1 KB each, for names and protocols are bounded.
pub const QUEUE_LINES: usize = 16 * 1024;

/// After a batch the writer rests so long: many lines cost one wake-up, and none is older than this when written.
const BATCH: Duration = Duration::from_millis(100);

/// How long the end of the process waits for a reader that does not read.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// `key=value`, quoted where need be.
    Text,
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessTarget {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// Nowhere.
    Off,
    /// A file, opened again on SIGUSR1.
    File(PathBuf),
}

/// A line, its fields in the order they are written. What was not known is `null`, or left out of a text line.
/// `detail` is there only where there is one.
#[derive(Debug, Default, Serialize)]
#[expect(missing_docs, reason = "the names are the specification's; units are in them")]
pub struct Line {
    #[serde(serialize_with = "rfc3339")]
    pub time: Option<SystemTime>,
    pub session: u64,
    pub listener: String,
    pub peer: String,
    pub client: String,
    pub sni: Option<String>,
    pub alpn: Option<String>,
    pub ech: bool,
    pub route: Option<String>,
    pub pool: Option<String>,
    pub server: Option<String>,
    pub attempts: u32,
    pub hello_ms: Option<f64>,
    pub connect_ms: Option<f64>,
    pub duration_ms: f64,
    pub bytes_up: u64,
    pub bytes_down: u64,
    pub ending: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<&'static str>,
    pub client_rtt_us: Option<u32>,
    pub server_rtt_us: Option<u32>,
    pub client_retrans: Option<u32>,
    pub server_retrans: Option<u32>,
}

fn rfc3339<S: serde::Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    let time = time.unwrap_or(SystemTime::UNIX_EPOCH);
    serializer.collect_str(&humantime::format_rfc3339_millis(time))
}

impl Line {
    /// The line's text, with its line feed.
    ///
    /// # Panics
    /// Never: the fields are plain values.
    #[must_use]
    pub fn render(&self, format: LogFormat) -> String {
        const PLAIN: &str = "plain values always serialise";
        let mut text = match format {
            LogFormat::Json => serde_json::to_string(self).expect(PLAIN),
            LogFormat::Text => key_values(&serde_json::to_value(self).expect(PLAIN)),
        };
        text.push('\n');
        text
    }
}

fn key_values(line: &Value) -> String {
    let mut text = String::new();
    for (key, value) in line.as_object().into_iter().flatten() {
        let gap = if text.is_empty() { "" } else { " " };
        let plain =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'=');
        // Writing to a String cannot fail.
        let _ = match value {
            Value::Null => Ok(()),
            Value::String(value) if plain(value) => write!(text, "{gap}{key}={value}"),
            value => write!(text, "{gap}{key}={value}"),
        };
    }
    text
}

enum Message {
    Line(Box<Line>),
    /// There is a new wish.
    Look,
    /// To what is wanted by now.
    Switch,
}

/// The access log's entrance; cheap to clone, one for every worker.
#[derive(Clone, Debug)]
pub struct AccessLog {
    queue: SyncSender<Message>,
    wishes: Arc<Wishes>,
    dropped: Counter,
}

/// What is wanted of the log.
#[derive(Debug, Default)]
struct Wishes {
    is_on: AtomicBool,
    takes_visits: AtomicBool,
    /// That the file be opened again.
    reopen: AtomicBool,
    // A std mutex: held for a line, at a reload.
    /// Where to go on, once the lines before are written: the latest wish.
    next: Mutex<Option<(Option<Output>, LogFormat)>>,
}

impl Wishes {
    fn next(&self) -> MutexGuard<'_, Option<(Option<Output>, LogFormat)>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AccessLog {
    /// Whether lines go anywhere: else nobody need make any.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.wishes.is_on.load(Relaxed)
    }

    /// Whether a visit without a byte gets a line too.
    #[must_use]
    pub fn takes_visits(&self) -> bool {
        self.wishes.takes_visits.load(Relaxed)
    }

    /// From now on visits without a byte get a line too, or no more.
    pub fn take_visits(&self, wanted: bool) {
        self.wishes.takes_visits.store(wanted, Relaxed);
    }

    /// Goes on elsewhere, or nowhere, after the lines that wait.
    pub fn switch(&self, output: Option<Output>, format: LogFormat) {
        self.wishes.is_on.store(output.is_some(), Relaxed);
        *self.wishes.next() = Some((output, format));
        // Waits where the queue is full: the writer is at work, or its target takes nothing; then nobody is served by
        // forgetting where to write instead.
        if let Err(TrySendError::Full(message)) = self.queue.try_send(Message::Switch) {
            let queue = self.queue.clone();
            thread::spawn(move || queue.send(message));
        }
    }

    /// Hands a line to the writer; drops and counts it when the queue is full.
    pub fn write(&self, line: Line) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
            self.queue.try_send(Message::Line(Box::new(line)))
        {
            self.dropped.increment(1);
        }
    }

    /// Opens the file again: its old one may have been renamed.
    pub fn reopen(&self) {
        self.wishes.reopen.store(true, Relaxed);
        let _ = self.queue.try_send(Message::Look); // with a full queue the writer looks at every line of it
    }
}

/// The writer's end of the log, to be closed when the last session is accounted.
#[derive(Debug)]
pub struct AccessLogWriter {
    /// Disconnected when the writer is done.
    done: Receiver<()>,
}

impl AccessLogWriter {
    /// Waits until everything is written, once every [`AccessLog`] is dropped; whether it was within the bound.
    #[must_use]
    pub fn finish(self) -> bool {
        matches!(self.done.recv_timeout(LAST_WORDS), Err(RecvTimeoutError::Disconnected))
    }
}

/// Starts the writer. `dropped` counts the lines it had to drop.
///
/// # Errors
/// The file cannot be opened, or no thread can be had.
pub fn start(target: &AccessTarget, format: LogFormat, dropped: Counter) -> io::Result<(AccessLog, AccessLogWriter)> {
    let output = Output::open(target)?;
    let wishes = Arc::new(Wishes::default());
    wishes.is_on.store(output.is_some(), Relaxed);
    let (queue, lines) = sync_channel(QUEUE_LINES);
    let (alive, done) = sync_channel::<()>(0);
    let log = AccessLog { queue, wishes, dropped };
    let (wishes, dropped) = (Arc::clone(&log.wishes), log.dropped.clone());
    thread::Builder::new().name("access-log".to_owned()).spawn(move || {
        write_all(output, format, &lines, &wishes, &dropped);
        drop(alive);
    })?;
    Ok((log, AccessLogWriter { done }))
}

fn write_all(
    mut output: Option<Output>,
    mut format: LogFormat,
    lines: &Receiver<Message>,
    wishes: &Wishes,
    dropped: &Counter,
) {
    loop {
        // What could not be written is tried again, also when nobody says anything more.
        let is_failing = output.as_ref().is_some_and(Output::is_failing);
        let first = match lines.recv_timeout(if is_failing { BATCH } else { Duration::MAX }) {
            Ok(first) => Some(first),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => break,
        };
        for message in first.into_iter().chain(lines.try_iter()) {
            match (message, &mut output) {
                (Message::Line(line), Some(output)) => dropped.increment(output.write(&line.render(format))),
                (Message::Line(_), None) => {} // of a session that ended while the log was switched off
                (Message::Look, _) => {}
                (Message::Switch, _) => {
                    if let Some((next, next_format)) = wishes.next().take() {
                        format = next_format;
                        let before = std::mem::replace(&mut output, next);
                        dropped.increment(before.map_or(0, Output::close));
                    }
                }
            }
            if let (true, Some(output)) = (wishes.reopen.swap(false, Relaxed), &mut output) {
                dropped.increment(output.reopen());
            }
        }
        if let Some(output) = &mut output {
            output.flush();
        }
        thread::sleep(BATCH);
    }
    let lost = output.map_or(0, Output::close);
    dropped.increment(lost);
    if lost > 0 {
        tracing::warn!(lost, "the access log ends without its last lines");
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::process::Command;
    use std::sync::atomic::AtomicU64;

    use tokio::time::Instant;

    use super::*;

    fn line() -> Line {
        Line {
            time: Some(SystemTime::UNIX_EPOCH),
            session: 7,
            listener: "web".to_owned(),
            sni: Some("a b\"c".to_owned()),
            ending: "client_closed",
            ..Line::default()
        }
    }

    #[test]
    fn json_keeps_every_field_in_order() {
        let text = line().render(LogFormat::Json);
        assert!(
            text.starts_with(r#"{"time":"1970-01-01T00:00:00.000Z","session":7,"listener":"web","peer":"""#),
            "{text}"
        );
        assert!(text.ends_with("\"server_retrans\":null}\n"), "{text}");
    }

    #[test]
    fn text_quotes_and_leaves_out_what_is_not_known() {
        let text = line().render(LogFormat::Text);
        assert!(
            text.starts_with("time=1970-01-01T00:00:00.000Z session=7 listener=web peer=\"\""),
            "{text}"
        );
        assert!(text.contains(r#" sni="a b\"c" ech=false attempts=0 "#), "{text}");
    }

    #[test]
    fn everything_is_written_before_the_end_and_a_renamed_file_is_left_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let target = AccessTarget::File(path.clone());
        let (log, writer) = start(&target, LogFormat::Json, Counter::noop()).unwrap();
        log.write(line());
        log.reopen(); // nothing was renamed: the same file again
        log.write(line());
        drop(log);
        assert!(writer.finish());
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
    }

    #[test]
    fn a_wish_to_reopen_is_kept_while_the_queue_is_full() {
        let folder = tempfile::tempdir().unwrap();
        let [path, before] = ["access.log", "access.log.1"].map(|name| folder.path().join(name));
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let mut reader = File::options().read(true).write(true).open(&path).unwrap();
        let dropped = Arc::new(AtomicU64::new(0));
        let target = AccessTarget::File(path.clone());
        let (log, writer) = start(&target, LogFormat::Json, Counter::from_arc(Arc::clone(&dropped))).unwrap();
        let mut lines = 0;
        while dropped.load(Relaxed) == 0 {
            log.write(line());
            lines += 1;
        }
        std::fs::rename(&path, before).unwrap();
        log.reopen();
        thread::spawn(move || io::copy(&mut reader, &mut io::sink())); // without an end: it could write itself
        let begun = Instant::now();
        while !path.exists() {
            assert!(begun.elapsed() < Duration::from_secs(20), "it is forgotten");
            thread::yield_now();
        }
        drop(log);
        assert!(writer.finish());
        let written = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(written > 0 && written < lines, "{written} of {lines}");
    }

    #[test]
    fn what_waits_goes_where_it_was_meant_to_and_the_rest_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second] = ["first", "second"].map(|name| folder.path().join(name));
        let (log, writer) = start(&AccessTarget::File(first.clone()), LogFormat::Json, Counter::noop()).unwrap();
        log.write(line());
        log.switch(None, LogFormat::Json);
        assert!(!log.is_on());
        log.switch(
            Output::open(&AccessTarget::File(second.clone())).unwrap(),
            LogFormat::Text,
        );
        assert!(log.is_on());
        log.write(line());
        drop(log);
        assert!(writer.finish());
        let [first, second] = [first, second].map(|path| std::fs::read_to_string(path).unwrap());
        assert!(first.starts_with('{') && first.lines().count() == 1, "{first}");
        assert!(second.starts_with("time=") && second.lines().count() == 1, "{second}");
    }

    #[test]
    fn of_two_wishes_with_a_full_queue_the_later_one_holds() {
        let folder = tempfile::tempdir().unwrap();
        let [fifo, never, last] = ["fifo", "never", "last"].map(|name| folder.path().join(name));
        assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        let mut reader = File::options().read(true).write(true).open(&fifo).unwrap();
        let dropped = Arc::new(AtomicU64::new(0));
        let target = AccessTarget::File(fifo);
        let (log, writer) = start(&target, LogFormat::Json, Counter::from_arc(Arc::clone(&dropped))).unwrap();
        while dropped.load(Relaxed) == 0 {
            log.write(line());
        }
        for path in [&never, &last] {
            let output = Output::open(&AccessTarget::File(path.clone())).unwrap();
            log.switch(output, LogFormat::Json);
        }
        thread::spawn(move || io::copy(&mut reader, &mut io::sink())); // without an end: it could write itself
        let begun = Instant::now();
        while last.metadata().unwrap().len() == 0 {
            assert!(begun.elapsed() < Duration::from_secs(20), "it is forgotten");
            log.write(line());
            thread::yield_now();
        }
        drop(log);
        assert!(writer.finish());
        assert_eq!(never.metadata().unwrap().len(), 0);
    }
}
