//! Servers that are endpoints of a Service of Kubernetes: its EndpointSlices are listed, and watched from the version
//! of that list on.

mod credentials;
mod kubeconfig;
mod access;
mod slices;
mod api;

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::source::{FollowFuture, Reports, ServerSource, SharedFindings};
use crate::blocking::blocking;
use crate::error::chain;
use crate::plan::ServiceSourcePlan;
use crate::pool::MemberConfig;
use crate::text::Reason;
use access::Access;
use api::{KubernetesError, SliceEvent, SliceList, SlicesApi};
use slices::Slices;

/// The shortest time of a watch; the longest is a quarter more, 220 s. Balancers in front of API servers cut requests
/// after 4 minutes (Azure) or 5. A watch with its [`WATCH_END_GRACE`] is shorter.
const WATCH_TIME_MIN: Duration = Duration::from_secs(176);

/// How much longer than asked a watch may last. If the API server has not ended it by then, the connection may be
/// dead, and another watch is begun.
const WATCH_END_GRACE: Duration = Duration::from_secs(10);

/// The shortest time between the beginnings of two lists, and of two watches from one list; after a failure, the
/// back-off of the source holds instead. Without it, an API server that ends every watch at once would be asked without
/// a pause.
const GAP_MIN: Duration = Duration::from_secs(1);

/// The most pages of one list. The slices of all servers that a pool may have need fewer.
const PAGES_MAX: usize = 1000;

/// The endpoints of a Service.
pub(super) struct KubernetesSource {
    plan: ServiceSourcePlan,
    slices: SharedFindings<Slices>,
}

impl KubernetesSource {
    pub(super) fn new(plan: ServiceSourcePlan, defaults: MemberConfig) -> Self {
        let slices = Slices::new(plan.port.clone(), plan.kubernetes.zone.clone(), defaults);
        Self {
            plan,
            slices: Arc::new(Mutex::new(slices)),
        }
    }

    /// Lists and watches until something fails. Lists again when the API server no longer has the version from which
    /// the watch is to go on.
    async fn run(&mut self, reports: &Reports) -> Box<dyn Error + Send + Sync> {
        loop {
            let next = Instant::now() + GAP_MIN;
            match self.list_and_watch(reports).await {
                KubernetesError::Gone => sleep_until(next).await,
                KubernetesError::Failed(error) => return error,
            }
        }
    }

    async fn list_and_watch(&mut self, reports: &Reports) -> KubernetesError {
        let mut version = match self.list().await {
            Ok(version) => version,
            Err(error) => return error,
        };
        loop {
            let next = Instant::now() + GAP_MIN;
            if let Err(error) = self.watch(&mut version, reports).await {
                return error;
            }
            sleep_until(next).await;
        }
    }

    /// Lists all slices. Returns the version of the list.
    async fn list(&mut self) -> Result<String, KubernetesError> {
        let api = SlicesApi::new(self.access().await?, &self.plan);
        let mut listed = self.slices.lock().emptied();
        let mut next_page = String::new();
        for _ in 0..PAGES_MAX {
            let SliceList { metadata, items } = api.list(&next_page).await?;
            for slice in items.unwrap_or_default() {
                listed.put(slice)?;
            }
            next_page = metadata.next_page;
            if next_page.is_empty() {
                *self.slices.lock() = listed;
                return Ok(metadata.resource_version);
            }
        }
        Err(format!("the list of EndpointSlices has more than {PAGES_MAX} pages").into())
    }

    /// Watches the slices from this version on, until the API server ends the watch or its time is over; then `version`
    /// is that of the latest event. Reports the listed slices only after the API server has accepted the watch, so that
    /// a login that may list but not watch is an error.
    async fn watch(&mut self, version: &mut String, reports: &Reports) -> Result<(), KubernetesError> {
        let time = WATCH_TIME_MIN.mul_f64(1.0 + fastrand::f64() / 4.0);
        let deadline = Instant::now() + time + WATCH_END_GRACE;
        let mut watch = SlicesApi::new(self.access().await?, &self.plan)
            .watch(version, time)
            .await?;
        reports.report_change(&self.slices);
        loop {
            let Ok(event) = timeout_at(deadline, watch.next()).await else {
                return Ok(());
            };
            let Some(event) = event? else { return Ok(()) };
            let latest = match event {
                SliceEvent::Put(slice) => self.slices.lock().put(slice)?,
                SliceEvent::Deleted(slice) => self.slices.lock().remove(slice),
                SliceEvent::Bookmark(slice) => {
                    *version = slice.metadata.resource_version;
                    continue;
                }
            };
            *version = latest;
            reports.report_change(&self.slices);
        }
    }

    async fn access(&self) -> Result<Access, KubernetesError> {
        let kubernetes = Arc::clone(&self.plan.kubernetes);
        Ok(blocking(move || Access::read(&kubernetes)).await?)
    }
}

impl ServerSource for KubernetesSource {
    fn follow<'a>(&'a mut self, reports: &'a Reports) -> FollowFuture<'a> {
        Box::pin(async { Reason::from(chain(&*self.run(reports).await)) })
    }
}
