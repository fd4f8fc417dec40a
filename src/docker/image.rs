//! Images of an engine.

use std::time::Duration;

use hyper::{Method, StatusCode};
use serde::Deserialize;
use tokio::time::timeout;

use super::engine::{DockerEngine, DockerError, REQUEST_TIMEOUT, query};
use crate::http_client::ResponseLines;
use crate::text::Reason;
use crate::units::format_duration;

/// How long the pull of an image may take: enough for gigabytes over a slow network.
const PULL_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// The longest line about the progress of a pull.
const PROGRESS_BYTES_MAX: usize = 64 << 10;

/// A line about the progress of a pull.
#[derive(Default, Deserialize)]
struct PullProgress {
    /// Why the pull has failed.
    error: Option<String>,
}

impl DockerEngine {
    /// Whether the engine has an image.
    pub(crate) async fn has_image(&self, image: &str) -> Result<bool, DockerError> {
        let path = format!("/images/{image}/json");
        let response = self.ask(Method::GET, &path, None, REQUEST_TIMEOUT).await?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(false),
            _ => self.json::<serde::de::IgnoredAny>(&response).map(|_| true),
        }
    }

    /// Pulls an image from its registry, without a login, within a quarter of an hour. Dropping the future ends the
    /// pull.
    pub(crate) async fn pull(&self, image: &str) -> Result<(), DockerError> {
        let (name, tag) = name_and_tag(image);
        let query = query(&[("fromImage", name), ("tag", tag)]);
        let pulled = async {
            let response = self.stream(Method::POST, &format!("/images/create?{query}")).await?;
            let mut lines = ResponseLines::new(response, PROGRESS_BYTES_MAX);
            while let Some(line) = lines.next().await? {
                // What fails after the engine has sent the status of the response is an error in the body.
                let progress: PullProgress = serde_json::from_slice(&line).unwrap_or_default();
                if let Some(error) = progress.error {
                    return Err(Reason::from(error).to_string().into());
                }
            }
            Ok(())
        };
        let timed_out = || Err(format!("it takes longer than {}", format_duration(PULL_TIMEOUT)).into());
        timeout(PULL_TIMEOUT, pulled).await.unwrap_or_else(|_| timed_out())
    }
}

/// The name and the tag of an image. An image without a tag gets the default tag, because otherwise the engine would
/// pull all images of that name. A digest counts as a tag.
fn name_and_tag(image: &str) -> (&str, &str) {
    if let Some(parts) = image.split_once('@') {
        return parts;
    }
    // A colon before a slash belongs to a port.
    let parts = image.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'));
    parts.unwrap_or((image, "latest"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_split_into_name_and_tag_or_digest() {
        for (image, name, tag) in [
            ("app", "app", "latest"),
            ("app:1", "app", "1"),
            ("registry:5000/team/app", "registry:5000/team/app", "latest"),
            ("registry:5000/team/app:1.2", "registry:5000/team/app", "1.2"),
            ("registry:5000/app@sha256:0123", "registry:5000/app", "sha256:0123"),
            ("app:1@sha256:0123", "app:1", "sha256:0123"),
        ] {
            assert_eq!(name_and_tag(image), (name, tag));
        }
    }
}
