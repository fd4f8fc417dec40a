//! Puts announced routes in force while the process runs: the plan of the file with these routes replaces the plan in
//! force, as in a reload.

use std::collections::{HashMap, HashSet};
use std::future::pending;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_util::task::AbortOnDropHandle;

use super::App;
use super::listen_sockets::NewlyListening;
use super::old_plan::drop_later;
use crate::discover::{AnnouncedAnswer, follow_announcements};
use crate::drain::Drain;
use crate::live::{InForce, Live};
use crate::plan::{Announcement, Plan, RefusedAnnouncement};
use crate::text::{Reason, first_and_more};

/// The most names in one field of a log line, and the most newly refused routes of a plan that get a line each.
const LOGGED_MAX: usize = 20;

/// The routes that are announced, and the plan that they are added to.
pub(super) struct Announced {
    answers: watch::Receiver<AnnouncedAnswer>,
    _following: AbortOnDropHandle<()>,
    /// The latest list.
    announcements: Arc<[Announcement]>,
    /// Whether [`Self::next`] has taken the latest answer, but was dropped before it returned the result.
    is_pending: bool,
    /// The plan of the file, if a listener of it accepts announcements.
    file_plan: Option<Arc<Plan>>,
}

impl Announced {
    /// Begins to follow announcements. `kept` are the routes that were announced before this process started. As far as
    /// the plan of the file accepts them, they are already in the plan in force.
    pub(super) fn follow(live: &Arc<Live>, file_plan: Option<Arc<Plan>>, kept: Arc<[Announcement]>) -> Self {
        let (sender, answers) = watch::channel(None);
        let following = tokio::spawn(follow_announcements(Arc::clone(live), sender));
        live.restore_announced(&kept);
        Self {
            answers,
            _following: AbortOnDropHandle::new(following),
            announcements: kept,
            is_pending: false,
            file_plan,
        }
    }

    /// As [`with_announced`], for the routes that are announced now.
    pub(super) fn added_to(&self, file_plan: Plan) -> (Plan, Option<Arc<Plan>>) {
        with_announced(file_plan, &self.announcements)
    }

    /// Replaces the plan of the file.
    pub(super) fn set_file_plan(&mut self, file_plan: Option<Arc<Plan>>) {
        self.file_plan = file_plan;
    }

    /// Waits for the next list of announced routes. Returns the plan with these routes, and its pools, for
    /// [`App::apply_announced`]. Cancel safe: if the future is dropped, the next call takes the latest answer again.
    pub(super) async fn next(&mut self, live: &Arc<Live>) -> InForce {
        loop {
            if !self.is_pending && self.answers.changed().await.is_err() {
                return pending().await; // the process ends
            }
            self.is_pending = true;
            let answer = self.answers.borrow_and_update().clone();
            match &answer {
                Some(Ok(announcements)) => self.announcements = Arc::clone(announcements),
                Some(Err(error)) => record_failure(live, error),
                None => {}
            }
            if let (Some(Ok(_)), Some(file_plan)) = (&answer, &self.file_plan) {
                let (live, file_plan, announcements) =
                    (Arc::clone(live), Arc::clone(file_plan), Arc::clone(&self.announcements));
                let prepare = move || live.prepare(file_plan.with_announced(&announcements), HashMap::new());
                if let Ok(next) = spawn_blocking(prepare).await {
                    self.is_pending = false;
                    return next;
                }
            }
            self.is_pending = false;
        }
    }
}

/// Returns the plan to put in force: that of the file with these announcements. Also returns the plan of the file as it
/// is; `None`: it accepts no announcements.
pub(super) fn with_announced(file_plan: Plan, announcements: &[Announcement]) -> (Plan, Option<Arc<Plan>>) {
    match file_plan.announcing_engine() {
        None => (file_plan, None),
        Some(_) => (file_plan.with_announced(announcements), Some(Arc::new(file_plan))),
    }
}

impl App {
    /// Puts in force what [`Announced::next`] has returned.
    pub(super) fn apply_announced(&mut self, mut next: InForce, drain: &Drain) {
        let live = Arc::clone(&self.running.live);
        let before = live.in_force();
        log_refused(&before.plan, &next.plan);
        if !is_same(&before, &next) {
            // `Live::prepare` has left these two empty.
            next.tls = before.tls.clone();
            next.addresses.clone_from(&before.addresses);
            let now = live.apply(next);
            self.update_dependents(&now, NewlyListening::default(), drain);
            log_routes(&before.plan, &now.plan);
            drop_later(before);
        }
        if live.record_announced(&self.announced.announcements, SystemTime::now()) {
            tracing::info!(source = "docker", "the source of announced routes answers");
        }
    }
}

fn record_failure(live: &Live, error: &Reason) {
    if live.record_announcing_failure(error.clone()) {
        tracing::warn!(source = "docker", %error, "cannot take the announced routes, keeping the last ones");
    }
}

/// Whether both have the same pools, and so the same announced routes (each has a pool of its own), and refuse the same
/// announcements.
fn is_same(before: &InForce, next: &InForce) -> bool {
    let pools = |of: &InForce| of.pools.iter().map(Arc::as_ptr).collect::<Vec<_>>();
    pools(before) == pools(next) && before.plan.refused_announcements == next.plan.refused_announcements
}

fn log_routes(before: &Plan, now: &Plan) {
    // Each announced route has a pool of its own.
    let only_in = |plan: &Plan, other: &Plan| -> Vec<String> {
        let names = plan.pools.iter().map(|pool| &pool.name);
        let missing = names.filter(|name| other.pools.id(name).is_none());
        missing.map(ToString::to_string).collect()
    };
    let (added, removed) = (only_in(now, before), only_in(before, now));
    if !added.is_empty() || !removed.is_empty() {
        tracing::info!(
            added = first_and_more(added.iter(), LOGGED_MAX).join(" "),
            removed = first_and_more(removed.iter(), LOGGED_MAX).join(" "),
            "announced routes have changed"
        );
    }
}

/// Logs the announcements that `next` refuses, without those that `before` refuses, too.
pub(super) fn log_refused(before: &Plan, next: &Plan) {
    fn key(refused: &RefusedAnnouncement) -> [&str; 4] {
        [&refused.from, &refused.listener, &refused.sni, &refused.reason]
    }
    let known: HashSet<_> = before.refused_announcements.iter().map(key).collect();
    let refused = next.refused_announcements.iter().map(key);
    let mut refused = refused.filter(|refused| !known.contains(refused));
    for [container, listener, sni, reason] in refused.by_ref().take(LOGGED_MAX) {
        tracing::warn!(container, listener, sni, reason, "an announced route is refused");
    }
    let more = refused.count();
    if more > 0 {
        tracing::warn!(more, "more announced routes are refused: see the API");
    }
}
