//! `acequia check`: prints the errors of a configuration, and warns of parts that have no effect.

mod live;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;

use super::configuration;
use super::exit::{self, EXIT_CONFIG, EXIT_RUN};
use super::terminal::{print, print_json, print_message};
use crate::app::{self, Failure, file_warnings, load_tls, tls_warnings};
use crate::config::report::Report;
use crate::config::{self, Loaded};
use crate::discover::listed_now;
use crate::error::chain;
use crate::plan::Plan;
use crate::reload::GuardNetworks;
use crate::text::{counted, escape};
use crate::user;

/// How the result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CheckFormat {
    /// For people: errors and warnings on standard error, a summary on standard output.
    Text,
    /// For programs: one object on standard output.
    Json,
}

/// What is checked besides the text of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckScope {
    /// Nothing.
    WithoutFiles,
    /// The files that the configuration names.
    Files,
    /// These files, and the servers.
    Live,
}

/// The user of the package's systemd unit.
const SERVICE_USER: &str = "acequia";

/// The configuration file of that unit.
const SERVICE_FILE: &str = "/etc/acequia/acequia.toml";

/// Directories that systemd creates before it starts the unit: `StateDirectory` and `LogsDirectory`.
const SERVICE_DIRECTORIES: [&str; 2] = ["/var/lib/acequia", "/var/log/acequia"];

/// Checks the file at `path`; `None`: the one that `acequia run` would find. Only errors make it fail. For errors that
/// would prevent `acequia run` from starting, the exit code is that of `acequia run`. The servers are tried only if the
/// scope includes them and no error was found in the files that are read.
#[must_use]
pub fn run(path: Option<&Path>, format: CheckFormat, scope: CheckScope) -> ExitCode {
    let (path, Loaded { plan, warnings }) = match load(path) {
        Ok(loaded) => loaded,
        Err(report) => {
            print_problems(&report, &[], format);
            return exit::for_report(&report);
        }
    };
    let (counts, networks) = (counts(&path, &plan), guard_networks(&plan));
    let (mut found, mut unwritable) = (Vec::new(), Vec::new());
    if scope != CheckScope::WithoutFiles {
        found = check_read_files(&plan);
        unwritable = check_written_files(&path, &plan);
    }
    let mut servers = None;
    if scope == CheckScope::Live && exit_code(&found).is_none() {
        let (text, problems) = live::try_out(plan);
        found.extend(problems);
        servers = Some(text);
    }
    found.extend(unwritable);
    if scope != CheckScope::WithoutFiles {
        found.extend(check_as_service(&path, &found));
    }
    let mut printed = print_problems(&warnings, &found, format);
    let failed = exit_code(&found);
    let is_fine = failed.is_none();
    if format == CheckFormat::Text && scope == CheckScope::Files && failed == Some(EXIT_RUN) {
        print_message(
            "help",
            "to check a configuration of another machine, use --without-files",
        );
    }
    if format == CheckFormat::Text && (is_fine || servers.is_some()) {
        let end = if is_fine { " fine" } else { "" };
        let servers = servers.unwrap_or_default();
        printed = print(&format!("{counts}:{end}\n{networks}{servers}"));
    }
    failed.map_or(printed, ExitCode::from)
}

fn load(path: Option<&Path>) -> Result<(PathBuf, Loaded), Report> {
    let path = config::find(path)?;
    let loaded = configuration::load(&path)?;
    Ok((path, loaded))
}

/// The exit code for these problems; `None`: none of them is an error.
fn exit_code(found: &[Finding]) -> Option<u8> {
    found.iter().filter_map(|finding| finding.exit_code).max()
}

/// Prints the problems of the text, and those that were found beyond it. Returns a failure if the JSON cannot be
/// written.
fn print_problems(report: &Report, found: &[Finding], format: CheckFormat) -> ExitCode {
    match format {
        CheckFormat::Json => print_json(&json(report, found)),
        CheckFormat::Text => {
            report.print_to_stderr();
            for finding in found {
                print_message(finding.severity(), &finding.message);
            }
            ExitCode::SUCCESS
        }
    }
}

fn json(report: &Report, found: &[Finding]) -> String {
    let found_errors = found.iter().filter(|finding| finding.exit_code.is_some()).count();
    let errors = report.error_count() + found_errors;
    let warnings = report.warning_count() + found.len() - found_errors;
    let mut problems = report.to_json();
    problems.extend(
        found
            .iter()
            .map(|finding| serde_json::json!({ "severity": finding.severity(), "message": finding.message })),
    );
    serde_json::json!({ "valid": errors == 0, "errors": errors, "warnings": warnings, "problems": problems })
        .to_string()
}

/// If root runs this command, checks the service's file again as the user of the service. Warns of the problems that
/// only this user has, such as unreadable files. `found`: the problems that root has.
fn check_as_service(path: &Path, found: &[Finding]) -> Vec<Finding> {
    if !is_of_service(path) || !rustix::process::geteuid().is_root() {
        return Vec::new();
    }
    let findings = || match load(Some(path)) {
        Ok((_, Loaded { plan, .. })) => {
            let found = check_read_files(&plan).into_iter();
            let found = found.chain(check_written_files(path, &plan));
            found.map(|finding| finding.message).collect()
        }
        Err(report) => report.error_messages().map(str::to_owned).collect(),
    };
    // Without such a user, the service runs as another one.
    let messages: Vec<String> = user::run_as(SERVICE_USER, findings).unwrap_or_default();
    let is_new = |message: &String| found.iter().all(|finding| finding.message != *message);
    let new = messages.into_iter().filter(is_new);
    new.map(|message| Finding::warning(format!("the service runs as user {SERVICE_USER}: {message}")))
        .collect()
}

/// Whether this is the configuration file of the package's systemd unit.
fn is_of_service(path: &Path) -> bool {
    let full = |path: &Path| std::fs::canonicalize(path).ok();
    full(path).is_some_and(|file| full(Path::new(SERVICE_FILE)) == Some(file))
}

/// A problem of a file that the configuration names, or of a server.
struct Finding {
    /// The exit code for an error: that of `acequia run`, if the problem prevents it from starting. `None`: a warning.
    exit_code: Option<u8>,
    message: String,
}

impl Finding {
    fn severity(&self) -> &'static str {
        if self.exit_code.is_some() { "error" } else { "warning" }
    }

    /// The error with which `acequia run` would end.
    fn failure(failure: &Failure) -> Self {
        let is_configuration = failure.is_configuration();
        Self {
            exit_code: Some(if is_configuration { EXIT_CONFIG } else { EXIT_RUN }),
            message: escape(&chain(failure), &[]).into_owned(),
        }
    }

    fn error(message: String) -> Self {
        Self {
            exit_code: Some(EXIT_CONFIG),
            message,
        }
    }

    fn warning(message: String) -> Self {
        Self {
            exit_code: None,
            message,
        }
    }
}

/// Tries the files and directories that a start with this plan writes. `path`: the file that the plan was loaded from.
fn check_written_files(path: &Path, plan: &Plan) -> Vec<Finding> {
    let created = SERVICE_DIRECTORIES.map(Path::new);
    let created = if is_of_service(path) { &created[..] } else { &[] };
    app::unwritable(plan, created).iter().map(Finding::failure).collect()
}

/// Tries the files that the plan names. A file that cannot be read, so that `acequia run` would not start, is an error.
/// Warns of each file that is empty, or to which the group or others have too much access.
fn check_read_files(plan: &Plan) -> Vec<Finding> {
    let mut unreadable: Vec<Failure> = Vec::new();
    for failure in app::unreadable(plan) {
        // Several keys may name one file.
        if unreadable.iter().all(|other| other.file() != failure.file()) {
            unreadable.push(failure);
        }
    }
    let mut found: Vec<Finding> = unreadable.iter().map(Finding::failure).collect();
    found.extend(check_directories(plan));
    found.extend(file_warnings(plan).into_iter().map(Finding::warning));
    found.extend(check_lists(plan));
    found.extend(check_tls(plan, &unreadable));
    found
}

/// Warns of listeners whose Unix socket cannot be bound because its directory is missing or not accessible. The service
/// manager may create it, or pass the socket.
fn check_directories(plan: &Plan) -> impl Iterator<Item = Finding> {
    plan.listeners.iter().flat_map(|listener| {
        let sockets = listener.bind.iter().filter_map(|address| address.unix());
        sockets.filter_map(|socket| {
            let directory = socket.as_path().parent()?;
            let error = directory.metadata().err()?;
            let (directory, name) = (escape(&directory.to_string_lossy(), &[]).into_owned(), &listener.name);
            Some(Finding::warning(format!(
                "listeners.{name}.bind: no socket can be created in {directory} now: {error}"
            )))
        })
    })
}

/// Reads the files that list servers. Warns of each that is not usable now: the configuration may be for another
/// machine.
fn check_lists(plan: &Plan) -> impl Iterator<Item = Finding> {
    plan.pools.iter().filter_map(|pool| {
        let discover = pool.discover.as_ref()?;
        let error = listed_now(discover)?.err()?;
        let source = discover.source.to_string();
        let message = format!("pools.{}.discover: {}: {error}", pool.name, escape(&source, &[]));
        Some(Finding::warning(message))
    })
}

/// Reads the certificates and everything else that TLS needs. A file that cannot be used is an error. `unreadable`: the
/// files that are reported already.
fn check_tls(plan: &Plan, unreadable: &[Failure]) -> Vec<Finding> {
    let is_reported = |file: &Path| unreadable.iter().any(|failure| failure.file() == Some(file));
    match load_tls(plan, None) {
        Ok(tls) => {
            let warnings = tls_warnings(plan, &tls);
            // A warning quotes the path of its file.
            let is_new = |warning: &String| {
                let mut files = unreadable.iter().filter_map(Failure::file);
                !files.any(|file| warning.contains(&format!(" {}: ", file.display())))
            };
            let finding = |warning: String| Finding::warning(escape(&warning, &[]).into_owned());
            warnings.into_iter().filter(is_new).map(finding).collect()
        }
        Err(failures) => {
            let new = failures
                .iter()
                .filter(|failure| !failure.file().is_some_and(is_reported));
            new.map(Finding::failure).collect()
        }
    }
}

/// The beginning of the summary: the file, and how much is in it.
fn counts(path: &Path, plan: &Plan) -> String {
    let servers = plan.pools.iter().map(|pool| pool.entries.len()).sum();
    let remote = plan.remote.as_ref();
    let remote = remote.map_or_else(String::new, |remote| format!(" with {}", remote.location()));
    format!(
        "{}{remote}: {}, {}, {}",
        path.display(),
        counted(plan.listeners.len(), "listener"),
        counted(plan.pools.len(), "pool"),
        counted(servers, "server"),
    )
}

/// A line for each guard with lists of networks.
fn guard_networks(plan: &Plan) -> String {
    let networks = plan.guards.iter().map(|guard| GuardNetworks::new(guard));
    let with_lists = networks.filter(GuardNetworks::has_lists);
    with_lists.map(|networks| format!("{networks}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_errors_of_a_report_have_their_message() {
        let text = "[[guards]]\n[listeners.a]\nbind = 1\n[log]\nlevel = 2";
        let report = config::read("a.toml", text).expect_err("mistakes in it");
        assert!(report.error_count() > 1);
        assert_eq!(report.error_messages().count(), report.error_count());
    }

    #[test]
    fn the_summary_counts_listeners_pools_servers_and_networks_of_guards() {
        let text = "[listeners.a]\nbind = \"[::1]:1\"\npool = \"p\"\n[pools.p]\nservers = [\"a.b:1\", \"10.0.0.1:1\"]";
        let plan = config::read("a.toml", text).expect("no mistake in it").plan;
        assert_eq!(
            counts(Path::new("a.toml"), &plan),
            "a.toml: 1 listener, 1 pool, 2 servers"
        );
        let guards = "\n[guards.a]\nallow = [\"10.0.0.0/8\", \"10.1.0.0/16\"]\n[guards.b]\ndeny = \"10.2.0.0/16\"\n\
                      [guards.c]\nsessions = 5";
        let plan = config::read("a.toml", &format!("{text}{guards}"))
            .expect("no mistake in it")
            .plan;
        let expected = "guard a: 2 networks allowed, 0 denied\nguard b: 1 network denied\n";
        assert_eq!(guard_networks(&plan), expected);
    }
}
