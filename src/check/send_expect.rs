//! The check `send-expect`: a conversation with the server. The configuration says what is sent, and what the answers
//! must match.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::pattern::Pattern;
use super::stream::CheckStream;
use super::tls::{TlsCheck, TlsProbe, open, optional_settings};
use super::{Check, CheckKind, CheckPass, CheckTarget, Probe, RunningCheck};
use crate::error::with_context;
use crate::text::escape_bounded;
use crate::tls::error_chain;
use crate::units::format_duration;

/// The kind.
pub static KIND: CheckKind = CheckKind {
    name: "send-expect",
    health_keys: &["steps", "tls", "sni", "verify", "ca_file"],
    pool_keys: &[],
    service: None,
};

/// The most bytes that are read in one check.
const BYTES_MAX: usize = 1 << 16;

/// The most reads in one check. Each is followed by a search of all bytes since the last match; a server that sends
/// byte by byte must not cause many searches. 64 KiB in packets of 576 bytes (RFC 1122, section 3.3.3), 536 of which
/// are data, are 123 reads.
const READS_MAX: usize = 256;

/// The most characters of a pattern that an error shows, so that there is room for the answer.
const PATTERN_CHARS_SHOWN: usize = 64;

/// The most bytes of an answer that an error shows.
const ANSWER_BYTES_SHOWN: usize = 256;

/// The check `send-expect`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendExpectCheck {
    /// The steps, in their order.
    pub steps: Vec<ConversationStep>,
    /// `None`: no TLS.
    pub tls: Option<TlsCheck>,
}

/// A step of a conversation: an entry of `steps`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConversationStep {
    /// Bytes that are sent first.
    pub send: Option<Box<[u8]>>,
    /// After that, the answer is read until this pattern matches what the server has sent since the last match.
    pub expect: Option<Pattern>,
}

impl Check for SendExpectCheck {
    fn kind(&self) -> &'static CheckKind {
        &KIND
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        let Self { steps, tls } = self;
        let mut settings = vec![("health.steps", format!("{steps:?}"))];
        settings.extend(optional_settings(tls.as_ref()));
        settings
    }

    fn files(&self) -> Vec<(&'static str, &Path)> {
        self.tls.iter().flat_map(TlsCheck::files).collect()
    }

    fn reads_certificate(&self) -> bool {
        self.tls.is_some()
    }

    fn probe(self: Arc<Self>, target: CheckTarget) -> Box<dyn Probe> {
        let tls = self.tls.clone().map(|tls| TlsProbe::new(Arc::new(tls), target.clone()));
        Box::new(SendExpectProbe {
            check: self,
            target,
            tls,
            progress: Mutex::default(),
        })
    }
}

struct SendExpectProbe {
    check: Arc<SendExpectCheck>,
    target: CheckTarget,
    tls: Option<TlsProbe>,
    progress: Mutex<ConversationState>,
}

impl Probe for SendExpectProbe {
    fn run(&self) -> RunningCheck<'_> {
        Box::pin(async {
            *self.progress.lock() = ConversationState::default();
            let (stream, certificate) = open(&self.target, self.tls.as_ref()).await?;
            converse(&self.check.steps, stream, &self.progress).await?;
            Ok(CheckPass {
                certificate,
                ..CheckPass::default()
            })
        })
    }

    fn timed_out(&self) -> io::Error {
        let ConversationState { step, part, answer } = &*self.progress.lock();
        let timeout = format_duration(self.target.timeout);
        let Some(entry) = step.checked_sub(1).and_then(|index| self.check.steps.get(index)) else {
            return ErrorKind::TimedOut.into(); // no connection, or its TLS handshake was not complete
        };
        let what = match &entry.expect {
            Some(pattern) if *part == StepPart::Expect => {
                let found = if answer.is_empty() { "nothing" } else { "no match" };
                unmet(*step, pattern, &format!("{found} within {timeout}"), answer)
            }
            _ => format!("{}: not done within {timeout}", sending(*step)),
        };
        io::Error::new(ErrorKind::TimedOut, what)
    }
}

/// How far a conversation has come.
#[derive(Default)]
struct ConversationState {
    /// The number of the step under way, from 1 on; 0: there is no connection yet, or its TLS handshake is under way.
    step: usize,
    part: StepPart,
    /// The beginning of what the server has sent since the last match.
    answer: Vec<u8>,
}

/// The part of a step that is under way.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum StepPart {
    #[default]
    Send,
    Expect,
}

/// The name of the sending part of a step, for errors.
fn sending(step: usize) -> String {
    format!("step {step} (send)")
}

/// The message that a step has not found its pattern. `answer`: what the server has sent since the last match.
fn unmet(step: usize, pattern: &Pattern, why: &str, answer: &[u8]) -> String {
    let pattern = escape_bounded(pattern.as_str(), PATTERN_CHARS_SHOWN);
    let answer = String::from_utf8_lossy(&answer[..answer.len().min(ANSWER_BYTES_SHOWN)]);
    let got = if answer.is_empty() {
        String::new()
    } else {
        format!("; got `{answer}`")
    };
    format!("step {step} (expect `{pattern}`): {why}{got}")
}

/// Carries out the steps, then closes the connection.
///
/// # Errors
/// The connection fails, or a pattern is not found before the server closes or a limit is reached.
async fn converse(
    steps: &[ConversationStep],
    stream: Box<dyn CheckStream>,
    progress: &Mutex<ConversationState>,
) -> io::Result<()> {
    let mut connection = ScriptedConnection::new(stream);
    for (number, step) in (1..).zip(steps) {
        connection.publish(progress, number, StepPart::Send);
        if let Some(bytes) = &step.send {
            let sent = connection.send(bytes).await;
            sent.map_err(|error| with_context(error, sending(number)))?;
        }
        if let Some(pattern) = &step.expect {
            connection.expect(number, pattern, progress).await?;
        }
    }
    let _ = connection.stream.shutdown().await; // an error does not count: the server has passed
    Ok(())
}

/// The connection to a server, and the bytes that it has sent.
struct ScriptedConnection {
    stream: Box<dyn CheckStream>,
    bytes: Vec<u8>,
    last_match_end: usize,
    reads: usize,
}

impl ScriptedConnection {
    fn new(stream: Box<dyn CheckStream>) -> Self {
        Self {
            stream,
            bytes: Vec::new(),
            last_match_end: 0,
            reads: 0,
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Reads until the pattern matches. `number`: that of the step, for errors.
    async fn expect(
        &mut self,
        number: usize,
        pattern: &Pattern,
        progress: &Mutex<ConversationState>,
    ) -> io::Result<()> {
        loop {
            self.publish(progress, number, StepPart::Expect);
            if let Some(end) = pattern.find_end(&self.bytes[self.last_match_end..]).await? {
                self.last_match_end += end;
                return Ok(());
            }
            let (kind, why) = if self.bytes.len() == BYTES_MAX {
                (
                    ErrorKind::Other,
                    format!("no match, and the server has sent {BYTES_MAX} bytes"),
                )
            } else if self.reads == READS_MAX {
                let why = format!("no match, and what the server has sent came in {READS_MAX} parts");
                (ErrorKind::Other, why)
            } else {
                match self.read().await {
                    Ok(0) => (ErrorKind::Other, "the server closed the connection".to_owned()),
                    Ok(_) => continue,
                    Err(error) => (error.kind(), error_chain(&error)),
                }
            };
            let what = unmet(number, pattern, &why, &self.bytes[self.last_match_end..]);
            return Err(io::Error::new(kind, what));
        }
    }

    /// Publishes how far the conversation has come, for the error of a timeout.
    fn publish(&self, progress: &Mutex<ConversationState>, step: usize, part: StepPart) {
        let answer = &self.bytes[self.last_match_end..];
        let mut progress = progress.lock();
        progress.step = step;
        progress.part = part;
        progress.answer.clear();
        progress
            .answer
            .extend_from_slice(&answer[..answer.len().min(ANSWER_BYTES_SHOWN)]);
    }

    /// Reads some bytes. Returns how many; 0: the server has closed.
    async fn read(&mut self) -> io::Result<usize> {
        self.reads += 1;
        let room = (BYTES_MAX - self.bytes.len()) as u64;
        (&mut self.stream).take(room).read_buf(&mut self.bytes).await
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::error::chain;

    fn expect(pattern: &str) -> ConversationStep {
        let expect = Some(Pattern::new(pattern).unwrap());
        ConversationStep { send: None, expect }
    }

    fn send(bytes: &[u8]) -> ConversationStep {
        ConversationStep {
            send: Some(bytes.into()),
            expect: None,
        }
    }

    fn ask(bytes: &[u8], pattern: &str) -> ConversationStep {
        ConversationStep {
            send: Some(bytes.into()),
            ..expect(pattern)
        }
    }

    /// Runs the steps with a server.
    async fn run<F: Future<Output = ()> + Send + 'static>(
        steps: &[ConversationStep],
        server: impl FnOnce(DuplexStream) -> F,
    ) -> Result<(), String> {
        let (ours, theirs) = duplex(4096);
        tokio::spawn(server(theirs));
        let ended = converse(steps, Box::new(ours), &Mutex::default()).await;
        ended.map_err(|error| chain(&error))
    }

    #[tokio::test]
    async fn each_step_searches_after_the_last_match() {
        let steps = [
            expect(r"^220 .*\r\n"),
            ask(b"EHLO a\r\n", "(?m)^250 OK"),
            send(b"QUIT\r\n"),
            expect("^\r\n221"), // `\r\n` ends the line `250 OK`
        ];
        let smtp = |mut stream: DuplexStream| async move {
            stream.write_all(b"220 m").await.unwrap();
            stream.write_all(b"ail\r\n").await.unwrap();
            stream.read_exact(&mut [0; 8]).await.unwrap();
            stream.write_all(b"250-SIZE\n250 OK\r\n").await.unwrap();
            stream.read_exact(&mut [0; 6]).await.unwrap();
            stream.write_all(b"221").await.unwrap();
        };
        assert_eq!(run(&steps, smtp).await, Ok(()));
    }

    #[tokio::test]
    async fn the_error_names_the_failed_step_and_the_received_bytes() {
        let closing = |mut stream: DuplexStream| async move {
            stream.write_all(b"-NOAUTH\r\n").await.unwrap();
            stream.read_exact(&mut [0; 9]).await.unwrap();
        };
        let failed = run(&[expect("^-NO"), send(b"A\r\n"), ask(b"PING\r\n", r"^\+PONG")], closing).await;
        let reason = "step 3 (expect `^\\+PONG`): the server closed the connection; got `AUTH\r\n`";
        assert_eq!(failed.unwrap_err(), reason);
    }

    #[tokio::test]
    async fn errors_of_the_connection_name_the_step() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut theirs, _) = listener.accept().await.unwrap();
        let server = tokio::spawn(async move {
            theirs.read_exact(&mut [0; 1]).await.unwrap();
            theirs.set_zero_linger().unwrap();
        });
        let steps = [send(b"A"), expect("y")];
        let error = converse(&steps, Box::new(ours), &Mutex::default()).await.unwrap_err();
        server.await.unwrap();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let reason = "step 2 (expect `y`): Connection reset by peer (os error 104)";
        assert_eq!(chain(&error), reason);
        let closed = run(&[ask(b"A", "y")], |stream| async move { drop(stream) }).await;
        assert!(closed.unwrap_err().starts_with("step 1 ("));
    }

    #[tokio::test]
    async fn received_bytes_and_reads_are_limited() {
        let endless = |mut stream: DuplexStream| async move { while stream.write_all(&[b'x'; 999]).await.is_ok() {} };
        let failed = run(&[expect("y")], endless).await.unwrap_err();
        assert!(
            failed.contains("no match, and the server has sent 65536 bytes; got `xxx"),
            "{failed}"
        );
        let dripping = |mut stream: DuplexStream| async move {
            while stream.write_all(b"x").await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        let failed = run(&[expect("y")], dripping).await.unwrap_err();
        assert!(failed.contains("came in 256 parts"), "{failed}");
    }
}
