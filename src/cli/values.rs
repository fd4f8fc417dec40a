//! Parsers of the values of arguments. They reject what no acequia would accept, before the command connects to one.

use hyper::Uri;

use crate::addr::parse_network;
use crate::admin;
use crate::units::parse_duration;

/// A network of clients.
pub(super) fn network(text: &str) -> Result<String, String> {
    match parse_network(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{error}: {}", error.hint())),
    }
}

/// A duration.
pub(super) fn duration(text: &str) -> Result<String, String> {
    match parse_duration(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// How long the effect of a request lasts.
pub(super) fn lifetime(text: &str) -> Result<String, String> {
    admin::parse_lifetime(text).map(|_| text.to_owned())
}

/// The URL of an admin port.
pub(super) fn url(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|error| format!("{error}"))?;
    match url.scheme_str() {
        Some("https" | "http") => Ok(url),
        _ => Err(String::from("write https://HOST:PORT or http://HOST:PORT")),
    }
}
