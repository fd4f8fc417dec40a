//! Orders certificates by ACME: those that are missing or due, one at a time. In between, asks the ACME servers when
//! to renew.

mod suggestions;
mod states;

use std::collections::HashSet;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use self::states::{LatestOrder, LatestOrders, states};
use self::suggestions::Suggestions;
use super::failure::{Failure, system, with_remedy};
use super::files::key_file_warning;
use crate::account::Metrics;
use crate::acme::{
    AcmeError, AcmePlan, Attempts, Challenges, RenewalReason, RenewalState, Renewals, back_off, issue,
    pause_after_issue,
};
use crate::admin::Admin;
use crate::blocking::blocking;
use crate::error::{chain, with_context};
use crate::live::{InForce, Live};
use crate::plan::Plan;
use crate::regular_file;
use crate::reload::reload_tls;
use crate::tls::{AcmeCertificate, Certificate, parse_certificate};

/// The longest wait between two looks for orders that are due. It is bounded because the system's clock may be set.
const LOOK_INTERVAL: Duration = Duration::from_secs(3600);

/// The most that is usually written after an order: a chain with its key, the account and the failed attempts.
const ROOM_BYTES: usize = 32 << 10;

/// Makes the directories of accounts; only this user may read them. Returns warnings about account keys that other
/// users may read or write, and about directories in which nothing can be written at the moment, for example because
/// the disk is full: the certificates in them can still be served.
///
/// # Errors
/// A directory cannot be made, or we may not write in it.
pub(super) fn make_directories(plan: &Plan) -> Result<Vec<String>, Failure> {
    let mut warnings = Vec::new();
    for account in &plan.acme {
        let directory = &account.state_dir;
        let made = make_directory(directory).and_then(|()| match regular_file::check_room(directory, ROOM_BYTES) {
            // A full disk, for example, may have room later. Permissions must be corrected.
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
                warnings.push(format!(
                    "{}: not writable, so no certificate is ordered: {error}",
                    directory.display()
                ));
                Ok(())
            }
            probed => probed,
        });
        made.map_err(|error| cannot_use(directory, error))?;
        warnings.extend(key_file_warning(&account.account_file()));
    }
    Ok(warnings)
}

/// Checks whether the directory of an account could be made and used, without a change to it. An existing directory on
/// a read-only file system is no error: it causes only a warning, when acequia starts.
///
/// # Errors
/// As for [`make_directories`].
pub(super) fn check_directory(directory: &Path) -> Result<(), Failure> {
    match regular_file::check_directory(directory) {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem && directory.exists() => Ok(()),
        checked => checked.map_err(|error| cannot_use(directory, error)),
    }
}

fn cannot_use(directory: &Path, error: io::Error) -> Failure {
    let error = with_context(error, directory.display().to_string());
    system("cannot use `state_dir` of [acme]")(with_remedy(error))
}

fn make_directory(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// The task that orders the certificates.
pub(super) struct AcmeOrders {
    live: Arc<Live>,
    metrics: Arc<Metrics>,
    challenges: Arc<Challenges>,
    renewals: Arc<Renewals>,
    latest: LatestOrders,
    suggestions: Suggestions,
}

impl AcmeOrders {
    /// The task for this process. `challenges`: those of the orders under way, which sessions answer.
    pub(super) fn new(admin: &Admin, challenges: Arc<Challenges>) -> Self {
        Self {
            live: Arc::clone(&admin.live),
            metrics: Arc::clone(&admin.metrics),
            renewals: Arc::clone(&admin.renewals),
            challenges,
            latest: LatestOrders::new(),
            suggestions: Suggestions::default(),
        }
    }

    /// Orders the certificates that are missing, due or requested, until this future is dropped.
    pub(super) async fn run(mut self) {
        let mut changes = self.live.subscribe();
        // The files of the requested certificates that are not ordered yet.
        let mut requests = HashSet::new();
        loop {
            let in_force = Arc::clone(&changes.borrow_and_update());
            requests.extend(self.renewals.take_requests());
            let mut states = spawn_blocking({
                let (in_force, latest, suggestions) =
                    (Arc::clone(&in_force), self.latest.clone(), self.suggestions.clone());
                move || states(&in_force, &latest, &suggestions)
            })
            .await
            .unwrap_or_default();
            for state in &mut states {
                if requests.contains(&state.wanted.file) {
                    (state.next, state.reason) = (UNIX_EPOCH, RenewalReason::Requested);
                }
            }
            let now = SystemTime::now();
            let first = states.iter_mut().min_by_key(|state| state.next);
            let next = first.as_ref().map(|first| first.next);
            let due = first.filter(|first| first.next <= now).map(|due| {
                due.is_under_way = true;
                due.clone()
            });
            requests.retain(|file| states.iter().any(|state| state.wanted.file == *file)); // still configured
            self.renewals.publish(states);
            if let Some(due) = due {
                requests.remove(&due.wanted.file);
                self.order(&in_force, due).await;
                continue;
            }
            let wait = next.map_or(LOOK_INTERVAL, |next| next.duration_since(now).unwrap_or_default());
            let states = self.renewals.state();
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = self.renewals.wait_for_request() => {}
                () = self.suggestions.poll(&in_force.plan.acme, &states) => {}
                () = sleep(wait.min(LOOK_INTERVAL)) => {}
            }
        }
    }

    /// Makes an order, logs the result, and keeps it: in memory, and failures also in `state_dir`. Puts an issued
    /// certificate in force.
    async fn order(&mut self, in_force: &Arc<InForce>, state: RenewalState) {
        let wanted = &state.wanted;
        let (name, acme) = (wanted.name(), &*wanted.acme);
        let Some(plan) = in_force.plan.acme.iter().find(|plan| plan.name == wanted.acme) else {
            return;
        };
        tracing::info!(name, acme, "ordering a certificate");
        let issued = self.issue_and_keep(plan, &state).await;
        self.renewals.count(name, issued.is_ok());
        let (latest, failed) = match issued {
            Ok(certificate) => {
                tracing::info!(name, acme, file = %wanted.file.display(), "certificate issued");
                let issued = LatestOrder::Issued {
                    names: Arc::clone(&wanted.names),
                    until: Instant::now() + pause_after_issue(certificate.not_before, certificate.own_not_after),
                };
                (issued, None)
            }
            Err(error) => {
                let failed = Self::log_failure(wanted, &state, &error);
                (LatestOrder::Failed(failed.clone()), Some(failed))
            }
        };
        self.latest.insert(wanted.file.clone(), latest);
        let (directory, name) = (plan.state_dir.clone(), Box::<str>::from(name));
        // The plan may have been replaced by a reload during the order.
        let (in_force, metrics) = (self.live.in_force(), Arc::clone(&self.metrics));
        let recorded = spawn_blocking(move || {
            let mut all = Attempts::load(&directory);
            let is_issued = failed.is_none();
            match failed {
                Some(failed) => drop(all.insert(name, failed)),
                None => drop(all.remove(&name)),
            }
            if is_issued {
                reload_tls(&in_force.tls, &metrics);
            }
            Attempts::save(&all, &directory).map_err(|error| with_context(error, directory.display().to_string()))
        });
        if let Ok(Err(error)) = recorded.await {
            tracing::error!(error = %chain(&error), "cannot keep the failed attempts of ACME: a restart goes on with those that were kept before");
        }
    }

    /// Orders a certificate and keeps it. Orders nothing if the result could not be kept: servers limit how many
    /// certificates they issue.
    async fn issue_and_keep(&self, plan: &AcmePlan, state: &RenewalState) -> Result<Certificate, AcmeError> {
        let (wanted, directory) = (&state.wanted, plan.state_dir.clone());
        blocking(move || {
            let probed = make_directory(&directory).and_then(|()| regular_file::check_room(&directory, ROOM_BYTES));
            probed.map_err(|error| with_context(error, format!("nothing can be written in {}", directory.display())))
        })
        .await?;
        let text = issue(plan, &wanted.names, state.identifier.clone(), &self.challenges).await?;
        keep(wanted.file.clone(), text).await
    }

    /// Logs that an attempt has failed. Returns the attempts so far, to be kept.
    fn log_failure(wanted: &AcmeCertificate, state: &RenewalState, error: &AcmeError) -> Attempts {
        let now = SystemTime::now();
        let retry_after = error.retry_after(now);
        let failures = state
            .failed
            .as_ref()
            .map_or(0, |failed| failed.failures)
            .saturating_add(1);
        let pause = back_off(failures, retry_after, fastrand::f64());
        let error = error.text();
        let next = (now + pause).duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        tracing::error!(
            name = wanted.name(),
            acme = &*wanted.acme,
            error,
            failures,
            next_attempt_in = pause.as_secs(),
            "no new certificate: the one in use stays in use"
        );
        Attempts {
            failures,
            next,
            pause: pause.as_secs(),
            error,
        }
    }
}

/// Checks a new chain with its key, and writes it to its file.
async fn keep(file: PathBuf, text: zeroize::Zeroizing<String>) -> Result<Certificate, AcmeError> {
    blocking(move || {
        let certificate = parse_certificate(&file, text.as_bytes())?;
        regular_file::replace(&file, text.as_bytes()).map_err(|error| {
            with_context(
                error,
                format!("a certificate was issued, but cannot be kept in {}", file.display()),
            )
        })?;
        Ok(certificate)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn an_account_file_that_others_may_read_or_write_causes_a_warning() {
        let directory = tempfile::tempdir().unwrap();
        let text = format!(
            "[acme.a]\ndirectory = \"https://127.0.0.1:1/dir\"\nstate_dir = {:?}\n\
             [listeners.l]\nbind = \"[::1]:1\"\npool = \"p\"\n[pools.p]\nservers = [\"127.0.0.1:9\"]\n",
            directory.path()
        );
        let plan = crate::config::read("a.toml", &text).ok().unwrap().plan;
        assert_eq!(make_directories(&plan).unwrap(), [""; 0]);
        let file = directory.path().join("account.json");
        std::fs::write(&file, "{}").unwrap();
        for (mode, warnings) in [(0o600, 0), (0o644, 1), (0o620, 1)] {
            std::fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            assert_eq!(make_directories(&plan).unwrap().len(), warnings, "{mode:o}");
        }
    }
}
