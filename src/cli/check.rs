//! `acequia check`: prints every error of a configuration, and warns of parts that have no effect.

use std::path::Path;
use std::process::ExitCode;

use super::exit::EXIT_CONFIG;
use super::terminal::{print, print_message};
use crate::app::exposed;
use crate::config;
use crate::config::report::{Report, counted};
use crate::plan::Plan;
use crate::regular_file;
use crate::text::escape;

/// Checks the file at `path`, otherwise the one that `run` would find. Errors and warnings go to standard error; only
/// errors make it fail, with exit code 1.
#[must_use]
pub fn run(path: Option<&Path>) -> ExitCode {
    match check(path) {
        Ok(summary) => print(&summary),
        Err(report) => {
            report.print_to_stderr();
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

fn check(path: Option<&Path>) -> Result<String, Report> {
    let path = config::find(path)?;
    let loaded = config::load(&path)?;
    loaded.warnings.print_to_stderr();
    warn_of_files(&loaded.plan);
    Ok(summary(&path, &loaded.plan))
}

/// Warns of each file named in the plan that cannot be read now, so that `run` would not start, and of each secret file
/// that other users may read or write.
fn warn_of_files(plan: &Plan) {
    let unreadable = plan.files().into_iter().filter_map(|(key, path)| {
        let error = regular_file::open(path).err()?;
        Some(format!(
            "{key}: cannot read {}: {error}",
            escape(&path.to_string_lossy(), &[])
        ))
    });
    for warning in unreadable.chain(exposed(plan)) {
        print_message("warning", &warning);
    }
}

fn summary(path: &Path, plan: &Plan) -> String {
    let servers = plan.pools.iter().map(|pool| pool.entries.len()).sum();
    format!(
        "{}: {}, {}, {}: fine\n",
        path.display(),
        counted(plan.listeners.len(), "listener"),
        counted(plan.pools.len(), "pool"),
        counted(servers, "server"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_listeners_pools_and_servers() {
        let text = "[listeners.a]\nbind = \"[::1]:1\"\npool = \"p\"\n[pools.p]\nservers = [\"a.b:1\", \"10.0.0.1:1\"]";
        let plan = config::read("a.toml", text).expect("no mistake in it").plan;
        assert_eq!(
            summary(Path::new("a.toml"), &plan),
            "a.toml: 1 listener, 1 pool, 2 servers: fine\n"
        );
    }
}
