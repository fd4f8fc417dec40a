//! `acequia run`: balances, until a signal ends it.

use std::path::Path;
use std::process::ExitCode;

use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlocking, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use super::{EXIT_CONFIG, EXIT_RUN};
use crate::account::access_log::LogFormat;
use crate::app::{self, ANNOUNCE, Running};
use crate::config;
use crate::plan::LogPlan;

/// Runs the configuration named, else the one in its usual place.
#[must_use]
pub fn run(named: Option<&Path>) -> ExitCode {
    let loaded = match config::find(named).and_then(|path| config::load(&path)) {
        Ok(loaded) => loaded,
        Err(report) => {
            report.tell();
            return ExitCode::from(EXIT_CONFIG);
        }
    };
    loaded.warnings.tell();
    let _written_before_the_end = start_log(&loaded.plan.log);
    match app::run(loaded.plan, announce) {
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
    for (listener, addresses) in &running.listeners {
        for address in addresses {
            tracing::info!(target: ANNOUNCE, %listener, %address, "listening");
        }
    }
    if let Some(address) = running.admin {
        tracing::info!(target: ANNOUNCE, %address, "admin port");
    }
}

/// Starts the diagnostic log on standard error. It is written by a thread of its own: a reader that does not read
/// loses lines, it does not stop traffic.
pub fn start_log(plan: &LogPlan) -> WorkerGuard {
    let (writer, guard) = NonBlocking::new(std::io::stderr());
    let levels = Targets::new()
        .with_default(LevelFilter::from_level(plan.level))
        .with_target(ANNOUNCE, Level::INFO);
    let registry = tracing_subscriber::registry().with(levels);
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_target(false);
    match plan.format {
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).init(),
        LogFormat::Text => registry.with(layer.with_ansi(false)).init(),
    }
    guard
}
