//! Orders certificates by ACME: those that are missing or due, one at a time.

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::failure::Failure;
use crate::account::Metrics;
use crate::acme::{AcmeError, AcmePlan, Attempts, Challenges, RenewalState, Renewals, back_off, issue, renewal_time};
use crate::admin::Admin;
use crate::error::{chain, with_context};
use crate::live::{InForce, Live};
use crate::plan::Plan;
use crate::regular_file;
use crate::reload::reload_tls;
use crate::text::escape;
use crate::tls::{AcmeSource, Certificate, CertificateSource, check_certificate};

/// The longest time between two looks at what is due: clocks may be set.
const LOOK_INTERVAL: Duration = Duration::from_secs(3600);

/// The longest text of an error that is kept and shown, in characters. Servers choose it.
const ERROR_CHARS_MAX: usize = 512;

/// Makes the folders of accounts, which only this user may read.
///
/// # Errors
/// One cannot be made, or nothing can be written in it.
pub(super) fn make_folders(plan: &Plan) -> Result<(), Failure> {
    let make = |account: &AcmePlan| {
        let folder = &account.state_dir;
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.and_then(|()| tempfile::tempfile_in(folder).map(drop))
            .map_err(|error| with_context(error, folder.display().to_string()))
    };
    let mut made = plan.acme.iter().map(make);
    made.try_for_each(|made: io::Result<()>| made.map_err(super::failure::system("cannot use `state_dir` of [acme]")))
}

/// What orders are made with.
pub(super) struct AcmeOrders {
    live: Arc<Live>,
    metrics: Arc<Metrics>,
    challenges: Arc<Challenges>,
    renewals: Arc<Renewals>,
}

impl AcmeOrders {
    /// Orders for what is in force there. `challenges` are those that sessions answer.
    pub(super) fn new(admin: &Admin, challenges: Arc<Challenges>) -> Self {
        Self {
            live: Arc::clone(&admin.live),
            metrics: Arc::clone(&admin.metrics),
            renewals: Arc::clone(&admin.renewals),
            challenges,
        }
    }

    /// Orders what is missing, due or requested, until it is dropped.
    pub(super) async fn run(self) {
        let mut changes = self.live.subscribe();
        loop {
            let in_force = Arc::clone(&changes.borrow_and_update());
            let requests = self.renewals.take_requests();
            let mut states = spawn_blocking({
                let in_force = Arc::clone(&in_force);
                move || states(&in_force)
            })
            .await
            .unwrap_or_default();
            for state in &mut states {
                if requests.iter().any(|name| **name == *state.wanted.name()) {
                    state.next = UNIX_EPOCH;
                }
            }
            let now = SystemTime::now();
            let first = (0..states.len()).min_by_key(|index| states[*index].next);
            let due = first.filter(|first| states[*first].next <= now);
            if let Some(due) = due {
                states[due].is_under_way = true;
            }
            let next = first.map(|first| states[first].next);
            let ordered = due.map(|due| states[due].clone());
            self.renewals.publish(states);
            if let Some(state) = ordered {
                self.order(&in_force, state).await;
                continue;
            }
            let wait = next.map_or(LOOK_INTERVAL, |next| next.duration_since(now).unwrap_or_default());
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = self.renewals.requested() => {}
                () = sleep(wait.min(LOOK_INTERVAL)) => {}
            }
        }
    }

    async fn order(&self, in_force: &Arc<InForce>, state: RenewalState) {
        let wanted = &state.wanted;
        let (name, acme) = (wanted.name(), &*wanted.acme);
        let Some(plan) = in_force.plan.acme.iter().find(|plan| plan.name == wanted.acme) else {
            return;
        };
        tracing::info!(name, acme, "ordering a certificate");
        let issued = match issue(plan, &wanted.names, &self.challenges).await {
            Ok(text) => keep(wanted.file.clone(), text).await,
            Err(error) => Err(error),
        };
        self.renewals.count(name, issued.is_ok());
        let failed = match issued {
            Ok(()) => {
                tracing::info!(name, acme, file = %wanted.file.display(), "certificate issued");
                None
            }
            Err(error) => Some(Self::failed(wanted, &state, &error)),
        };
        let (folder, name) = (plan.state_dir.clone(), Box::<str>::from(name));
        let (in_force, metrics) = (Arc::clone(in_force), Arc::clone(&self.metrics));
        let recorded = spawn_blocking(move || {
            let mut all = Attempts::load(&folder);
            let is_issued = failed.is_none();
            match failed {
                Some(failed) => drop(all.insert(name, failed)),
                None => drop(all.remove(&name)),
            }
            if is_issued {
                reload_tls(&in_force.tls, &metrics);
            }
            Attempts::save(&all, &folder).map_err(|error| with_context(error, folder.display().to_string()))
        });
        if let Ok(Err(error)) = recorded.await {
            tracing::error!(error = %chain(&error), "cannot keep the failed attempts of ACME");
            sleep(Duration::from_secs(60)).await; // without it, the next attempt would be made at once
        }
    }

    /// Logs that an attempt has failed. Returns what is kept of it.
    fn failed(wanted: &AcmeSource, state: &RenewalState, error: &AcmeError) -> Attempts {
        let retry_after = match error {
            AcmeError::Server { retry_after, .. } => *retry_after,
            _ => None,
        };
        let now = SystemTime::now();
        let retry_after = retry_after.and_then(|at| at.duration_since(now).ok());
        let failures = state
            .failed
            .as_ref()
            .map_or(0, |failed| failed.failures)
            .saturating_add(1);
        let pause = back_off(failures, retry_after, fastrand::f64());
        let error = escape(&chain(error), &[])
            .chars()
            .take(ERROR_CHARS_MAX)
            .collect::<String>();
        let next = (now + pause).duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        tracing::error!(
            name = wanted.name(),
            acme = &*wanted.acme,
            error,
            failures,
            next_attempt_in = pause.as_secs(),
            "no certificate issued: what was in use before stays in use"
        );
        Attempts { failures, next, error }
    }
}

/// Writes a new chain with its key, if it is valid.
async fn keep(file: PathBuf, text: zeroize::Zeroizing<String>) -> Result<(), AcmeError> {
    let kept = spawn_blocking(move || {
        check_certificate(&file, text.as_bytes())?;
        regular_file::replace(&file, text.as_bytes())
            .map_err(|error| with_context(error, file.display().to_string()).into())
    });
    kept.await.unwrap_or_else(|lost| Err(io::Error::other(lost).into()))
}

/// The state of every certificate that the plan in force asks for.
fn states(in_force: &InForce) -> Vec<RenewalState> {
    let mut attempts = BTreeMap::new();
    for account in &in_force.plan.acme {
        attempts.insert(&account.name, Attempts::load(&account.state_dir));
    }
    let mut states = Vec::<RenewalState>::new();
    for listener in &in_force.plan.listeners {
        let sources = listener.tls.iter().flat_map(|tls| &tls.certificates);
        for source in sources {
            let CertificateSource::Acme(wanted) = source else {
                continue;
            };
            if states.iter().any(|state| state.wanted.file == wanted.file) {
                continue;
            }
            let store = in_force.tls.listeners.get(&listener.name).map(|tls| tls.certificates());
            let current = store.and_then(|store| store.all().iter().find(|known| known.path() == wanted.file).cloned());
            let failed = attempts.get(&wanted.acme).and_then(|of| of.get(wanted.name())).cloned();
            let due = current.map_or(UNIX_EPOCH, |current| due(&current, wanted));
            let next = failed.as_ref().map_or(due, |failed| due.max(failed.next_time()));
            states.push(RenewalState {
                wanted: wanted.clone(),
                next,
                failed,
                is_under_way: false,
            });
        }
    }
    states
}

/// When a certificate is to be replaced: at once if it is not one for these names.
fn due(current: &Certificate, wanted: &AcmeSource) -> SystemTime {
    if current.stands_in || current.count_names(&wanted.names) < wanted.names.len() {
        return UNIX_EPOCH;
    }
    // The same at each look, and another for each certificate.
    let seed = xxhash_rust::xxh3::xxh3_64_with_seed(wanted.name().as_bytes(), current.not_before.cast_unsigned());
    let jitter = fastrand::Rng::with_seed(seed).f64();
    renewal_time(current.not_before, current.not_after, jitter)
}
