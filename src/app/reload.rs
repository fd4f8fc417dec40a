//! Replaces the configuration in force. Sessions go on, unless the new one has them cut (`on_down`, for example).
//!
//! [`App::prepare`] does everything that may fail or wait: read, check, resolve new names, open, bind, listen. Then
//! [`App::apply`] makes the change, which cannot fail.

use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use super::announced::log_refused;
use super::listen_sockets::NewlyListening;
use super::listener_tls::{broken_files, check_and_load};
use super::old_plan::drop_later;
use super::remote::{ReadConfiguration, for_store};
use super::{App, Failure, log_addresses, watch};
use crate::account::Metrics;
use crate::account::access_log::Output;
use crate::blocking::blocking;
use crate::config;
use crate::drain::Drain;
use crate::error::chain;
use crate::live::{InForce, LiveTls};
use crate::plan::{LogPlan, Plan, RemoteTexts};
use crate::reload::{Changes, Difference, ReloadError, edit_warnings};
use crate::remote::RefusedBy;
use crate::text::escape;

/// The next plan, and everything it needs to be put in force.
pub(super) struct Prepared {
    next: InForce,
    /// The plan without announced routes, if it accepts such routes; `next` is that plan with these routes.
    file_plan: Option<Arc<Plan>>,
    /// The text of the file, if the file is to be watched.
    text: Option<String>,
    changes: Changes,
    listening: NewlyListening,
    /// `None`: the output of the access log stays. `Some(None)`: the access log is switched off.
    access_log: Option<Option<Output>>,
    /// The texts of the store, if the plan is from a store.
    texts: Option<Arc<RemoteTexts>>,
}

impl App {
    /// The last step of a reload that `by` has requested: puts the next plan in force if it could be prepared, and
    /// reports the result.
    pub(super) fn finish_reload(
        &mut self,
        by: &str,
        prepared: Result<Prepared, ReloadError>,
        drain: &Drain,
    ) -> Result<Changes, ReloadError> {
        let reloaded = prepared.map(|prepared| self.apply(prepared, drain));
        if let Err(error) = &reloaded {
            let refused_by = match error {
                ReloadError::System(_) => RefusedBy::Machine,
                _ => RefusedBy::Configuration,
            };
            self.remote.refuse(&for_store(error), refused_by);
        }
        self.admin.metrics.record_reload(reloaded.is_ok());
        self.admin
            .reloader
            .record(by, reloaded.as_ref().err().map(|error| chain(error)));
        match &reloaded {
            Ok(changes) => log_changes(by, changes),
            Err(error) => {
                tracing::error!(by, error = %chain(error), "not reloaded: the current configuration stays in force")
            }
        }
        reloaded
    }

    /// Reads the configuration again, and does everything that may fail or wait. May be cancelled: it changes nothing
    /// that is in force, except that TLS files in use are read again if they have changed. Work that takes long with a
    /// large configuration is done in another thread.
    ///
    /// `just_read`: the texts of the store, if the request for the reload brings them.
    pub(super) async fn prepare(&mut self, just_read: Option<Arc<RemoteTexts>>) -> Result<Prepared, ReloadError> {
        self.remote.begin_attempt();
        let file = self.source.file.clone().ok_or(ReloadError::NoFile)?;
        let was_pipe = self.source.is_pipe;
        let load = move || config::load_again(&file, was_pipe).map_err(ReloadError::Configuration);
        let loaded_file = blocking(load).await?;
        let read = self.with_texts(loaded_file, just_read).await?;
        let (now, metrics) = (self.running.live.in_force(), Arc::clone(&self.admin.metrics));
        let (ReadConfiguration { loaded, texts, .. }, tls, warnings) = check(read, now, metrics).await?;
        let new_names = self.health.resolve_new_names(&loaded.plan).await;
        let text = loaded.plan.runtime.watch.then(|| loaded.text().to_owned());
        let system = |failure: Failure| ReloadError::System(failure.into());
        let access_log = self.open_access_log(&loaded.plan.log).map_err(system)?;
        let mut failed = Vec::new();
        let mut bound = self.sockets.bind(&loaded.plan, &mut failed);
        if !failed.is_empty() {
            return Err(system(Failure::Bind(failed)));
        }
        let live = Arc::clone(&self.running.live);
        let (plan, file_plan) = self.announced.added_to(loaded.plan);
        let prepared = blocking(move || {
            let next = live.prepare(plan, new_names);
            let changes = Changes::between(&live.in_force(), &next);
            Ok::<_, ReloadError>((next, changes))
        });
        let (mut next, changes) = prepared.await?;
        let mut all_warnings = vec![warnings];
        all_warnings.append(&mut bound.warnings);
        all_warnings.extend(edit_warnings(&self.running.live.in_force(), &next));
        all_warnings.retain(|warning| !warning.is_empty());
        let listening = self.sockets.listen(bound).map_err(system)?;
        next.tls = tls;
        next.addresses = self.sockets.addresses(&next.plan, &listening);
        Ok(Prepared {
            changes: Changes {
                warnings: all_warnings.join("\n"),
                needs_restart: self.needs_restart(&next.plan),
                broken: broken_files(&next.tls),
                ..changes
            },
            next,
            file_plan,
            text,
            listening,
            access_log,
            texts,
        })
    }

    /// Puts the next plan in force. Cannot fail and does not wait: a reader sees either the old plan or the new one.
    fn apply(&mut self, prepared: Prepared, drain: &Drain) -> Changes {
        let Prepared {
            next,
            file_plan,
            text,
            changes,
            listening,
            access_log,
            texts,
        } = prepared;
        self.announced.set_file_plan(file_plan);
        let old = self.running.live.in_force();
        let now = self.running.live.apply(next);
        self.update_dependents(&now, listening, drain);
        self.remote.put_in_force(texts);
        self.follow_store(now.plan.remote.as_ref());
        let had_no_listeners = old.plan.why_not_ready().is_some(); // acequia has waited for the store
        if had_no_listeners {
            log_addresses(&now); // the start has logged none
        }
        self.switch_logs(&old.plan.log, &now.plan.log, access_log);
        log_refused(&old.plan, &now.plan);
        self.watch(text);
        drop_later(old);
        changes
    }

    /// Updates what depends on the plan in force and does not subscribe to it: the pools with metrics, the limits, and
    /// last the sockets, through which sessions get the new plan.
    pub(super) fn update_dependents(&mut self, now: &InForce, listening: NewlyListening, drain: &Drain) {
        let metrics = &self.admin.metrics;
        metrics.configure_pools(now.plan.pools.iter().map(|pool| &pool.name));
        let shares = self.budget.divide(&now.plan, now.addresses.iter().map(Vec::len).sum());
        self.sockets.limits.resize_process(shares.sessions);
        self.sockets.cancels.resize(shares.cancels);
        self.sockets.hello_memory.resize(now.plan.runtime.hello_memory_bytes);
        self.health.set_limits(shares.checks, shares.lookups);
        self.sockets.apply(now, listening, drain);
    }

    /// Opens the output of the access log, if its settings change. See [`Prepared::access_log`].
    fn open_access_log(&self, next: &LogPlan) -> Result<Option<Option<Output>>, Failure> {
        let now = self.running.live.plan();
        if (&next.access, next.format) == (&now.log.access, now.log.format) {
            return Ok(None);
        }
        Output::open(&next.access).map(Some).map_err(Failure::access_log)
    }

    fn switch_logs(&self, old: &LogPlan, new: &LogPlan, access_log: Option<Option<Output>>) {
        if let Some(output) = access_log {
            self.log.switch(output, new.format);
        }
        self.log.set_logs_empty_sessions(new.level >= tracing::Level::DEBUG);
        let has_changed = (old.level, old.format) != (new.level, new.format);
        if let (true, Some(reconfigure)) = (has_changed, &self.source.reconfigure_log) {
            reconfigure(new);
        }
    }

    /// Watches the file, which had this text when it was read; `None`: stops watching it. Does nothing if it is being
    /// watched already, or is a pipe.
    pub(super) fn watch(&mut self, text: Option<String>) {
        let Some(text) = text else {
            self.watching = None;
            return;
        };
        if let (None, Some(file), false) = (&self.watching, &self.source.file, self.source.is_pipe) {
            let watching = watch::run(file.clone(), text, self.admin.reloader.clone());
            self.watching = Some(AbortOnDropHandle::new(tokio::spawn(watching)));
        }
    }

    /// The keys whose values differ from those of the running process, and take effect only after a restart.
    fn needs_restart(&self, plan: &Plan) -> Vec<String> {
        let fixed = &self.fixed;
        let differs = [
            ("runtime.workers", plan.runtime.workers != fixed.workers),
            ("runtime.state_dir", plan.state_dir != fixed.state_dir),
            ("admin.bind", plan.admin.bind != fixed.admin.bind),
            ("admin.socket", plan.admin.socket != fixed.admin.socket),
        ];
        differs
            .into_iter()
            .filter(|(_, differs)| *differs)
            .map(|(key, _)| key.to_owned())
            .collect()
    }
}

/// Logs what a reload changed.
fn log_changes(by: &str, changes: &Changes) {
    let counts = |difference: &Difference| format!("+{} -{}", difference.added.len(), difference.removed.len());
    tracing::info!(
        by,
        guards = counts(&changes.guards),
        listeners = counts(&changes.listeners),
        servers = counts(&changes.servers),
        changed = changes.changed_lines().join("; "),
        needs_restart = changes.needs_restart.join(", "),
        "reloaded"
    );
    if !changes.warnings.is_empty() {
        tracing::warn!("{}", changes.warnings);
    }
    for error in &changes.broken {
        let error = escape(error, &[]);
        tracing::error!(by, %error, "a TLS file is broken: the files read before stay in force");
    }
}

/// Reads the files that a configuration names, in another thread. Returns the configuration, its TLS, and the warnings
/// as one text: those about the store, those of the configuration, and those about the files.
async fn check(
    read: ReadConfiguration,
    now: Arc<InForce>,
    metrics: Arc<Metrics>,
) -> Result<(ReadConfiguration, LiveTls, String), ReloadError> {
    blocking(move || {
        let system = |failure: Failure| ReloadError::System(failure.into());
        let loaded = &read.loaded;
        let (tls, of_files) = check_and_load(&loaded.plan, Some((&now, &metrics))).map_err(system)?;
        let of_configuration = Some(loaded.warnings.to_string()).filter(|warnings| !warnings.is_empty());
        let warnings = read.warning.clone().into_iter().chain(of_configuration);
        let warnings: Vec<_> = warnings.chain(of_files).collect();
        Ok((read, tls, warnings.join("\n")))
    })
    .await
}
