//! The state of the configuration from a store.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use crate::plan::{RemoteTexts, TextVersion};
use crate::text::{Reason, abbreviated};

/// The most bytes of the text of an error that are written back; if there are more, an ellipsis follows. In a fleet of
/// thousands, each instance writes such a text.
const MESSAGE_BYTES_MAX: usize = 4096;

/// The state of the configuration from a store at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RemoteState {
    /// The texts that were tried last. If texts from the store were tried at the start and kept ones were put in force,
    /// those from the store.
    pub tried: Option<Arc<RemoteTexts>>,
    /// Whether the latest attempt to change the configuration has read texts, which are then `tried`.
    pub has_read_texts: bool,
    /// The texts in force.
    pub in_force: Option<TextsInForce>,
    /// The configuration that was refused last; `None`: none was, or one was put in force after that.
    pub refused: Option<RefusedTexts>,
    /// Since when and why the store does not answer; `None`: it answers.
    pub lost: Option<LostStore>,
    /// Whether another process writes its status with our name.
    pub has_namesake: bool,
}

/// Texts that are in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextsInForce {
    /// Their version.
    pub version: TextVersion,
    /// When they were put in force.
    pub since: SystemTime,
}

/// A configuration that was not put in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedTexts {
    /// The version of its texts; `None`: the attempt failed before the texts of the store were read.
    pub version: Option<TextVersion>,
    /// Why they were refused. Everybody who may read the store may read this, so it quotes no file.
    pub message: Arc<str>,
    /// When they were first refused with this message.
    pub since: SystemTime,
    /// What refused them. An attempt without a version keeps [`RefusedBy::Machine`] of the attempt before, so that the
    /// texts of that attempt are still tried again.
    pub by: RefusedBy,
}

/// What refused texts of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedBy {
    /// The configuration: it is not valid, so that the same texts are not tried again until somebody requests a reload.
    Configuration,
    /// This machine: the texts are tried again, because it may accept them later.
    Machine,
}

/// A store that does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostStore {
    /// Why it does not answer.
    pub error: Reason,
    /// Since when it does not answer.
    pub since: SystemTime,
}

/// Holds the state, and reports its changes to those who wait for them.
#[derive(Debug, Default)]
pub struct RemoteConfig {
    state: watch::Sender<RemoteState>,
    /// The texts in force.
    texts: watch::Sender<Option<Arc<RemoteTexts>>>,
}

impl RemoteConfig {
    /// The state now.
    #[must_use]
    pub fn state(&self) -> RemoteState {
        self.state.borrow().clone()
    }

    /// A receiver of the state, which is notified of changes from now on. It sees the latest state only.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<RemoteState> {
        self.state.subscribe()
    }

    /// The texts in force.
    #[must_use]
    pub fn texts(&self) -> Option<Arc<RemoteTexts>> {
        self.texts.borrow().clone()
    }

    /// A receiver of the texts in force, beginning with the present ones.
    #[must_use]
    pub fn subscribe_texts(&self) -> watch::Receiver<Option<Arc<RemoteTexts>>> {
        let mut texts = self.texts.subscribe();
        texts.mark_changed();
        texts
    }

    /// Records that an attempt to change the configuration begins, which has not read texts yet.
    pub fn begin_attempt(&self) {
        self.state.send_modify(|state| state.has_read_texts = false);
    }

    /// Records which texts are tried. [`Self::start_with`], [`Self::put_in_force`] or [`Self::refuse`] is to follow.
    pub fn set_tried(&self, texts: &Arc<RemoteTexts>) {
        self.state.send_modify(|state| {
            (state.tried, state.has_read_texts) = (Some(Arc::clone(texts)), true);
        });
    }

    /// Records the texts with which the process has started: those that were tried, or others that were kept.
    pub fn start_with(&self, texts: &Arc<RemoteTexts>) {
        self.set_in_force(Some(Arc::clone(texts)), |state| {
            let tried = state.tried.get_or_insert_with(|| Arc::clone(texts));
            // If the process has started with other texts, those tried stay refused.
            if *tried == *texts {
                state.refused = None;
            }
        });
    }

    /// Records which texts are in force, and that none are refused. `None`: the configuration is not from a store.
    pub fn put_in_force(&self, texts: Option<Arc<RemoteTexts>>) {
        self.set_in_force(texts, |state| state.refused = None);
    }

    /// Records which texts are in force. In the same step, `update` changes the other fields of the state.
    fn set_in_force(&self, texts: Option<Arc<RemoteTexts>>, update: impl FnOnce(&mut RemoteState)) {
        self.state.send_modify(|state| {
            update(state);
            let before = state.in_force.take();
            state.in_force = texts.as_ref().map(|texts| {
                let version = texts.version();
                let same = before.filter(|before| before.version == version);
                let since = same.map_or_else(SystemTime::now, |before| before.since);
                TextsInForce { version, since }
            });
        });
        self.texts.send_if_modified(|before| {
            let is_new = *before != texts;
            *before = texts;
            is_new
        });
    }

    /// Records why the attempt has failed: with the texts of [`Self::set_tried`], or before it has read texts
    /// ([`Self::begin_attempt`]). What is in force stays.
    pub fn refuse(&self, message: &str, by: RefusedBy) {
        let message: Arc<str> = abbreviated(message, MESSAGE_BYTES_MAX).into();
        self.state.send_modify(|state| {
            let tried = state.tried.as_ref().filter(|_| state.has_read_texts);
            let version = tried.map(|texts| texts.version());
            let before = state.refused.take();
            // An attempt that has read no texts says nothing about those that were tried before: if they were to be
            // tried again, they still are.
            let by = match &before {
                Some(before) if version.is_none() && before.by == RefusedBy::Machine => RefusedBy::Machine,
                _ => by,
            };
            let same = before.filter(|before| (&before.version, &before.message) == (&version, &message));
            state.refused = Some(RefusedTexts {
                since: same.map_or_else(SystemTime::now, |before| before.since),
                version,
                message,
                by,
            });
        });
    }

    /// Records whether another process writes its status with our name. Returns whether that has changed.
    pub fn set_namesake(&self, has_namesake: bool) -> bool {
        self.state
            .send_if_modified(|state| std::mem::replace(&mut state.has_namesake, has_namesake) != has_namesake)
    }

    /// Records that the store answers. Returns whether it was lost before.
    pub fn record_answer(&self) -> bool {
        self.state.send_if_modified(|state| state.lost.take().is_some())
    }

    /// Records that the store does not answer. Returns whether it answered before.
    pub fn record_loss(&self, error: Reason) -> bool {
        let mut is_new = false;
        self.state.send_modify(|state| {
            is_new = state.lost.is_none();
            let since = state.lost.take().map_or_else(SystemTime::now, |lost| lost.since);
            state.lost = Some(LostStore { error, since });
        });
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::RemoteText;

    fn texts(revision: i64) -> Arc<RemoteTexts> {
        Arc::new(RemoteTexts {
            from: String::from("etcd:/a"),
            texts: vec![RemoteText::new(b"/a", b"", revision)],
        })
    }

    #[test]
    fn a_refusal_does_not_change_the_texts_in_force() {
        let config = RemoteConfig::default();
        config.set_tried(&texts(1));
        config.put_in_force(Some(texts(1)));
        let since = config.state().in_force.unwrap().since;
        config.set_tried(&texts(2));
        config.refuse("wrong", RefusedBy::Configuration);
        let state = config.state();
        assert_eq!(state.in_force.unwrap().version.revision, 1);
        let refused = state.refused.unwrap();
        assert_eq!((refused.version.unwrap().revision, &*refused.message), (2, "wrong"));
        config.refuse("wrong", RefusedBy::Configuration);
        assert_eq!(config.state().refused.unwrap().since, refused.since, "the same again");
        config.put_in_force(Some(texts(1)));
        let state = config.state();
        assert_eq!((state.in_force.unwrap().since, state.refused), (since, None));
        assert_eq!(config.texts(), Some(texts(1)));
    }

    #[test]
    fn an_attempt_that_fails_before_it_has_read_texts_refuses_no_version() {
        let config = RemoteConfig::default();
        config.set_tried(&texts(1));
        config.put_in_force(Some(texts(1)));
        config.begin_attempt();
        config.refuse("the file is wrong", RefusedBy::Configuration);
        assert_eq!(config.state().refused.unwrap().version, None, "revision 1 is in force");
        config.begin_attempt();
        config.set_tried(&texts(2));
        config.refuse("wrong", RefusedBy::Configuration);
        assert_eq!(config.state().refused.unwrap().version.unwrap().revision, 2);
    }

    #[test]
    fn texts_that_the_machine_has_refused_stay_due_while_the_file_is_broken() {
        let config = RemoteConfig::default();
        config.set_tried(&texts(2));
        config.refuse("the port is in use", RefusedBy::Machine);
        for _ in 0..2 {
            config.begin_attempt();
            config.refuse("the file is wrong", RefusedBy::Configuration);
            let refused = config.state().refused.unwrap();
            assert_eq!((refused.version, refused.by), (None, RefusedBy::Machine));
        }
        config.set_tried(&texts(2));
        config.refuse("the texts are wrong", RefusedBy::Configuration);
        assert_eq!(config.state().refused.unwrap().by, RefusedBy::Configuration);
    }

    #[test]
    fn a_long_message_is_truncated() {
        let config = RemoteConfig::default();
        config.refuse(&"é".repeat(MESSAGE_BYTES_MAX), RefusedBy::Configuration);
        let message = config.state().refused.unwrap().message;
        assert_eq!(message.chars().count(), MESSAGE_BYTES_MAX / 2 + 1);
        assert!(message.ends_with("é…"));
    }

    #[test]
    fn the_loss_of_the_store_is_reported_once() {
        let config = RemoteConfig::default();
        assert!(!config.record_answer());
        assert!(config.record_loss(Reason::new("a")));
        let since = config.state().lost.unwrap().since;
        assert!(!config.record_loss(Reason::new("b")));
        assert_eq!(config.state().lost.unwrap().since, since);
        assert!(config.record_answer());
    }
}
