//! A parser of the Prometheus text format that panics at many deviations, most of which Prometheus forgives.

use std::collections::{BTreeMap, BTreeSet};

/// One scrape.
#[derive(Debug, Default)]
pub struct Metrics {
    pub families: BTreeMap<String, Family>,
}

/// All series of one name.
#[derive(Debug)]
pub struct Family {
    pub kind: String,
    pub help: String,
    pub samples: Vec<Sample>,
}

/// The value of one series. In histograms the name has a suffix such as `_bucket`.
#[derive(Clone, Debug)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Metrics {
    /// Parses a scrape. The lines of all series of a family must follow each other, with HELP and TYPE of the family
    /// before them. No series may occur twice. Each `_count` of a histogram must have a sum, and buckets whose counts
    /// are consistent with it.
    pub fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line has no end");
        let (mut metrics, mut helps) = (Self::default(), BTreeMap::new());
        let mut current = String::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect(line);
                assert!(
                    helps.insert(name.to_owned(), help.to_owned()).is_none(),
                    "HELP twice: {line}"
                );
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect(line);
                let help = helps
                    .remove(name)
                    .unwrap_or_else(|| panic!("TYPE without HELP before it: {line}"));
                let family = Family {
                    kind: kind.to_owned(),
                    help,
                    samples: Vec::new(),
                };
                assert!(
                    metrics.families.insert(name.to_owned(), family).is_none(),
                    "TYPE twice: {line}"
                );
                name.clone_into(&mut current);
            } else {
                let sample = Sample::parse(line);
                let family = metrics.families.get_mut(&current).expect("a TYPE comes first");
                assert!(
                    family.may_have(&current, &sample.name),
                    "`{line}` is among the series of {current}"
                );
                family.samples.push(sample);
            }
        }
        assert!(helps.is_empty(), "HELP without TYPE: {helps:?}");
        metrics.families.iter().for_each(|(name, family)| family.check(name));
        metrics
    }

    /// The sum of [`Self::series`]; 0 if there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.series(name, labels).iter().map(|sample| sample.value).sum()
    }

    /// The series that have this name (of histograms, including the suffix) and at least these labels.
    pub fn series(&self, name: &str, labels: &[(&str, &str)]) -> Vec<&Sample> {
        let has = |sample: &Sample, (key, value): &(&str, &str)| sample.labels.get(*key).is_some_and(|v| v == value);
        let samples = self.families.values().flat_map(|family| &family.samples);
        samples
            .filter(|sample| sample.name == name && labels.iter().all(|label| has(sample, label)))
            .collect()
    }

    /// The families of this type.
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = (&String, &Family)> {
        self.families.iter().filter(move |(_, family)| family.kind == kind)
    }
}

impl Family {
    /// Whether a family of this name and of this type may have a series with the name `sample`.
    fn may_have(&self, family: &str, sample: &str) -> bool {
        match self.kind.as_str() {
            "counter" | "gauge" => sample == family,
            "histogram" => ["_bucket", "_sum", "_count"]
                .iter()
                .any(|suffix| sample == format!("{family}{suffix}")),
            other => panic!("{family} is a {other}"),
        }
    }

    fn check(&self, name: &str) {
        let mut seen = BTreeSet::new();
        for sample in &self.samples {
            assert!(seen.insert((&sample.name, &sample.labels)), "twice: {sample:?}");
        }
        if self.kind == "histogram" {
            let counts = self
                .samples
                .iter()
                .filter(|sample| sample.name == format!("{name}_count"));
            // `check_histogram` requires an infinite bucket and a sum for each `_count`. There are no others, because
            // there must also be as many infinite buckets, and as many sums, as `_count` series.
            let infinite = |sample: &&Sample| sample.labels.get("le").is_some_and(|bound| bound == "+Inf");
            let sums = self
                .samples
                .iter()
                .filter(|sample| sample.name == format!("{name}_sum"));
            let counted = counts.clone().count();
            let found = (self.samples.iter().filter(infinite).count(), sums.count());
            assert_eq!(found, (counted, counted), "{name}: infinite buckets and sums");
            counts.for_each(|count| self.check_histogram(name, count));
        }
    }

    /// Checks the buckets and the sum that have the labels of this `_count`.
    fn check_histogram(&self, name: &str, count: &Sample) {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for sample in self
            .samples
            .iter()
            .filter(|sample| sample.name == format!("{name}_bucket"))
        {
            let mut labels = sample.labels.clone();
            let bound = labels
                .remove("le")
                .expect("a bucket has a bound")
                .parse()
                .expect("a number");
            if labels == count.labels {
                buckets.push((bound, sample.value));
            }
        }
        assert!(
            buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1),
            "{name}: {buckets:?}"
        );
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, count.value)), "{name}");
        let sums = self
            .samples
            .iter()
            .filter(|s| s.name == format!("{name}_sum") && s.labels == count.labels);
        assert_eq!(sums.count(), 1, "{name}");
    }
}

impl Sample {
    /// `name{key="value",…} 1`
    fn parse(line: &str) -> Self {
        let (series, value) = line.rsplit_once(' ').expect(line);
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').expect(line)),
            None => (series, ""),
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        assert!(!name.is_empty() && name.chars().all(is_name), "{line}");
        let value = value.parse().expect(line);
        Self {
            name: name.to_owned(),
            labels: labels_of(labels),
            value,
        }
    }
}

fn labels_of(mut text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    while !text.is_empty() {
        let (key, rest) = text.split_once("=\"").expect("a label has a value");
        let (mut value, mut rest) = (String::new(), rest.chars());
        loop {
            match rest.next().expect("a value ends") {
                '"' => break,
                '\\' => value.push(match rest.next() {
                    Some('n') => '\n',
                    Some(escaped @ ('\\' | '"')) => escaped,
                    other => panic!("escaped: {other:?}"),
                }),
                plain => value.push(plain),
            }
        }
        assert!(labels.insert(key.to_owned(), value).is_none(), "twice: {key}");
        text = rest.as_str();
        text = text.strip_prefix(',').unwrap_or_else(|| {
            assert_eq!(text, "");
            ""
        });
    }
    labels
}
