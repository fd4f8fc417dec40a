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

/// A counter of which the exporter gets to know when the metrics are rendered. An increment changes one number; one of
/// the exporter's counter changes two, in two blocks of memory that all workers share.
pub(super) struct BufferedCounter {
    count: AtomicU64,
    /// How much of `count` was published.
    published: AtomicU64,
    // Several counters may have the same labels; their increments add up here.
    exported: Counter,
}

impl BufferedCounter {
    /// Registers a counter.
    pub(super) fn new(recorder: &SharedRecorder, name: &'static str, labels: Vec<Label>) -> Self {
        Self {
            count: AtomicU64::new(0),
            published: AtomicU64::new(0),
            exported: recorder.register_counter(&Key::from_parts(name, labels), &METADATA),
        }
    }

    pub(super) fn increment(&self, by: u64) {
        self.count.fetch_add(by, Relaxed);
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// Publishes the count, and keeps the exporter from forgetting the counter. Only one thread at a time may call it.
    pub(super) fn publish(&self) {
        let count = self.count();
        self.exported.increment(count - self.published.swap(count, Relaxed));
    }
}

impl Drop for BufferedCounter {
    fn drop(&mut self) {
        self.publish();
    }
}

/// Counters of one name that differ in the value of one label. Each is registered at its first use: most servers never
/// fail in most ways, and most paths never see most endings.
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

    /// Publishes the registered counters.
    pub(super) fn publish(&self) {
        self.counters
            .iter()
            .filter_map(OnceLock::get)
            .for_each(BufferedCounter::publish);
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn counters_with_the_same_labels_add_up_also_when_one_is_dropped() {
        let recorder = Arc::new(PrometheusBuilder::new().build_recorder());
        let [one, other] = [(); 2].map(|()| BufferedCounter::new(&recorder, "t_total", Vec::new()));
        one.increment(2);
        other.increment(3);
        one.publish();
        one.publish();
        one.increment(4);
        drop(one);
        other.publish();
        assert!(recorder.handle().render().contains("t_total 9\n"));
    }
}
