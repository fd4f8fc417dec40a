//! `acequia run`: balances, until a signal ends it.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;
use std::path::Path;
use std::process::ExitCode;
use std::thread;

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use super::{EXIT_CONFIG, EXIT_RUN};
use crate::account::access_log::{LogFormat, QUEUE_LINES};
use crate::app::{self, ANNOUNCE, ConfigSource, Running};
use crate::config;
use crate::plan::LogPlan;

/// Runs the configuration named, else the one in its usual place.
#[must_use]
pub fn run(named: Option<&Path>) -> ExitCode {
    let loaded = config::find(named).and_then(|path| Ok((config::load(&path)?, path)));
    let (loaded, path) = match loaded {
        Ok(loaded) => loaded,
        Err(report) => {
            report.print_to_stderr();
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    loaded.warnings.print_to_stderr();
    let (_written_before_the_end, reconfigure_log) = start_log(&loaded.plan.log);
    let source = ConfigSource {
        file: Some(path),
        text: loaded.text().to_owned(),
        reconfigure_log: Some(reconfigure_log),
    };
    match app::run(loaded.plan, source, announce) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in error.to_string().lines() {
                tracing::error!("{line}");
            }
            ExitCode::from(EXIT_RUN)
        }
    }
}

/// Tells each address once clients are let in.
fn announce(running: &Running) {
    let in_force = running.live.in_force();
    for (listener, addresses) in in_force.listeners() {
        for address in addresses {
            tracing::info!(target: ANNOUNCE, listener = %listener.name, %address, "listening");
        }
    }
    if let Some(address) = running.admin {
        tracing::info!(target: ANNOUNCE, %address, "admin port");
    }
}

/// Starts the diagnostic log on standard error. It is written by a thread of its own: a reader that does not read
/// loses lines, it does not stop traffic. With its guard comes what gives it other settings.
pub fn start_log(plan: &LogPlan) -> (WorkerGuard, app::ReconfigureLog) {
    // As many lines may wait to be written as of the access log.
    let queue = NonBlockingBuilder::default().buffered_lines_limit(QUEUE_LINES);
    let (writer, guard) = queue.finish(std::io::stderr());
    let (reloaded, handle) = reload::Layer::new(layer(plan, &writer));
    tracing_subscriber::registry().with(reloaded).init();
    std::panic::set_hook(Box::new(tell_of_panic));
    let reconfigure = move |plan: &LogPlan| {
        let _ = handle.reload(layer(plan, &writer)); // fails only when there is no log any more
    };
    (guard, Box::new(reconfigure))
}

/// A panic is a line of the log like any other. By default it would be several that are none, and a standard error that
/// nobody reads would stop the thread.
fn tell_of_panic(panic: &PanicHookInfo<'_>) {
    let cause = panic.payload();
    let text = cause.downcast_ref::<&str>().copied();
    let cause = text.or_else(|| cause.downcast_ref::<String>().map(String::as_str));
    let at = panic.location().map(ToString::to_string);
    let backtrace = Backtrace::capture(); // if RUST_BACKTRACE asks for it
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

/// What writes the lines that are wanted, as they are wanted.
fn layer(plan: &LogPlan, writer: &NonBlocking) -> Box<dyn Layer<Registry> + Send + Sync> {
    let levels = Targets::new()
        .with_default(LevelFilter::from_level(plan.level))
        .with_target(ANNOUNCE, Level::INFO);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer.clone())
        .with_target(false);
    // The levels come last: what the last one says is taken for all, and only if somebody says that traces are not
    // wanted are they not even looked at where they would be told, as for every socket by the runtime's driver.
    match plan.format {
        LogFormat::Json => lines.json().flatten_event(true).and_then(levels).boxed(),
        LogFormat::Text => lines.with_ansi(false).and_then(levels).boxed(),
    }
}
