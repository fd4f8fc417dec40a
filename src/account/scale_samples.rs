//! The metrics of pools that grow and shrink. They are read anew for each scrape, and are gone with the pool.

use std::sync::Arc;

use super::exposition::{MetricType, format_labels, write_header, write_sample};
use super::names;

/// The values of the metrics of a pool that grows and shrinks.
#[derive(Clone, Debug)]
pub struct ScaleSamples {
    /// The name of the pool.
    pub pool: Arc<str>,
    /// The number of clones in each state.
    pub clones: Vec<(&'static str, usize)>,
    /// The number of steps `up`, in which the pool has grown, and of steps `down`, in which it has shrunk.
    pub steps: [(&'static str, u64); 2],
    /// How often a client has woken the pool while it slept.
    pub cold_starts: u64,
}

/// Writes the samples of all pools that grow and shrink; nothing if there are none.
#[must_use]
pub fn write_scales(pools: &[ScaleSamples]) -> String {
    let mut text = String::new();
    if pools.is_empty() {
        return text;
    }
    write_header(
        &mut text,
        names::POOL_CLONES,
        MetricType::Gauge,
        "Clones of a pool, each in one state.",
    );
    for ScaleSamples { pool, clones, .. } in pools {
        for (state, count) in clones {
            let labels = format_labels(&[("pool", pool), ("state", state)]);
            write_sample(&mut text, names::POOL_CLONES, &labels, count);
        }
    }
    let help = "Steps in which a pool has grown or shrunk, by direction.";
    write_header(&mut text, names::POOL_SCALE, MetricType::Counter, help);
    for ScaleSamples { pool, steps, .. } in pools {
        for (direction, count) in steps {
            let labels = format_labels(&[("pool", pool), ("direction", direction)]);
            write_sample(&mut text, names::POOL_SCALE, &labels, count);
        }
    }
    let help = "How often a client has woken a pool that slept.";
    write_header(&mut text, names::POOL_COLD_STARTS, MetricType::Counter, help);
    for ScaleSamples { pool, cold_starts, .. } in pools {
        let labels = format_labels(&[("pool", pool)]);
        write_sample(&mut text, names::POOL_COLD_STARTS, &labels, cold_starts);
    }
    text
}
