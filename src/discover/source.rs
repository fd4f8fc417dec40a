//! Sources of servers: they report lists.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::plan::ServerEntry;
use crate::text::Reason;

/// A whole list of servers, or why there is none.
pub type ListAnswer = Result<ServerList, Reason>;

/// A whole list of servers.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerList {
    /// The servers.
    pub servers: Vec<ServerEntry>,
    /// The problems in parts of the answer, while the rest can be used; `None`: there are none.
    pub warning: Option<Reason>,
}

impl From<Vec<ServerEntry>> for ServerList {
    fn from(servers: Vec<ServerEntry>) -> Self {
        Self { servers, warning: None }
    }
}

/// Something that lists the servers of a pool.
pub(super) trait ServerSource: Send {
    /// Reports every list that it finds, and every failure after which it can go on. If it cannot go on, it returns
    /// the reason, and is called again after a while.
    fn follow<'a>(&'a mut self, reports: &'a Reports) -> FollowFuture<'a>;
}

/// [`ServerSource::follow`] under way.
pub(super) type FollowFuture<'a> = Pin<Box<dyn Future<Output = Reason> + Send + 'a>>;

/// The knowledge of a source. A list is made from it only when one is needed: changes may come faster than long lists
/// can be made.
pub(super) trait Findings: Send {
    /// The list.
    fn list(&self) -> ListAnswer;
}

/// Findings that a source keeps changing, and from which the receiver of its reports makes lists. A blocking mutex:
/// locked for a change, or while a list is made.
pub(super) type SharedFindings<T> = Arc<Mutex<T>>;

/// A report of a source.
#[derive(Clone)]
pub(super) enum SourceReport {
    /// An answer.
    Answer(ListAnswer),
    /// The findings have changed.
    Change(SharedFindings<dyn Findings>),
}

impl SourceReport {
    /// The answer that was reported, or the list that the findings give now.
    pub(super) fn answer(self) -> ListAnswer {
        match self {
            Self::Answer(answer) => answer,
            Self::Change(findings) => findings.lock().list(),
        }
    }
}

/// Where a source reports what it finds. Only the latest report is kept.
pub(super) struct Reports {
    latest: watch::Sender<Option<SourceReport>>,
    has_succeeded: AtomicBool,
}

impl Reports {
    /// A sender of reports, and their receiver.
    pub(super) fn channel() -> (Self, watch::Receiver<Option<SourceReport>>) {
        let (latest, received) = watch::channel(None);
        let has_succeeded = AtomicBool::new(false);
        (Self { latest, has_succeeded }, received)
    }

    /// Reports an answer.
    pub(super) fn report(&self, answer: ListAnswer) {
        self.has_succeeded.fetch_or(answer.is_ok(), Relaxed);
        self.latest.send_replace(Some(SourceReport::Answer(answer)));
    }

    /// Reports that the findings have changed.
    pub(super) fn report_change<T: Findings + 'static>(&self, findings: &SharedFindings<T>) {
        self.has_succeeded.store(true, Relaxed);
        self.latest
            .send_replace(Some(SourceReport::Change(Arc::clone(findings) as _)));
    }

    /// Whether a list or a change was reported since the last call.
    pub(super) fn take_success(&self) -> bool {
        self.has_succeeded.swap(false, Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Counts how often its list is made.
    struct Counted(AtomicUsize);

    impl Findings for Counted {
        fn list(&self) -> ListAnswer {
            self.0.fetch_add(1, Relaxed);
            Ok(Vec::new().into())
        }
    }

    #[test]
    fn a_list_is_built_on_demand_and_not_for_each_change() {
        let (reports, mut latest) = Reports::channel();
        let findings = Arc::new(Mutex::new(Counted(AtomicUsize::new(0))));
        for _ in 0..10_000 {
            reports.report_change(&findings);
        }
        let report = latest.borrow_and_update().clone();
        assert_eq!(report.unwrap().answer(), Ok(Vec::new().into()));
        assert_eq!(findings.lock().0.load(Relaxed), 1);
        assert!(reports.take_success() && !reports.take_success());
    }
}
