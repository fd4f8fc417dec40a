use std::fs::File;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;

use tokio::time::Instant;

use super::*;
use crate::error::chain;
use crate::regular_file::make_fifo;

fn record() -> AccessRecord {
    AccessRecord {
        session: 7,
        ending: "client_closed",
        ..AccessRecord::default()
    }
}

/// A log without a writer, and the receiver of its queue. Two records fill the queue. `dropped` counts the records that
/// do not fit.
fn log_with_full_queue(dropped: Counter) -> (AccessLog, Receiver<Message>) {
    let (queue, messages) = sync_channel(2);
    let log = AccessLog {
        queue,
        control: Arc::default(),
        dropped,
    };
    (0..2).for_each(|_| log.write(record()));
    (log, messages)
}

#[test]
fn a_check_finds_the_error_of_opening_and_creates_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let _socket = UnixListener::bind(path("socket")).unwrap();
    for (link, target) in [
        ("link", "new"),
        ("second", "link"),
        ("dangling", "missing/new"),
        ("circle", "circle"),
    ] {
        symlink(target, path(link)).unwrap();
    }
    for (name, is_usable) in [
        ("link", true),
        ("second", true),
        ("dangling", false),
        ("circle", false),
        ("socket", false),
    ] {
        let checked = Output::check(&path(name)).map_err(|error| chain(&error));
        assert!(!path("new").exists());
        let opened = Output::open(&AccessTarget::File(path(name))).map(drop);
        assert_eq!(checked, opened.map_err(|error| chain(&error)));
        assert_eq!(checked.is_ok(), is_usable, "{name}");
        assert_eq!(std::fs::remove_file(path("new")).is_ok(), is_usable, "{name}");
    }
}

#[test]
fn finish_waits_until_every_record_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("access.log");
    let target = AccessTarget::File(path.clone());
    let (log, writer) = start(&target, LogFormat::Json, Counter::noop()).unwrap();
    log.write(record());
    log.reopen(); // the file was not renamed, so it is the same file
    log.write(record());
    drop(log);
    assert!(writer.finish());
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 2);
}

#[test]
fn a_request_to_reopen_is_not_lost_while_the_queue_is_full() {
    let directory = tempfile::tempdir().unwrap();
    let [path, renamed] = ["access.log", "access.log.1"].map(|name| directory.path().join(name));
    let dropped = Arc::new(AtomicU64::new(0));
    let (log, messages) = log_with_full_queue(Counter::from_arc(Arc::clone(&dropped)));
    log.write(record());
    assert_eq!(dropped.load(Relaxed), 1, "the queue is full");
    let output = Output::open(&AccessTarget::File(path.clone())).unwrap();
    std::fs::rename(&path, &renamed).unwrap();
    log.reopen();
    let control = Arc::clone(&log.control);
    drop(log);
    run_writer(output, LogFormat::Json, &messages, &control, &Counter::noop());
    let lines = [renamed, path].map(|path| std::fs::read_to_string(path).unwrap().lines().count());
    assert_eq!(lines, [1, 1], "the file is reopened after the first queued record");
}

#[test]
fn records_queued_before_a_switch_go_to_the_old_output() {
    let directory = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| directory.path().join(name));
    let (log, writer) = start(&AccessTarget::File(first.clone()), LogFormat::Json, Counter::noop()).unwrap();
    log.write(record());
    log.switch(None, LogFormat::Json);
    assert!(!log.is_on());
    log.switch(
        Output::open(&AccessTarget::File(second.clone())).unwrap(),
        LogFormat::Text,
    );
    assert!(log.is_on());
    log.write(record());
    drop(log);
    assert!(writer.finish());
    let [first, second] = [first, second].map(|path| std::fs::read_to_string(path).unwrap());
    assert!(first.starts_with('{') && first.lines().count() == 1, "{first}");
    assert!(second.starts_with("time=") && second.lines().count() == 1, "{second}");
}

#[test]
fn the_later_of_two_switches_wins_while_the_queue_is_full() {
    let directory = tempfile::tempdir().unwrap();
    let [fifo, replaced, last] = ["fifo", "replaced", "last"].map(|name| directory.path().join(name));
    make_fifo(&fifo);
    let mut reader = File::options().read(true).write(true).open(&fifo).unwrap();
    let dropped = Arc::new(AtomicU64::new(0));
    let target = AccessTarget::File(fifo);
    let (log, writer) = start(&target, LogFormat::Json, Counter::from_arc(Arc::clone(&dropped))).unwrap();
    // Nobody reads the FIFO yet: the writer blocks, and the queue fills up.
    while dropped.load(Relaxed) == 0 {
        log.write(record());
    }
    for path in [&replaced, &last] {
        let output = Output::open(&AccessTarget::File(path.clone())).unwrap();
        log.switch(output, LogFormat::Json);
    }
    thread::spawn(move || io::copy(&mut reader, &mut io::sink())); // `reader` can write too, so it never sees EOF
    let start_time = Instant::now();
    while last.metadata().unwrap().len() == 0 {
        assert!(
            start_time.elapsed() < Duration::from_secs(20),
            "expected the log to switch"
        );
        log.write(record());
        thread::yield_now();
    }
    drop(log);
    assert!(writer.finish());
    assert_eq!(replaced.metadata().unwrap().len(), 0);
}

#[test]
fn a_switch_for_which_no_message_could_be_sent_is_made_at_the_next_message() {
    // The queue was full, and no thread could be started that waits for room.
    let directory = tempfile::tempdir().unwrap();
    let [first, second] = ["first", "second"].map(|name| directory.path().join(name));
    let output = |path: &PathBuf| Output::open(&AccessTarget::File(path.clone())).unwrap();
    let (log, messages) = log_with_full_queue(Counter::noop());
    *log.control.next_output.lock() = Some((output(&second), LogFormat::Json));
    log.control.switch_at_once.store(true, Relaxed);
    let control = Arc::clone(&log.control);
    drop(log);
    run_writer(output(&first), LogFormat::Json, &messages, &control, &Counter::noop());
    let lines = [first, second].map(|path| std::fs::read_to_string(path).unwrap().lines().count());
    assert_eq!(lines, [1, 1]);
}

#[test]
fn lines_that_the_file_does_not_accept_before_a_reopen_are_counted_as_lost() {
    let mut output = Output::open(&AccessTarget::File("/dev/full".into())).unwrap().unwrap();
    assert_eq!(output.write("a line\n"), 0, "it is in the buffer");
    assert_eq!(output.reopen(), 1);
    assert!(output.is_failing(), "so the next flush that succeeds logs the loss");
}

#[test]
fn repeated_switches_while_the_queue_is_full_send_one_message() {
    let (log, messages) = log_with_full_queue(Counter::noop());
    for _ in 0..9 {
        log.switch(None, LogFormat::Json);
    }
    drop(log);
    // The iterator ends when the threads that wait to send a message have sent it.
    let switches = messages.iter().filter(|message| matches!(message, Message::Switch));
    assert_eq!(switches.count(), 1);
}
