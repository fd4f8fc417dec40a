//! Another configuration in place of the one in force, without a session noticing.
//!
//! First all that may fail or wait: read, check, ask where new names are, open, bind, listen. Then the change itself,
//! which cannot.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio::task::spawn_blocking;
use tokio_util::task::AbortOnDropHandle;

use super::gates::Listening;
use super::{Failure, House, readable, watch};
use crate::account::access_log::Output;
use crate::config::{self, Loaded};
use crate::drain::Drain;
use crate::plan::{LogPlan, Plan};
use crate::reload::{Changes, Inventory, ReloadError};

/// Where the access log goes from now on, unless that stays.
type Elsewhere = Option<Option<Output>>;

impl House {
    /// Reads the configuration again; if it is right and all it asks for can be had it is in force when this returns.
    /// `by`: who wants it.
    pub(super) async fn reload(&mut self, by: &str, drain: &Drain) -> Result<Changes, ReloadError> {
        let reloaded = self.try_reload(drain).await;
        self.admin.metrics.reloaded(reloaded.is_ok());
        self.admin.reloader.over(by, reloaded.is_ok());
        match &reloaded {
            Ok(changes) => {
                let Changes {
                    listeners,
                    servers,
                    needs_restart,
                    ..
                } = changes;
                let of = |difference: &crate::reload::Difference| {
                    format!("+{} -{}", difference.added.len(), difference.removed.len())
                };
                tracing::info!(
                    by,
                    listeners = of(listeners),
                    servers = of(servers),
                    ?needs_restart,
                    "reloaded"
                );
                if !changes.warnings.is_empty() {
                    tracing::warn!("{}", changes.warnings);
                }
            }
            Err(error) => tracing::error!(by, %error, "not reloaded: the configuration before it stays in force"),
        }
        reloaded
    }

    async fn try_reload(&mut self, drain: &Drain) -> Result<Changes, ReloadError> {
        let file = self.origin.file.clone().ok_or(ReloadError::NoFile)?;
        // The only places that wait: whoever gives up here has changed nothing.
        let loaded = read(file).await?;
        self.health
            .resolve_new_names(&loaded.plan, &self.running.live.plan())
            .await;
        let text = loaded.text().to_owned();
        let Loaded { plan, warnings } = loaded;
        let system = |failure: Failure| ReloadError::System(failure.to_string());
        let elsewhere = self.open_log(&plan.log).map_err(system)?;
        let mut failed = Vec::new();
        let bound = self.gates.bind(&plan, &mut failed);
        if !failed.is_empty() {
            return Err(system(Failure::Bind(failed)));
        }
        let listening = self.gates.listen(bound).map_err(system)?;
        Ok(Changes {
            warnings: warnings.to_string(),
            ..self.put_in_force(plan, text, listening, elsewhere, drain)
        })
    }

    /// Nothing in here can fail, and nothing waits: whoever looks sees the one plan or the other.
    fn put_in_force(
        &mut self,
        plan: Plan,
        text: String,
        listening: Listening,
        elsewhere: Elsewhere,
        drain: &Drain,
    ) -> Changes {
        let live = Arc::clone(&self.running.live);
        let old = live.plan();
        let before = Inventory::of(&old);
        live.settle(&plan);
        let addresses = self.gates.open(&plan, listening, drain);
        let plan = live.swap(plan);
        self.admin.addresses.store(Arc::new(addresses));
        self.admin
            .metrics
            .keep_pools(|name| plan.pools.iter().any(|pool| **pool.pool.name() == *name));
        let budget = self.reckoning.budget(&plan, self.gates.len());
        self.gates.room.resize(Some(budget.sessions));
        self.gates.hello_memory.resize(plan.runtime.hello_bytes_max);
        self.health.adopt(&plan, budget.checks, budget.lookups);
        self.relog(&old.log, &plan.log, elsewhere);
        self.watch(plan.runtime.watch.then_some(text));
        Changes {
            needs_restart: self.needs_restart(&plan),
            ..before.changes(&Inventory::of(&plan))
        }
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
        self.log.take_visits(new.level >= tracing::Level::DEBUG);
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

/// Reads the file, and looks at those it names, where that keeps nobody waiting.
async fn read(file: PathBuf) -> Result<Loaded, ReloadError> {
    let loaded = spawn_blocking(move || {
        let loaded = config::load(&file).map_err(|report| ReloadError::Configuration(report.to_string()))?;
        readable(&loaded.plan).map_err(|failure| ReloadError::System(failure.to_string()))?;
        Ok(loaded)
    });
    loaded
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
