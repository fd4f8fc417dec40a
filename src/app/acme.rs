//! Orders certificates by ACME: those that are missing or due, one at a time.

use std::collections::{BTreeMap, HashMap};
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::failure::Failure;
use crate::account::Metrics;
use crate::acme::{
    AcmeError, AcmePlan, Attempts, Challenges, RenewalState, Renewals, back_off, issue, pause_after_issue, renewal_time,
};
use crate::admin::Admin;
use crate::error::{chain, with_context};
use crate::live::{InForce, Live};
use crate::name::ServerName;
use crate::plan::Plan;
use crate::regular_file;
use crate::reload::reload_tls;
use crate::text::escape;
use crate::tls::{AcmeSource, Certificate, CertificateSource, read_certificate};

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
    latest: LatestOrders,
}

/// The latest order for each certificate, by its file, as this process knows it: also where the attempts cannot be written.
type LatestOrders = HashMap<PathBuf, LatestOrder>;

#[derive(Clone, Debug)]
enum LatestOrder {
    Failed(Attempts),
    /// For another certificate of these names there is a pause.
    Issued {
        names: Arc<[ServerName]>,
        until: Instant,
    },
}

impl AcmeOrders {
    /// Orders for what is in force there. `challenges` are those that sessions answer.
    pub(super) fn new(admin: &Admin, challenges: Arc<Challenges>) -> Self {
        Self {
            live: Arc::clone(&admin.live),
            metrics: Arc::clone(&admin.metrics),
            renewals: Arc::clone(&admin.renewals),
            challenges,
            latest: LatestOrders::new(),
        }
    }

    /// Orders what is missing, due or requested, until it is dropped.
    pub(super) async fn run(mut self) {
        let mut changes = self.live.subscribe();
        loop {
            let in_force = Arc::clone(&changes.borrow_and_update());
            let requests = self.renewals.take_requests();
            let mut states = spawn_blocking({
                let (in_force, latest) = (Arc::clone(&in_force), self.latest.clone());
                move || states(&in_force, &latest)
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

    async fn order(&mut self, in_force: &Arc<InForce>, state: RenewalState) {
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
                let failed = Self::failed(wanted, &state, &error);
                (LatestOrder::Failed(failed.clone()), Some(failed))
            }
        };
        self.latest.insert(wanted.file.clone(), latest);
        let (folder, name) = (plan.state_dir.clone(), Box::<str>::from(name));
        // What is in force now: a reload may have changed it during the order.
        let (in_force, metrics) = (self.live.in_force(), Arc::clone(&self.metrics));
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
            tracing::error!(error = %chain(&error), "cannot keep the failed attempts of ACME: a restart forgets them");
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
async fn keep(file: PathBuf, text: zeroize::Zeroizing<String>) -> Result<Certificate, AcmeError> {
    let kept = spawn_blocking(move || {
        let certificate = read_certificate(&file, text.as_bytes())?;
        regular_file::replace(&file, text.as_bytes())
            .map_err(|error| with_context(error, file.display().to_string()))?;
        Ok(certificate)
    });
    kept.await.unwrap_or_else(|lost| Err(io::Error::other(lost).into()))
}

/// The state of every certificate that the plan in force asks for.
fn states(in_force: &InForce, latest: &LatestOrders) -> Vec<RenewalState> {
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
            let kept = attempts.get(&wanted.acme).and_then(|of| of.get(wanted.name()));
            let due = current.map_or(UNIX_EPOCH, |current| due(&current, wanted));
            states.push(state(wanted, due, kept, latest.get(&wanted.file)));
        }
    }
    states
}

/// The state of a certificate that is `due` then. The latest order of this process counts, otherwise the attempts that were
/// `kept`.
fn state(wanted: &AcmeSource, due: SystemTime, kept: Option<&Attempts>, latest: Option<&LatestOrder>) -> RenewalState {
    let (failed, not_before) = match latest {
        Some(LatestOrder::Failed(failed)) => (Some(failed), failed.next_time()),
        Some(LatestOrder::Issued { names, until }) if *names == wanted.names => (
            None,
            SystemTime::now() + until.saturating_duration_since(Instant::now()),
        ),
        Some(LatestOrder::Issued { .. }) => (None, UNIX_EPOCH),
        None => (kept, kept.map_or(UNIX_EPOCH, Attempts::next_time)),
    };
    RenewalState {
        wanted: wanted.clone(),
        next: due.max(not_before),
        failed: failed.cloned(),
        is_under_way: false,
    }
}

/// When a certificate is to be replaced: at once if it is not one for these names. Its chain does not count: another one would
/// have the same.
fn due(current: &Certificate, wanted: &AcmeSource) -> SystemTime {
    if current.stands_in || current.count_names(&wanted.names) < wanted.names.len() {
        return UNIX_EPOCH;
    }
    // The same at each look, and another for each certificate.
    let seed = xxhash_rust::xxh3::xxh3_64_with_seed(wanted.name().as_bytes(), current.not_before.cast_unsigned());
    let jitter = fastrand::Rng::with_seed(seed).f64();
    renewal_time(current.not_before, current.own_not_after, jitter)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    fn wanted(names: &[&str]) -> AcmeSource {
        let names = names.iter().map(|name| ServerName::from_config(name).unwrap());
        AcmeSource {
            acme: "ca".into(),
            names: names.collect(),
            file: "/state/a.example.pem".into(),
        }
    }

    /// A server may issue what is due at once: because our clock is ahead, or without one of the names.
    #[test]
    fn a_certificate_that_is_due_when_it_is_issued_is_ordered_again_after_a_pause_only() {
        let (one, other) = (wanted(&["a.example"]), wanted(&["a.example", "b.example"]));
        let issued = LatestOrder::Issued {
            names: Arc::clone(&one.names),
            until: Instant::now() + DAY,
        };
        let next = |wanted: &AcmeSource| state(wanted, UNIX_EPOCH, None, Some(&issued)).next;
        assert!(next(&one) > SystemTime::now() + DAY / 2);
        assert_eq!(next(&other), UNIX_EPOCH, "other names do not wait");
        let late = SystemTime::now() + 60 * DAY;
        assert_eq!(state(&one, late, None, Some(&issued)).next, late);
    }

    #[test]
    fn attempts_of_this_process_count_before_those_that_were_kept() {
        let one = wanted(&["a.example"]);
        let attempts = |failures, next| Attempts {
            failures,
            next,
            error: String::new(),
        };
        let (kept, failed) = (attempts(1, 1_000), LatestOrder::Failed(attempts(2, 2_000)));
        let of = |latest| {
            let state = state(&one, UNIX_EPOCH, Some(&kept), latest);
            (
                state.failed.map(|failed| failed.failures),
                state.next.duration_since(UNIX_EPOCH).unwrap().as_secs(),
            )
        };
        assert_eq!(of(None), (Some(1), 1_000));
        assert_eq!(of(Some(&failed)), (Some(2), 2_000));
    }

    #[test]
    fn a_certificate_is_due_by_its_own_end_whenever_its_chain_expires() {
        let (leaf, key) = issued_until(2090);
        let (chain, _) = issued_until(2020);
        let text = leaf + &chain + &key;
        let read = read_certificate("/state/a.example.pem".as_ref(), text.as_bytes()).unwrap();
        assert!(read.has_expired(), "one of its chain has");
        assert!(due(&read, &wanted(&["a.example"])) > SystemTime::now());
        assert_eq!(due(&read, &wanted(&["a.example", "b.example"])), UNIX_EPOCH);
    }

    /// A certificate from 2019 for a.example, and its key.
    fn issued_until(year: i32) -> (String, String) {
        let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }
}
