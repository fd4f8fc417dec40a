//! Regular expressions that are matched with the bytes that servers send.

use std::sync::Arc;
use std::{fmt, io};

use regex::bytes::{Regex, RegexBuilder};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// The largest compiled expression, in bytes. A search with an expression of this size takes at most some microseconds
/// for each byte searched.
const COMPILED_BYTES_MAX: usize = 1 << 16;

/// The largest cache of a search, in bytes. With a smaller cache, searches for expressions with many repetitions are
/// slower.
const CACHE_BYTES_MAX: usize = 1 << 18;

/// The most bytes that are searched on the calling thread. Such a search takes a few milliseconds at worst, and
/// microseconds usually.
const INLINE_BYTES_MAX: usize = 256;

/// A regular expression over bytes. `(?i)` and classes such as `\w` know ASCII only. Patterns are equal if they are
/// written alike.
#[derive(Clone)]
pub struct Pattern {
    regex: Arc<Regex>,
    /// Its only permit is held by the thread of a long search for this expression. See [`Self::find_end`].
    searching: Arc<Semaphore>,
}

impl Pattern {
    /// Compiles an expression.
    ///
    /// # Errors
    /// It is not valid, or too large.
    pub fn new(expression: &str) -> Result<Self, String> {
        let mut builder = RegexBuilder::new(expression);
        builder.unicode(false);
        let compiled = builder
            .size_limit(COMPILED_BYTES_MAX)
            .dfa_size_limit(CACHE_BYTES_MAX)
            .build();
        let regex = compiled.map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "it is too large".to_owned(),
            error => last_line(&error.to_string()),
        })?;
        Ok(Self {
            regex: Arc::new(regex),
            searching: Arc::new(Semaphore::new(1)),
        })
    }

    /// The expression.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.regex.as_str()
    }

    /// Whether a part of the text matches. Searches on the calling thread: the text must be short.
    pub(crate) fn is_in(&self, text: &str) -> bool {
        self.regex.is_match(text.as_bytes())
    }

    /// The end of the first match; `None`: there is none. More than [`INLINE_BYTES_MAX`] bytes are searched on another
    /// thread, and this search goes on if the future is dropped. So that threads do not pile up, only one such thread
    /// at a time searches for this expression.
    ///
    /// # Errors
    /// The thread has failed.
    pub(crate) async fn find_end(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let find_end = |regex: &Regex, bytes: &[u8]| regex.find(bytes).map(|found| found.end());
        if bytes.len() <= INLINE_BYTES_MAX {
            return Ok(find_end(&self.regex, bytes));
        }
        let searching = self.searching.clone().acquire_owned().await.expect("never closed");
        let (regex, bytes) = (self.regex.clone(), bytes.to_owned());
        let search = move || {
            let _searching = searching;
            find_end(&regex, &bytes)
        };
        Ok(spawn_blocking(search).await?)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&self.as_str()).finish()
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

/// The last line of an error. A syntax error has several lines: the expression, a mark, and what is wrong.
fn last_line(text: &str) -> String {
    let line = text.lines().last().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    #[tokio::test]
    async fn patterns_match_bytes_that_are_not_utf_8() {
        let pattern = Pattern::new(r"(?i)ok\xff.").unwrap();
        assert_eq!(pattern.find_end(b"\xfeOK\xff\x80rest").await.unwrap(), Some(5));
        assert_eq!(pattern.find_end(b"ok").await.unwrap(), None);
        let long = [&[b'x'; 1000], &b"ok\xff."[..]].concat();
        assert_eq!(pattern.find_end(&long).await.unwrap(), Some(1004));
    }

    #[tokio::test]
    async fn a_long_search_does_not_block_its_caller() {
        let pattern = Pattern::new(r"(\w{1,48}\w{1,48}){1,4}!").unwrap();
        let bytes = [b'a'; 1 << 16];
        let mut search = std::pin::pin!(pattern.find_end(&bytes));
        assert!(std::future::poll_fn(|cx| Poll::Ready(search.as_mut().poll(cx).is_pending())).await);
        assert_eq!(search.await.unwrap(), None);
    }

    #[test]
    fn an_error_is_one_line() {
        assert_eq!(Pattern::new("a(b").unwrap_err(), "unclosed group");
        for large in ["(a{1000}){1000}", r"\w{1,64}(\w{1,64}\w{1,64}){1,8}!"] {
            assert_eq!(Pattern::new(large).unwrap_err(), "it is too large");
        }
    }

    #[test]
    fn usual_expressions_are_not_too_large() {
        for usual in [
            r#""db":.{0,200}"up""#,
            r"(\d{1,3}\.){3}\d{1,3} up",
            r"(?i)(ready|running)\b",
        ] {
            assert!(Pattern::new(usual).is_ok(), "{usual}");
        }
    }
}
