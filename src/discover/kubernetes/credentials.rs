//! The credentials for the API server of Kubernetes, as they were read.

use std::error::Error;
use std::path::Path;

use hyper::header::HeaderValue;

use crate::error::with_context;
use crate::regular_file;
use crate::tls::PemText;

/// The longest file of a token.
const TOKEN_BYTES_MAX: u64 = 64 << 10;

/// Why the credentials cannot be used, or why a request has failed.
pub(super) type AccessError = Box<dyn Error + Send + Sync>;

/// The URL of the API server, the trusted authorities, and the login.
pub(super) struct ApiCredentials {
    pub(super) server: String,
    /// `None`: the system trust store.
    pub(super) trusted: Option<PemText>,
    pub(super) token: Option<Token>,
    /// A certificate with its chain, and its key.
    pub(super) identity: Option<(PemText, PemText)>,
    /// The name of these credentials in errors.
    pub(super) name: String,
}

/// A token, and its name in errors.
pub(super) struct Token {
    pub(super) text: String,
    pub(super) name: String,
}

impl Token {
    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read, is too long, or contains no token.
    pub(super) fn read(file: &Path) -> Result<Self, AccessError> {
        let name = file.display().to_string();
        let read = regular_file::read_secret(file, TOKEN_BYTES_MAX, <[u8]>::trim_ascii);
        let bytes = read.map_err(|error| with_context(error, name.clone()))?;
        let text = std::str::from_utf8(&bytes).map_err(|_| format!("{name}: it is not UTF-8"))?;
        Ok(Self {
            text: text.to_owned(),
            name: format!("the token in {name}"),
        })
    }

    /// The header with the token (RFC 6750, section 2.1).
    ///
    /// # Errors
    /// The token has a character that no header may have.
    pub(super) fn bearer(&self) -> Result<HeaderValue, AccessError> {
        let Self { text, name } = self;
        let mut header = HeaderValue::try_from(format!("Bearer {text}"))
            .map_err(|_| format!("{name} contains a character that no token may contain"))?;
        header.set_sensitive(true);
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::error::chain;

    #[test]
    fn an_unusable_token_is_not_shown() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        for (text, problem) in [(&b" \n"[..], "it is empty"), (b"secret\xff", "it is not UTF-8")] {
            fs::write(&file, text).unwrap();
            let error = chain(&*Token::read(&file).err().unwrap());
            assert!(error.ends_with(problem) && !error.contains("secret"), "{error}");
        }
        // A file over the limit.
        fs::write(&file, format!(" secret{}", "x".repeat(64 << 10))).unwrap();
        let error = chain(&*Token::read(&file).err().unwrap());
        assert!(error.ends_with("it is longer than 64KiB"), "{error}");
        fs::write(&file, "secret\nsecret").unwrap();
        let error = Token::read(&file).unwrap().bearer().unwrap_err();
        assert!(!chain(&*error).contains("secret"), "{error}");
    }
}
