//! Counters of the exporter, registered by name and labels.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use metrics::{Counter, Key, Label, Level, Metadata, Recorder, SharedString};
use metrics_exporter_prometheus::PrometheusRecorder;

/// The exporter's recorder, which registers counters and gauges and returns handles to them.
pub(in crate::account) type SharedRecorder = Arc<PrometheusRecorder>;

pub(in crate::account) const METADATA: Metadata<'static> = Metadata::new("acequia", Level::INFO, None);

pub(in crate::account) fn label(key: &'static str, value: &Arc<str>) -> Label {
    Label::new(key, SharedString::from(Arc::clone(value)))
}

/// A counter whose increments are handed to the exporter before the metrics are rendered. All workers share it, and an
/// increment changes one number. To increment the exporter's counter would change two, its value and its generation, in
/// different blocks of memory.
pub(super) struct BufferedCounter {
    count: AtomicU64,
    /// The part of `count` that the exporter has.
    exported_count: AtomicU64,
    /// The exporter's counter. Buffered counters with the same name and labels share it.
    exported: Counter,
}

impl BufferedCounter {
    /// Registers a counter.
    pub(super) fn new(recorder: &SharedRecorder, name: &'static str, labels: Vec<Label>) -> Self {
        let exported = recorder.register_counter(&Key::from_parts(name, labels), &METADATA);
        exported.increment(0); // the exporter may be about to forget an earlier counter with these labels
        Self {
            count: AtomicU64::new(0),
            exported_count: AtomicU64::new(0),
            exported,
        }
    }

    pub(super) fn increment(&self, by: u64) {
        self.count.fetch_add(by, Relaxed);
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// Hands the new increments to the exporter, and keeps it from forgetting the counter.
    pub(super) fn export(&self) {
        let count = self.count();
        let before = self.exported_count.fetch_max(count, Relaxed);
        self.exported.increment(count.saturating_sub(before));
    }
}

impl Drop for BufferedCounter {
    fn drop(&mut self) {
        self.export();
    }
}

/// Counters of one name that differ in the value of one label. Each is registered at its first use: most servers never
/// fail in most ways, and most [paths](super::PathKey) never see most endings.
pub(super) struct LabelledCounters<const N: usize> {
    recorder: SharedRecorder,
    name: &'static str,
    common_labels: Vec<Label>,
    key: &'static str,
    counters: [OnceLock<BufferedCounter>; N],
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
    pub(super) fn get(&self, index: usize, value: &'static str) -> &BufferedCounter {
        self.counters[index].get_or_init(|| {
            let mut labels = self.common_labels.clone();
            labels.push(Label::from_static_parts(self.key, value));
            BufferedCounter::new(&self.recorder, self.name, labels)
        })
    }

    /// The count at `index`.
    pub(super) fn count(&self, index: usize) -> u64 {
        self.counters[index].get().map_or(0, BufferedCounter::count)
    }

    /// Exports the registered counters.
    pub(super) fn export(&self) {
        self.counters
            .iter()
            .filter_map(OnceLock::get)
            .for_each(BufferedCounter::export);
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn counters_with_the_same_labels_add_up_even_if_one_is_dropped() {
        let recorder = Arc::new(PrometheusBuilder::new().build_recorder());
        let [one, other] = [(); 2].map(|()| BufferedCounter::new(&recorder, "t_total", Vec::new()));
        one.increment(2);
        other.increment(3);
        one.export();
        one.export();
        one.increment(4);
        drop(one);
        other.export();
        assert!(recorder.handle().render().contains("t_total 9\n"));
    }
}
