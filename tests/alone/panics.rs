//! A panic is written to the diagnostic log as one complete line.

use std::env;
use std::process::Command;

use crate::support::process::finished;
use acequia::account::access_log::{AccessTarget, LogFormat};
use acequia::cli::run::start_log;
use acequia::plan::LogPlan;
use serde_json::Value;

/// The environment variable with the log format. Only a child process has it. There, the test only makes a thread
/// panic.
const FORMAT_VARIABLE: &str = "ACEQUIA_TEST_PANICS";

/// Starts the log and panics in a thread, as a worker might while it serves a session.
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

/// The standard error of a child process that runs the test below, in which a thread panics.
fn stderr_of_panic(format: &str) -> String {
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", "panics::a_panic_is_one_log_line", "--nocapture"]);
    let finished = finished(child.env(FORMAT_VARIABLE, format).env_remove("RUST_BACKTRACE"));
    assert_eq!(finished.code, Some(0), "{finished:#?}");
    finished.stderr
}

#[test]
fn a_panic_is_one_log_line() {
    match env::var(FORMAT_VARIABLE).as_deref() {
        Ok("json") => return panic_in_a_thread(LogFormat::Json),
        Ok(_) => return panic_in_a_thread(LogFormat::Text),
        Err(_) => {}
    }
    let json = stderr_of_panic("json");
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
    let text = stderr_of_panic("text");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains(r#"cause="a \"cause\" of\n2 lines""#), "{text}");
}
