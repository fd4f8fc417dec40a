//! The keys of `check = "http"`.

use std::collections::HashSet;
use std::sync::Arc;

use hyper::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING, UPGRADE};
use hyper::{Method, Uri};

use super::super::address::InvalidValue;
use super::super::value;
use super::pattern::pattern;
use super::reader::KindReader;
use super::tls::optional_tls;
use super::{Problems, Section};
use crate::check::Check;
use crate::check::http::{HttpCheck, KIND, StatusList};
use crate::config::file::{KeyValue, Node, Value};

pub(super) const READER: KindReader = KindReader { kind: &KIND, read };

/// The default of `expect`, as in nginx and HAProxy.
const EXPECT_DEFAULT: &str = "200-399";

/// The most entries of `headers`.
const FIELDS_MAX: usize = 32;

/// Fields that a check sets itself, or that change how the message is read.
const RESERVED_FIELDS: [HeaderName; 5] = [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE, EXPECT];

fn read(section: &Section<'_>, problems: &mut Problems<'_>) -> Arc<dyn Check> {
    let method = section.parsed("method", method, problems);
    let path = section.parsed("path", path, problems);
    let expect = section.get("expect").and_then(|node| statuses(node, problems));
    let wrong_role = section.get("wrong_role").and_then(|node| statuses(node, problems));
    if let (None, Some((position, _))) = (section.get("wrong_role"), section.entry("wrong_role_body")) {
        let message = "`wrong_role_body` is never used";
        problems.warning(position, message, "add `wrong_role`, or remove `wrong_role_body`");
    }
    if method == Some(Method::HEAD) {
        for key in ["body", "wrong_role_body"] {
            if let Some((position, _)) = section.entry(key) {
                let message = format!("`{key}` is never found: the answer to HEAD has no body");
                problems.error(position, message, format!("write method = \"GET\", or remove `{key}`"));
            }
        }
    }
    Arc::new(HttpCheck {
        method: method.unwrap_or(Method::GET),
        path: path.unwrap_or_else(|| Uri::from_static("/")),
        host: section.get("host").and_then(|node| field_value(node, problems)),
        headers: headers(section, problems),
        expect: expect.unwrap_or_else(|| EXPECT_DEFAULT.parse().expect("the default is valid")),
        wrong_role: wrong_role.unwrap_or_default(),
        wrong_role_body: section.get("wrong_role_body").and_then(|node| pattern(node, problems)),
        body: section.get("body").and_then(|node| pattern(node, problems)),
        tls: optional_tls(section, problems),
    })
}

fn method(text: &str) -> Result<Method, InvalidValue> {
    let is_upper_case = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase());
    let method = Method::from_bytes(text.as_bytes()).ok();
    let method = method.filter(|method| is_upper_case && *method != Method::CONNECT);
    method.ok_or_else(|| {
        let hint = "write a method in upper case, as in \"GET\" or \"HEAD\"";
        (format!("`{text}` is not a method for checks"), hint.to_owned())
    })
}

fn path(text: &str) -> Result<Uri, InvalidValue> {
    // The parser would drop a fragment without an error, and take bytes that a request must not have.
    let is_path = text.starts_with('/') && text.is_ascii() && !text.contains('#');
    let uri = if is_path { text.parse().ok() } else { None };
    uri.ok_or_else(|| {
        let hint = "write a path that begins with /, as in \"/health\"; write #, spaces and non-ASCII bytes as %XX";
        (format!("`{text}` is not a path"), hint.to_owned())
    })
}

/// A text with statuses, a number, or a list of these.
fn statuses(node: &Node, problems: &mut Problems<'_>) -> Option<StatusList> {
    let mut list = StatusList::default();
    for node in value::one_or_many(node, problems) {
        let text = match &node.value {
            Value::Integer(status) => status.to_string(),
            _ => value::string(node, r#"write "200-399""#, problems)?.to_owned(),
        };
        match text.parse() {
            Ok(more) => list = list.union(more),
            Err(error) => {
                let message = format!("`{text}` is not a list of statuses");
                problems.error(&node.position, message, format!("{error}"));
                return None;
            }
        }
    }
    Some(list)
}

fn headers(section: &Section<'_>, problems: &mut Problems<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let Some(node) = section.get("headers") else {
        return Vec::new();
    };
    let Some(table) = value::table(node, r#"{ X-Probe = "acequia" }"#, problems) else {
        return Vec::new();
    };
    if table.entries.len() > FIELDS_MAX {
        problems.error(
            &node.position,
            "too many header fields",
            format!("at most {FIELDS_MAX}"),
        );
    }
    let (mut fields, mut names) = (Vec::new(), HashSet::new());
    for entry in &table.entries {
        let Some((name, value)) = field(entry, problems) else {
            continue;
        };
        // A `HeaderName` is in lower case.
        if !names.insert(name.as_str().to_owned()) {
            let message = format!("duplicate header field `{}`", entry.key);
            problems.error(&entry.position, message, "keep one");
        }
        fields.push((name, value));
    }
    fields
}

fn field(entry: &KeyValue, problems: &mut Problems<'_>) -> Option<(HeaderName, HeaderValue)> {
    let name = HeaderName::from_bytes(entry.key.as_bytes()).ok();
    let (message, hint) = match name {
        None => (
            format!("`{}` is not the name of a header field", entry.key),
            "write letters, digits and hyphens, as in \"X-Probe\"",
        ),
        Some(HOST) => (
            "`Host` does not belong in `headers`".to_owned(),
            "write host = \"shop.example.com\" in [pools.NAME.health]",
        ),
        Some(name) if RESERVED_FIELDS.contains(&name) => (
            format!("`{}` cannot be set", entry.key),
            "remove it: checks send a request without a body and close the connection",
        ),
        Some(name) => return field_value(&entry.node, problems).map(|value| (name, value)),
    };
    problems.error(&entry.position, message, hint);
    None
}

/// The value is not shown in errors: it may be a secret.
fn field_value(node: &Node, problems: &mut Problems<'_>) -> Option<HeaderValue> {
    let hint = "write visible ASCII characters in quotes";
    let text = value::string(node, hint, problems)?.trim();
    let is_visible = !text.is_empty() && text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    let value = HeaderValue::from_str(text).ok().filter(|_| is_visible);
    if value.is_none() {
        problems.error(&node.position, "invalid value of a header field", hint);
    }
    value
}

#[cfg(test)]
mod tests {
    use crate::config::read;

    /// The report for an HTTP check with these keys; `None`: there are no errors.
    fn problems(keys: &str) -> Option<String> {
        let text = format!(
            "[listeners.l]\nbind = \"127.0.0.1:1\"\npool = \"p\"\n[pools.p]\nservers = [\"127.0.0.1:2\"]\n\
             [pools.p.health]\ncheck = \"http\"\n{keys}"
        );
        read("a.toml", &text).err().map(|report| report.to_string())
    }

    #[test]
    fn a_path_has_no_fragment_no_space_and_only_ascii() {
        assert_eq!(problems("path = \"/a%23b?c=d\""), None);
        for path in ["/a#b", "/ä", "/a b"] {
            let report = problems(&format!("path = \"{path}\"")).unwrap_or_default();
            assert!(report.contains(&format!("`{path}` is not a path")), "{path}: {report}");
        }
    }

    #[test]
    fn a_header_field_is_written_once_and_no_body_is_expected_of_head() {
        for (keys, expected) in [
            ("headers = { X-A = \"1\", x-a = \"2\" }", "duplicate header field `x-a`"),
            ("method = \"HEAD\"\nbody = \"ok\"", "`body` is never found"),
            (
                "method = \"HEAD\"\nwrong_role = 503\nwrong_role_body = \"ok\"",
                "`wrong_role_body` is never found",
            ),
        ] {
            let report = problems(keys).unwrap_or_default();
            assert!(report.contains(expected), "{keys}: {report}");
        }
        assert_eq!(
            problems("method = \"HEAD\"\nheaders = { X-A = \"1\", X-B = \"1\" }"),
            None
        );
    }
}
