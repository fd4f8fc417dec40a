//! Counters of the exporter, registered by name and labels.

use std::sync::{Arc, OnceLock};

use metrics::{Counter, Key, Label, Level, Metadata, Recorder, SharedString};
use metrics_exporter_prometheus::PrometheusRecorder;

/// The exporter's recorder, which registers counters and gauges and returns handles to them.
pub(in crate::account) type SharedRecorder = Arc<PrometheusRecorder>;

pub(in crate::account) const METADATA: Metadata<'static> = Metadata::new("acequia", Level::INFO, None);

pub(in crate::account) fn label(key: &'static str, value: &Arc<str>) -> Label {
    Label::new(key, SharedString::from(Arc::clone(value)))
}

pub(super) fn counter(recorder: &SharedRecorder, name: &'static str, labels: Vec<Label>) -> Counter {
    recorder.register_counter(&Key::from_parts(name, labels), &METADATA)
}

/// Counters of one name that differ in the value of one label. Each is registered at its first use: most servers never
/// fail in most ways, and most paths never see most endings.
pub(super) struct LabelledCounters<const N: usize> {
    recorder: SharedRecorder,
    name: &'static str,
    common_labels: Vec<Label>,
    key: &'static str,
    counters: [OnceLock<Counter>; N],
}

impl<const N: usize> LabelledCounters<N> {
    /// Creates an empty set. `key` is the label in which the counters differ.
    pub(super) fn new(recorder: &SharedRecorder, name: &'static str, labels: &[Label], key: &'static str) -> Self {
        Self {
            recorder: Arc::clone(recorder),
            name,
            common_labels: labels.to_vec(),
            key,
            counters: [const { OnceLock::new() }; N],
        }
    }

    /// Returns the counter at `index`, which is below `N`. `value` is the value of its label: the same at every call
    /// with this index.
    pub(super) fn get(&self, index: usize, value: &'static str) -> &Counter {
        self.counters[index].get_or_init(|| {
            let mut labels = self.common_labels.clone();
            labels.push(Label::from_static_parts(self.key, value));
            counter(&self.recorder, self.name, labels)
        })
    }

    /// Keeps the exporter from forgetting the registered counters.
    pub(super) fn touch(&self) {
        self.counters
            .iter()
            .filter_map(OnceLock::get)
            .for_each(|counter| counter.increment(0));
    }
}
