//! Escapes, in JSON responses, the characters that are unsafe to display. The responses contain names that clients have
//! sent, and curl does not escape what it shows.

use std::borrow::Cow;

use axum::body::{Body, to_bytes};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use crate::text::escape_json;

/// Escapes the body of a response that is JSON. Such a body is in memory as a whole.
pub(super) async fn escape_body(response: Response) -> Response {
    let is_json = response
        .headers()
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind == "application/json");
    if !is_json {
        return response;
    }
    let (head, body) = response.into_parts();
    let Ok(bytes) = to_bytes(body, usize::MAX).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response(); // never: it is in memory
    };
    let escaped = match std::str::from_utf8(&bytes).map(escape_json) {
        Ok(Cow::Owned(escaped)) => Some(escaped),
        Ok(Cow::Borrowed(_)) | Err(_) => None, // nothing is unsafe, or the body is not UTF-8
    };
    let body = match escaped {
        Some(escaped) => Body::from(escaped),
        None => Body::from(bytes),
    };
    Response::from_parts(head, body)
}
