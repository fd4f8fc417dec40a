//! Errors with sources: adds a context to an error, and displays or searches an error with its sources.

use std::error::Error;
use std::io;

/// The text of an error and its sources, separated by colons: `cannot open the log: /var/log/a.log: Permission denied`.
///
/// Nearly all errors of this crate display only their own part. Where an error displays its source too, as in some
/// other crates, the source is not repeated.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    append_sources(&mut text, error.source(), ToString::to_string);
    text
}

/// As [`chain`], with each part as `display` shows it.
#[must_use]
pub fn chain_with(error: &(dyn Error + 'static), display: impl Fn(&(dyn Error + 'static)) -> String) -> String {
    let mut text = display(error);
    append_sources(&mut text, error.source(), display);
    text
}

fn append_sources(
    text: &mut String,
    mut source: Option<&(dyn Error + 'static)>,
    display: impl Fn(&(dyn Error + 'static)) -> String,
) {
    while let Some(error) = source {
        let next = display(error);
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = error.source();
    }
}

/// Adds a context to an error. The result has the same kind, displays the context, and has the error as its source.
#[must_use]
pub fn with_context(error: io::Error, context: impl Into<String>) -> io::Error {
    #[derive(Debug, thiserror::Error)]
    #[error("{context}")]
    struct Context {
        context: String,
        source: io::Error,
    }

    let context = context.into();
    io::Error::new(error.kind(), Context { context, source: error })
}

/// The errno(3) of an error or of one of its sources; `None`: none of them is an error of the system.
#[must_use]
pub fn os_error(error: &io::Error) -> Option<i32> {
    let mut number = error.raw_os_error();
    let mut source = error.source();
    while let (None, Some(cause)) = (number, source) {
        number = cause.downcast_ref().and_then(io::Error::raw_os_error);
        source = cause.source();
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_os_error_number_is_found_below_contexts() {
        let cause = || io::Error::from_raw_os_error(24);
        assert_eq!(os_error(&cause()), Some(24));
        assert_eq!(
            os_error(&with_context(with_context(cause(), "/bin/a"), "cannot run")),
            Some(24)
        );
        assert_eq!(os_error(&io::ErrorKind::NotFound.into()), None);
        assert_eq!(os_error(&io::Error::other("exit status: 24")), None);
    }

    #[test]
    fn a_chain_displays_each_context_and_the_cause_once() {
        let cause = io::Error::from(io::ErrorKind::NotFound);
        let error = with_context(with_context(cause, "/etc/a.pem"), "ca_file");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert_eq!(error.to_string(), "ca_file");
        assert_eq!(chain(&error), "ca_file: /etc/a.pem: entity not found");
    }

    #[test]
    fn a_source_that_an_error_displays_itself_is_not_repeated() {
        #[derive(Debug, thiserror::Error)]
        #[error("request failed: {0}")]
        struct Foreign(#[source] io::Error);

        let error = Foreign(io::Error::other("no route"));
        assert_eq!(chain(&error), "request failed: no route");
    }
}
