//! The page at `/`: HTML, style and scripts, which are part of the binary. They are public; the data that they show
//! comes from the API, under its rules.

use axum::Router;
use axum::http::{HeaderName, header};
use axum::response::IntoResponse;
use axum::routing::get;

/// Allows nothing but files and requests of the same origin (W3C Content Security Policy, level 3).
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

/// The path, content type and content of each file.
const FILES: &[(&str, &str, &str)] = &[
    ("/", HTML, include_str!("page/page.html")),
    ("/page.css", STYLE, include_str!("page/page.css")),
    ("/page.svg", IMAGE, include_str!("page/page.svg")),
    ("/page.js", SCRIPT, include_str!("page/page.js")),
    ("/actions.js", SCRIPT, include_str!("page/actions.js")),
    ("/charts.js", SCRIPT, include_str!("page/charts.js")),
    ("/dom.js", SCRIPT, include_str!("page/dom.js")),
    ("/flow.js", SCRIPT, include_str!("page/flow.js")),
    ("/lists.js", SCRIPT, include_str!("page/lists.js")),
    ("/overview.js", SCRIPT, include_str!("page/overview.js")),
    ("/route.js", SCRIPT, include_str!("page/route.js")),
    ("/source.js", SCRIPT, include_str!("page/source.js")),
    ("/state.js", SCRIPT, include_str!("page/state.js")),
    ("/tables.js", SCRIPT, include_str!("page/tables.js")),
];

/// Serves the files.
pub(super) fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let add = |router: Router<S>, &(path, content_type, content): &(&'static str, &'static str, &'static str)| {
        router.route(path, get(async move || file(content_type, content)))
    };
    FILES.iter().fold(Router::new(), add)
}

fn file(content_type: &'static str, content: &'static str) -> impl IntoResponse {
    let headers: [(HeaderName, &str); 5] = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Another version of the program serves other files at the same paths.
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_at_most_150_kb() {
        let bytes: usize = FILES.iter().map(|(_, _, content)| content.len()).sum();
        assert!(bytes <= 150_000, "{bytes}");
    }

    #[test]
    fn scripts_never_insert_text_as_html() {
        for (path, _, content) in FILES.iter().filter(|(_, content_type, _)| *content_type == SCRIPT) {
            for call in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
            ] {
                assert!(!content.contains(call), "{path}: {call}");
            }
        }
    }

    #[test]
    fn every_file_of_the_directory_is_served() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/admin/page");
        for entry in std::fs::read_dir(directory).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = if name == "page.html" {
                "/".to_owned()
            } else {
                format!("/{name}")
            };
            assert!(FILES.iter().any(|(served, _, _)| *served == path), "{name}");
        }
    }
}
