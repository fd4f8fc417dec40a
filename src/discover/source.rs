//! What a source of servers is: something that reports lists.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

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
    /// What is wrong with parts of what was read, which do not keep the rest from being used; `None`: nothing.
    pub warning: Option<Reason>,
}

impl From<Vec<ServerEntry>> for ServerList {
    fn from(servers: Vec<ServerEntry>) -> Self {
        Self { servers, warning: None }
    }
}

/// Something that lists the servers of a pool.
pub(super) trait ServerSource: Send {
    /// Reports every list that it finds, and every failure that it goes on after, until it fails for another reason, which
    /// it returns. It is called again after a while.
    fn follow<'a>(&'a mut self, reports: &'a Reports) -> Following<'a>;
}

/// [`ServerSource::follow`] under way.
pub(super) type Following<'a> = Pin<Box<dyn Future<Output = Reason> + Send + 'a>>;

/// Where a source reports what it finds. Only the latest answer is kept.
pub(super) struct Reports {
    answers: watch::Sender<Option<ListAnswer>>,
    has_succeeded: AtomicBool,
}

impl Reports {
    /// Reports, and where they are received.
    pub(super) fn channel() -> (Self, watch::Receiver<Option<ListAnswer>>) {
        let (answers, received) = watch::channel(None);
        let has_succeeded = AtomicBool::new(false);
        (Self { answers, has_succeeded }, received)
    }

    /// Reports an answer.
    pub(super) fn report(&self, answer: ListAnswer) {
        self.has_succeeded.fetch_or(answer.is_ok(), Relaxed);
        self.answers.send_replace(Some(answer));
    }

    /// Whether a list was reported since this was last asked.
    pub(super) fn take_success(&self) -> bool {
        self.has_succeeded.swap(false, Relaxed)
    }
}
