//! `acequia check`: says every mistake of a configuration, and what of it can never match or is never used.

use std::fs::File;
use std::path::Path;
use std::process::ExitCode;

use super::terminal::{complain, say};
use crate::app::exposed;
use crate::config;
use crate::config::report::{Report, counted};
use crate::plan::Plan;
use crate::text::escape;

/// Checks the file named, else the one that `run` would find. Errors and warnings go to standard error; only
/// errors make it fail, with exit code 1.
#[must_use]
pub fn run(named: Option<&Path>) -> ExitCode {
    match check(named) {
        Ok(line) => say(&line),
        Err(report) => {
            report.print_to_stderr();
            ExitCode::from(1)
        }
    }
}

fn check(named: Option<&Path>) -> Result<String, Report> {
    let path = config::find(named)?;
    let loaded = config::load(&path)?;
    loaded.warnings.print_to_stderr();
    tell_of_files(&loaded.plan);
    Ok(summary(&path, &loaded.plan))
}

/// A warning for each file it names that cannot be read here and now, so that `run` would not start, and for each that
/// others may use too.
fn tell_of_files(plan: &Plan) {
    let unreadable = plan.files().into_iter().filter_map(|(key, path)| {
        let error = File::open(path).err()?;
        Some(format!(
            "{key}: cannot read {}: {error}",
            escape(&path.to_string_lossy(), &[])
        ))
    });
    for warning in unreadable.chain(exposed(plan)) {
        complain("warning", &warning);
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
    fn one_line_says_what_is_there() {
        let text = "[listeners.a]\nbind = \"[::1]:1\"\npool = \"p\"\n[pools.p]\nservers = [\"a.b:1\", \"10.0.0.1:1\"]";
        let plan = config::read("a.toml", text).expect("no mistake in it").plan;
        assert_eq!(
            summary(Path::new("a.toml"), &plan),
            "a.toml: 1 listener, 1 pool, 2 servers: fine\n"
        );
    }
}
