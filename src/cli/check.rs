//! `acequia check`: prints every error of a configuration, and warns of parts that have no effect.

use std::fs::File;
use std::path::Path;
use std::process::ExitCode;

use super::exit::EXIT_CONFIG;
use super::terminal::{print, print_message};
use crate::app::{Failure, exposed, load_tls, tls_warnings};
use crate::config;
use crate::config::report::{Report, counted};
use crate::error::chain;
use crate::plan::Plan;
use crate::text::escape;

/// Checks the file at `path`, otherwise the one that `run` would find. Errors and warnings go to standard error; only
/// errors make it fail, with exit code 1.
#[must_use]
pub fn run(path: Option<&Path>) -> ExitCode {
    match check(path) {
        Ok(Some(summary)) => print(&summary),
        Ok(None) => ExitCode::from(EXIT_CONFIG),
        Err(report) => {
            report.print_to_stderr();
            ExitCode::from(EXIT_CONFIG)
        }
    }
}

/// `None`: a file that it names cannot be used, which was said.
fn check(path: Option<&Path>) -> Result<Option<String>, Report> {
    let path = config::find(path)?;
    let loaded = config::load(&path)?;
    loaded.warnings.print_to_stderr();
    warn_of_files(&loaded.plan);
    Ok(check_tls(&loaded.plan).then(|| summary(&path, &loaded.plan)))
}

/// Reads the certificates and everything else that TLS needs. A file that is there but cannot be used is an error; one that
/// cannot be read now gets a warning, because the configuration may be for another machine. Returns whether there is no
/// error.
fn check_tls(plan: &Plan) -> bool {
    let failure = match load_tls(plan, None) {
        Ok(tls) => {
            for warning in tls_warnings(plan, &tls) {
                print_message("warning", &escape(&warning, &[]));
            }
            return true;
        }
        Err(failure) => failure,
    };
    let is_missing = matches!(&failure, Failure::Tls { cause, .. } if !cause.can_be_read());
    let severity = if is_missing { "warning" } else { "error" };
    print_message(severity, &escape(&chain(&failure), &[]));
    is_missing
}

/// Warns of each file named in the plan that cannot be read now, so that `run` would not start, and of each secret file
/// that other users may read or write.
fn warn_of_files(plan: &Plan) {
    let unreadable = plan.files().into_iter().filter_map(|(key, path)| {
        let error = File::open(path).err()?;
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
