//! Another configuration in place of the one in force, without a session noticing.
//!
//! First all that may fail or wait: read, check, ask where new names are, open, bind, listen. Then the change itself,
//! which cannot.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::task::AbortOnDropHandle;

use super::files::{exposed, readable};
use super::gates::Listening;
use super::{Failure, House, watch};
use crate::account::access_log::Output;
use crate::config::{self, Loaded};
use crate::drain::Drain;
use crate::plan::{LogPlan, Plan};
use crate::reload::{Changes, Difference, ReloadError};

/// Where the access log goes from now on, unless that stays.
type Elsewhere = Option<Option<Output>>;

/// Another plan, and all it needs to be put in force.
pub(super) struct Prepared {
    plan: Plan,
    /// What it was read from, if the file is to be watched.
    text: Option<String>,
    changes: Changes,
    listening: Listening,
    elsewhere: Elsewhere,
}

/// How long a plan is kept after another one was put in force. Workers and sessions that go by it still let go of it by
/// then, so that it is not for them to drop what may be very much.
const RETIREMENT: Duration = Duration::from_secs(1);

impl House {
    /// Ends a reload: if the configuration is right, and all it asks for could be had, it is in force when this returns.
    /// `by`: who wants it.
    pub(super) async fn reload(
        &mut self,
        by: &str,
        prepared: Result<Prepared, ReloadError>,
        drain: &Drain,
    ) -> Result<Changes, ReloadError> {
        let reloaded = match prepared {
            Ok(prepared) => Ok(self.put_in_force(prepared, drain).await),
            Err(error) => Err(error),
        };
        self.admin.metrics.record_reload(reloaded.is_ok());
        self.admin.reloader.over(by, reloaded.is_ok());
        match &reloaded {
            Ok(changes) => tell(by, changes),
            Err(error) => tracing::error!(by, %error, "not reloaded: the configuration before it stays in force"),
        }
        reloaded
    }

    /// Reads the configuration again, and does all that may fail or wait. Whoever gives up here has changed nothing. What
    /// takes long where there is much to configure is done in another thread.
    pub(super) async fn prepare(&mut self) -> Result<Prepared, ReloadError> {
        let file = self.origin.file.clone().ok_or(ReloadError::NoFile)?;
        let (loaded, warnings) = read(file).await?;
        self.health
            .resolve_new_names(&loaded.plan, &self.running.live.plan())
            .await;
        let text = loaded.plan.runtime.watch.then(|| loaded.text().to_owned());
        let system = |failure: Failure| ReloadError::System(failure.to_string());
        let elsewhere = self.open_log(&loaded.plan.log).map_err(system)?;
        let mut failed = Vec::new();
        let bound = self.gates.bind(&loaded.plan, &mut failed);
        if !failed.is_empty() {
            return Err(system(Failure::Bind(failed)));
        }
        let live = Arc::clone(&self.running.live);
        let settled = in_a_thread(move || {
            let Loaded { mut plan, .. } = loaded;
            live.settle(&mut plan);
            let changes = Changes::between(&live.plan(), &plan);
            Ok((plan, changes))
        });
        let (plan, changes) = settled.await?;
        let listening = self.gates.listen(bound).map_err(system)?;
        Ok(Prepared {
            changes: Changes {
                warnings,
                needs_restart: self.needs_restart(&plan),
                ..changes
            },
            plan,
            text,
            listening,
            elsewhere,
        })
    }

    /// Nothing in here can fail, and whoever looks sees the one plan or the other. It is not to be given up half way: the
    /// pools take their plans up by turns.
    async fn put_in_force(&mut self, prepared: Prepared, drain: &Drain) -> Changes {
        let Prepared {
            plan,
            text,
            changes,
            listening,
            elsewhere,
        } = prepared;
        let live = Arc::clone(&self.running.live);
        let old = live.plan();
        let addresses = self.gates.open(&plan, listening, drain);
        let plan = live.swap(plan);
        live.forget_absent();
        self.admin.addresses.store(Arc::new(addresses));
        self.admin
            .metrics
            .configure_pools(plan.pools.iter().map(|pool| pool.pool.name()));
        let budget = self.reckoning.budget(&plan, self.gates.len());
        self.gates.limits.resize_process(budget.sessions);
        self.gates.hello_memory.resize(plan.runtime.hello_bytes_max);
        self.health.set_limits(budget.checks, budget.lookups);
        self.health.adopt(&plan).await;
        self.relog(&old.log, &plan.log, elsewhere);
        self.watch(text);
        tokio::spawn(async move {
            sleep(RETIREMENT).await;
            let _ = spawn_blocking(move || drop(old)).await;
        });
        changes
    }

    /// Opens the access log where it is to go elsewhere.
    fn open_log(&self, next: &LogPlan) -> Result<Elsewhere, Failure> {
        let now = self.running.live.plan();
        if (&next.access, next.format) == (&now.log.access, now.log.format) {
            return Ok(None);
        }
        Output::open(&next.access).map(Some).map_err(Failure::AccessLog)
    }

    fn relog(&self, old: &LogPlan, new: &LogPlan, elsewhere: Elsewhere) {
        if let Some(output) = elsewhere {
            self.log.switch(output, new.format);
        }
        self.log
            .publish_logging_empty_sessions(new.level >= tracing::Level::DEBUG);
        if let (true, Some(relog)) = ((old.level, old.format) != (new.level, new.format), &self.origin.relog) {
            relog(new);
        }
    }

    /// Watches the file, which was read as this, or no more.
    pub(super) fn watch(&mut self, read_as: Option<String>) {
        self.watching = match (read_as, self.watching.take(), &self.origin.file) {
            (Some(_), Some(watching), _) => Some(watching),
            (Some(text), None, Some(file)) => {
                let watching = watch::keep(file.clone(), text, self.admin.reloader.clone());
                Some(AbortOnDropHandle::new(tokio::spawn(watching)))
            }
            _ => None,
        };
    }

    /// What of a plan cannot be changed while we run, and differs from what we run with.
    fn needs_restart(&self, plan: &Plan) -> Vec<String> {
        let started = &self.started;
        let differs = [
            ("runtime.workers", plan.runtime.workers != started.workers),
            ("admin.bind", plan.admin.bind != started.admin.bind),
            ("admin.socket", plan.admin.socket != started.admin.socket),
        ];
        differs
            .into_iter()
            .filter(|(_, differs)| *differs)
            .map(|(key, _)| key.to_owned())
            .collect()
    }
}

/// Tells the log what a reload changed.
fn tell(by: &str, changes: &Changes) {
    let of = |difference: &Difference| format!("+{} -{}", difference.added.len(), difference.removed.len());
    tracing::info!(
        by,
        listeners = of(&changes.listeners),
        servers = of(&changes.servers),
        changed = changes.changed().join("; "),
        needs_restart = ?changes.needs_restart,
        "reloaded"
    );
    if !changes.warnings.is_empty() {
        tracing::warn!("{}", changes.warnings);
    }
}

/// Reads the file, and looks at those it names, where that keeps nobody waiting; with the warnings as they are shown:
/// those of the file, and which of the others may be used by too many.
async fn read(file: PathBuf) -> Result<(Loaded, String), ReloadError> {
    in_a_thread(move || {
        let loaded = config::load(&file).map_err(|report| ReloadError::Configuration(report.to_string()))?;
        readable(&loaded.plan).map_err(|failure| ReloadError::System(failure.to_string()))?;
        let of_the_file = Some(loaded.warnings.to_string()).filter(|warnings| !warnings.is_empty());
        let warnings: Vec<_> = of_the_file.into_iter().chain(exposed(&loaded.plan)).collect();
        Ok((loaded, warnings.join("\n")))
    })
    .await
}

/// Does this in another thread.
async fn in_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReloadError> + Send + 'static,
) -> Result<T, ReloadError> {
    spawn_blocking(work)
        .await
        .unwrap_or_else(|lost| Err(ReloadError::System(lost.to_string())))
}

impl House {
    /// The end has begun: nobody is ready any more, and nothing reloads.
    pub(super) fn begin_to_end(&mut self) {
        self.requests.close();
        self.watch(None);
        self.admin.is_draining.store(true, Relaxed);
    }
}
