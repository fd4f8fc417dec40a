//! `acequia run`: runs the load balancer until a signal ends it.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use super::exit::{self, EXIT_CONFIG, EXIT_RUN};
use crate::account::access_log::{LogFormat, QUEUE_RECORDS_MAX};
use crate::app::{self, ANNOUNCE, ConfigSource, Running};
use crate::config;
use crate::error::chain;
use crate::plan::LogPlan;
use crate::text::{escape, escape_json};

/// Runs the configuration at `path`, otherwise the one at the default path.
#[must_use]
pub fn run(path: Option<&Path>) -> ExitCode {
    let loaded = config::find(path).and_then(|path| Ok((config::load(&path)?, path)));
    let (loaded, path) = match loaded {
        Ok(loaded) => loaded,
        Err(report) => {
            report.print_to_stderr();
            return exit::for_report(&report);
        }
    };
    // If the file names a store (`remote`), the file is read again with the store's texts. That logs all warnings, if
    // the texts are usable.
    if loaded.plan.remote.is_none() {
        loaded.warnings.print_to_stderr();
    }
    let (_flushes_on_drop, reconfigure_log) = start_log(&loaded.plan.log);
    let source = ConfigSource {
        is_pipe: !path.metadata().is_ok_and(|metadata| metadata.is_file()),
        file: Some(path),
        text: loaded.text().to_owned(),
        reconfigure_log: Some(reconfigure_log),
    };
    match app::run(loaded.plan, source, log_started) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in chain(&error).lines() {
                tracing::error!("{line}");
            }
            ExitCode::from(if error.is_configuration() {
                EXIT_CONFIG
            } else {
                EXIT_RUN
            })
        }
    }
}

/// Logs the addresses. Called as soon as they accept clients.
fn log_started(running: &Running) {
    app::log_addresses(&running.live.in_force());
    if let Some(address) = running.admin {
        tracing::info!(target: ANNOUNCE, %address, "admin port");
    }
}

/// Starts the diagnostic log on standard error. A separate thread writes it, so that a slow reader loses lines instead
/// of stopping traffic. Returns a guard that flushes the log when it is dropped, and a function that changes the
/// settings of the log.
pub fn start_log(plan: &LogPlan) -> (WorkerGuard, app::ReconfigureLog) {
    // The queue has the same length as that of the access log.
    let queue = NonBlockingBuilder::default().buffered_lines_limit(QUEUE_RECORDS_MAX);
    let (writer, guard) = queue.finish(io::stderr());
    let (reloadable, handle) = reload::Layer::new(layer(plan, &writer));
    tracing_subscriber::registry().with(reloadable).init();
    std::panic::set_hook(Box::new(log_panic));
    let reconfigure = move |plan: &LogPlan| {
        let _ = handle.reload(layer(plan, &writer)); // fails only after the log has been dropped
    };
    (guard, Box::new(reconfigure))
}

/// Logs a panic as one line. The default hook would write several lines in another format, and would block the thread
/// when nobody reads standard error.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied();
    let cause = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let at = panic.location().map(ToString::to_string);
    let backtrace = Backtrace::capture(); // only if RUST_BACKTRACE or RUST_LIB_BACKTRACE is set
    let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
    let thread = thread::current();
    tracing::error!(
        thread = thread.name(),
        at,
        cause,
        backtrace,
        "panic: this is a fault of acequia"
    );
}

/// Escapes characters that are unsafe to display, in every field of a line.
#[derive(Clone)]
struct EscapingWriter {
    to: NonBlocking,
    format: LogFormat,
}

impl Write for EscapingWriter {
    /// Writes a whole line. `tracing_subscriber` passes each line in one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        let escaped = match self.format {
            LogFormat::Json => escape_json(&text),
            LogFormat::Text => escape(&text, &['\n', '\t']),
        };
        self.to.write_all(escaped.as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl MakeWriter<'_> for EscapingWriter {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// The layer that writes lines at the configured level in the configured format.
fn layer(plan: &LogPlan, writer: &NonBlocking) -> Box<dyn Layer<Registry> + Send + Sync> {
    let levels = Targets::new()
        .with_default(LevelFilter::from_level(plan.level))
        .with_target(ANNOUNCE, Level::INFO)
        // notify logs every change in the directory of the configuration: a log file in this directory would cause log
        // lines for ever.
        .with_target("notify", LevelFilter::OFF)
        // rustls logs a warning with the bytes of each invalid input, so that clients could flood the log. The access
        // log has the failures.
        .with_target("rustls", LevelFilter::ERROR)
        // hickory warns of each datagram that is not an answer to a query of ours. The source of servers reports
        // failures.
        .with_target("hickory", LevelFilter::OFF);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(EscapingWriter {
            to: writer.clone(),
            format: plan.format,
        })
        .with_target(false);
    // The levels come last, because tracing takes the maximum level from the last layer. With a maximum level, disabled
    // events cost nothing, such as the trace events of the runtime's I/O driver for every socket.
    match plan.format {
        LogFormat::Json => lines.json().flatten_event(true).and_then(levels).boxed(),
        LogFormat::Text => lines.with_ansi(false).and_then(levels).boxed(),
    }
}
