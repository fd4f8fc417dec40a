//! One record of the access log, and its two formats.

use std::fmt::Write as _;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::Value;

use crate::text::escape_json;

/// Format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// `key=value` pairs separated by spaces; values are quoted where necessary.
    Text,
}

/// The record of one finished session. Fields are written in the order of declaration. An unknown value is `null` in
/// JSON and left out of a text line. A field that few sessions have, such as `detail`, is left out of both if it has no
/// value.
#[derive(Debug, Default, Serialize)]
#[expect(
    missing_docs,
    reason = "docs/operation.md documents the fields; their names contain the units"
)]
pub struct AccessRecord {
    // `None` in tests only: `SystemTime` has no default.
    #[serde(serialize_with = "rfc3339")]
    pub time: Option<SystemTime>,
    pub session: u64,
    pub listener: String,
    pub peer: String,
    pub client: String,
    pub sni: Option<String>,
    pub alpn: Option<String>,
    pub ech: bool,
    pub route: Option<String>,
    pub pool: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback_from: Option<String>,
    pub server: Option<String>,
    pub attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_position: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub woken_ms: Option<f64>,
    pub hello_ms: Option<f64>,
    pub connect_ms: Option<f64>,
    pub duration_ms: f64,
    pub bytes_up: u64,
    pub bytes_down: u64,
    pub ending: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_authority: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy_unique_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guard: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guard_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suppressed: Option<u64>,
    #[serde(flatten)]
    pub tls: TlsFields,
    pub client_rtt_us: Option<u32>,
    pub server_rtt_us: Option<u32>,
    pub client_retrans: Option<u32>,
    pub server_retrans: Option<u32>,
}

/// The fields of TLS. Fields without a value are left out.
#[derive(Debug, Default, Serialize)]
#[expect(missing_docs, reason = "docs/operation.md documents the fields")]
pub struct TlsFields {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_cipher: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_resumed: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_cert: Option<ClientCertFields>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_refusal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_tls: Option<&'static str>,
}

/// The certificate of a client.
#[derive(Debug, Serialize)]
pub struct ClientCertFields {
    /// Its subject.
    pub subject: String,
    /// Its SHA-256, in hexadecimal digits.
    pub sha256: String,
}

fn rfc3339<S: serde::Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    let time = time.unwrap_or(SystemTime::UNIX_EPOCH);
    serializer.collect_str(&humantime::format_rfc3339_millis(time))
}

impl AccessRecord {
    /// Formats the record as one line, including the line feed.
    ///
    /// # Panics
    /// Never: the fields consist of numbers, bools and strings.
    #[must_use]
    pub fn render(&self, format: LogFormat) -> String {
        const SERIALIZABLE: &str = "numbers, bools and strings always serialize";
        let text = match format {
            LogFormat::Json => serde_json::to_string(self).expect(SERIALIZABLE),
            LogFormat::Text => key_values(&serde_json::to_value(self).expect(SERIALIZABLE)),
        };
        // Escapes characters that are unsafe to display. Right for both formats: the quoted values of a text line are
        // JSON strings, and unquoted values are ASCII.
        let mut text = escape_json(&text).into_owned();
        text.push('\n');
        text
    }
}

fn key_values(object: &Value) -> String {
    let mut text = String::new();
    for (key, value) in object.as_object().into_iter().flatten() {
        let separator = if text.is_empty() { "" } else { " " };
        let needs_no_quotes =
            |plain: &str| !plain.is_empty() && plain.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'=');
        // Writing to a String cannot fail.
        let _ = match value {
            Value::Null => Ok(()),
            Value::String(plain) if needs_no_quotes(plain) => write!(text, "{separator}{key}={plain}"),
            // As a string that contains the JSON of the object, because this JSON may contain spaces.
            Value::Object(_) => write!(text, "{separator}{key}={}", Value::String(value.to_string())),
            json => write!(text, "{separator}{key}={json}"), // a string has quotes and escapes
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> AccessRecord {
        AccessRecord {
            time: Some(SystemTime::UNIX_EPOCH),
            session: 7,
            listener: "web".to_owned(),
            sni: Some("a b\"c".to_owned()),
            ending: "client_closed",
            ..AccessRecord::default()
        }
    }

    #[test]
    fn json_writes_fields_in_order_and_unknown_values_as_null() {
        let text = record().render(LogFormat::Json);
        assert!(
            text.starts_with(r#"{"time":"1970-01-01T00:00:00.000Z","session":7,"listener":"web","peer":"""#),
            "{text}"
        );
        assert!(text.ends_with("\"server_retrans\":null}\n"), "{text}");
    }

    #[test]
    fn control_and_bidirectional_characters_are_escaped_in_both_formats() {
        let record = AccessRecord {
            database: Some("\u{1b}\u{9b}31m\u{202e}x".to_owned()),
            ..record()
        };
        for (format, expected) in [
            (LogFormat::Json, r#""database":"\u001b\u009b31m\u202ex""#),
            (LogFormat::Text, r#" database="\u001b\u009b31m\u202ex""#),
        ] {
            let text = record.render(format);
            assert!(text.contains(expected), "{text:?}");
        }
    }

    #[test]
    fn text_quotes_values_with_spaces_and_leaves_out_unknown_values() {
        let text = record().render(LogFormat::Text);
        assert!(
            text.starts_with("time=1970-01-01T00:00:00.000Z session=7 listener=web peer=\"\""),
            "{text}"
        );
        assert!(text.contains(r#" sni="a b\"c" ech=false attempts=0 "#), "{text}");
    }
}
