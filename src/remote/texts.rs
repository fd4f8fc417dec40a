//! The texts of a store: read once, or followed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::etcd::{EtcdError, EtcdKeyValue, KeyChange, KeyFollower, Members};
use crate::http_client::in_time;
use crate::plan::{RemotePlan, RemoteText, RemoteTexts};

/// How long one member may take to answer while somebody waits for the texts.
const MEMBER_TIMEOUT: Duration = Duration::from_secs(4);

/// How long all members together may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(12);

/// The most bytes of all texts together: as many as a configuration file may have.
const BYTES_MAX: usize = 16 << 20;

/// Reads the texts now, from the first member that answers within 4 s. Takes 12 s at most.
///
/// # Errors
/// No member answers, or there are too many texts, or they are too long.
pub async fn fetch(plan: &RemotePlan) -> Result<RemoteTexts, EtcdError> {
    let mut members = Members::new(Arc::clone(&plan.etcd));
    let wanted = plan.keys();
    let found = in_time(FETCH_TIMEOUT, "etcd", members.read(&wanted, MEMBER_TIMEOUT)).await?;
    let mut texts = KnownTexts::default();
    found.into_iter().for_each(|kv| texts.put(kv));
    texts.all(plan)
}

/// The keys of the texts with their values, by key.
#[derive(Default)]
struct KnownTexts(BTreeMap<Vec<u8>, EtcdKeyValue>);

impl KnownTexts {
    fn put(&mut self, kv: EtcdKeyValue) {
        self.0.insert(kv.key.clone(), kv);
    }

    fn all(&self, plan: &RemotePlan) -> Result<RemoteTexts, EtcdError> {
        let bytes: usize = self.0.values().map(|kv| kv.value.len()).sum();
        if bytes > BYTES_MAX {
            return Err("the texts are too long for a configuration: the limit is 16 MiB".into());
        }
        let text = |kv: &EtcdKeyValue| RemoteText::new(&kv.key, &kv.value, kv.mod_revision);
        Ok(RemoteTexts {
            from: plan.location(),
            texts: self.0.values().map(text).collect(),
        })
    }
}

/// Follows the texts, and hands them over whenever they change.
pub(super) struct TextFollower<'a, F> {
    plan: &'a RemotePlan,
    known: KnownTexts,
    take: F,
}

impl<'a, F: FnMut(RemoteTexts) + Send> TextFollower<'a, F> {
    pub(super) fn new(plan: &'a RemotePlan, take: F) -> Self {
        Self {
            plan,
            known: KnownTexts::default(),
            take,
        }
    }
}

impl<F: FnMut(RemoteTexts) + Send> KeyFollower for TextFollower<'_, F> {
    fn take_all(&mut self, kvs: Vec<EtcdKeyValue>) -> Result<(), EtcdError> {
        self.known.0.clear();
        kvs.into_iter().for_each(|kv| self.known.put(kv));
        (self.take)(self.known.all(self.plan)?);
        Ok(())
    }

    fn take_changes(&mut self, changes: Vec<KeyChange>) -> Result<(), EtcdError> {
        for change in changes.into_iter().filter(|change| self.plan.is_text(&change.kv.key)) {
            if change.is_delete() {
                self.known.0.remove(&change.kv.key);
            } else {
                self.known.put(change.kv);
            }
        }
        if self.known.0.len() > self.plan.keys().keys_max {
            return Err("there are too many keys for a configuration".into());
        }
        (self.take)(self.known.all(self.plan)?);
        Ok(())
    }
}
