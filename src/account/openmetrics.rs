//! The text format of OpenMetrics 1.0, converted from that of Prometheus.

use std::collections::HashSet;

/// The media type of the text format of Prometheus.
pub const PROMETHEUS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The media type of OpenMetrics.
pub const OPENMETRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whether this `Accept` header names OpenMetrics, with a quality above 0 and no lower than that of plain text. The
/// quality of plain text is that of the most specific range that matches it (RFC 9110, section 12.5.1).
#[must_use]
pub fn prefers_openmetrics(accept: &str) -> bool {
    // The highest quality of the ranges that equal `wanted`. A range without `q` has the quality 1. If `q`
    // is not a number, the quality is 0.
    let quality = |wanted: &str| {
        let of_type = accept.split(',').filter_map(|range| {
            let mut parts = range.split(';').map(str::trim);
            let is_wanted = parts.next()?.eq_ignore_ascii_case(wanted);
            let q = parts.find_map(|part| part.strip_prefix("q="));
            is_wanted.then(|| q.map_or(1.0, |q| q.parse::<f32>().unwrap_or(0.0)))
        });
        of_type.reduce(f32::max)
    };
    let openmetrics = quality("application/openmetrics-text").unwrap_or(0.0);
    let plain = ["text/plain", "text/*", "*/*"].into_iter().find_map(quality);
    openmetrics > 0.0 && openmetrics >= plain.unwrap_or(0.0)
}

/// Converts text in the format of Prometheus to OpenMetrics: `# HELP` and `# TYPE` name a family of counters without
/// `_total`, no line is empty, and the last line marks the end.
#[must_use]
pub fn openmetrics(text: &str) -> String {
    let counter_family = |line: &str| {
        let name = line.strip_prefix("# TYPE ")?.strip_suffix(" counter")?;
        name.strip_suffix("_total").map(str::to_owned)
    };
    let counters: HashSet<String> = text.lines().filter_map(counter_family).collect();
    let mut converted = String::with_capacity(text.len());
    for line in text.lines().filter(|line| !line.is_empty()) {
        let header = ["# HELP ", "# TYPE "]
            .iter()
            .find_map(|kind| Some((*kind, line.strip_prefix(kind)?)));
        let counter_header = header.and_then(|(kind, rest)| {
            let (name, rest) = rest.split_once(' ')?;
            let family = name
                .strip_suffix("_total")
                .filter(|family| counters.contains(*family))?;
            Some((kind, family, rest))
        });
        match counter_header {
            Some((kind, family, rest)) => converted.extend([kind, family, " ", rest]),
            None => converted.push_str(line),
        }
        converted.push('\n');
    }
    converted + "# EOF\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_preferred_if_it_is_named_and_plain_text_has_no_higher_quality() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
        for (accept, expected) in [
            (prometheus, true),
            ("application/openmetrics-text", true),
            ("text/plain", false),
            ("*/*", false),
            ("", false),
            ("text/plain, application/openmetrics-text; q=0.5", false),
            ("application/openmetrics-text;q=0", false),
            ("application/openmetrics-text;q=x", false),
            ("application/openmetrics-text;q=0.5, */*", false),
            ("application/openmetrics-text;q=0.5, text/*;q=0.4, */*", true),
        ] {
            assert_eq!(prefers_openmetrics(accept), expected, "{accept}");
        }
    }

    #[test]
    fn openmetrics_counter_families_have_no_total_suffix() {
        let text =
            "# HELP a_total How many_total.\n# TYPE a_total counter\na_total{b=\"# TYPE\"} 1\n\n# TYPE g gauge\ng 2\n";
        let expected =
            "# HELP a How many_total.\n# TYPE a counter\na_total{b=\"# TYPE\"} 1\n# TYPE g gauge\ng 2\n# EOF\n";
        assert_eq!(openmetrics(text), expected);
    }
}
