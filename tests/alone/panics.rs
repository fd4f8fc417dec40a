//! A fault of ours that ends in a panic is one line of the log, as whole as any other.

use std::env;
use std::process::Command;

use crate::support::process::finished;
use acequia::account::access_log::{AccessTarget, LogFormat};
use acequia::cli::run::start_log;
use acequia::plan::LogPlan;
use serde_json::Value;

/// Tells a process of this very test in which format it is to log, and to panic.
const FORMAT: &str = "ACEQUIA_TEST_PANICS";

/// Panics in a thread, as a worker does for a session, with a log in place.
fn panic_in_a_thread(format: LogFormat) {
    let plan = LogPlan {
        format,
        level: tracing::Level::ERROR,
        access: AccessTarget::Off,
    };
    let (_written, _) = start_log(&plan);
    let worker = std::thread::Builder::new().name("worker-7".to_owned());
    let _ = worker.spawn(|| panic!("a \"cause\" of\n{} lines", 2)).unwrap().join();
}

/// What this test says on standard error in a process of its own, in which it panics.
fn said(format: &str) -> String {
    let mut itself = Command::new(env::current_exe().unwrap());
    itself.args(["--exact", "a_panic_is_one_line_of_the_log", "--nocapture"]);
    let finished = finished(itself.env(FORMAT, format).env_remove("RUST_BACKTRACE"));
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    finished.stderr
}

#[test]
fn a_panic_is_one_line_of_the_log() {
    match env::var(FORMAT).as_deref() {
        Ok("json") => return panic_in_a_thread(LogFormat::Json),
        Ok(_) => return panic_in_a_thread(LogFormat::Text),
        Err(_) => {}
    }
    let json = said("json");
    let line: Value = serde_json::from_str(&json).unwrap_or_else(|_| panic!("{json}"));
    assert_eq!(line["level"], "ERROR");
    assert_eq!(line["message"], "panic: this is a fault of acequia");
    assert_eq!(
        (&line["thread"], &line["cause"]),
        (&"worker-7".into(), &"a \"cause\" of\n2 lines".into())
    );
    assert!(
        line["at"].as_str().unwrap().starts_with("tests/alone/panics.rs:"),
        "{json}"
    );
    let text = said("text");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains(r#"cause="a \"cause\" of\n2 lines""#), "{text}");
}
