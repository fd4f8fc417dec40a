//! Asking a running process over its Unix socket.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::net::UnixStream;
use tokio::runtime;
use tokio::time::timeout;

use super::terminal::{complain, say, say_json};
use super::{EXIT_CONFIG, EXIT_RUN};
use crate::admin::bodies::{ErrorBody, ProcessBody};
use crate::admin::default_paths;
use crate::config;
use crate::plan::AdminSocket;

/// Longer than the process takes to answer, or to cut who waits.
const PATIENCE: Duration = Duration::from_secs(20);

/// Room for the state of some 100,000 servers.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The process that is meant, and how its answer is shown. Of a command with commands below it, behind these too.
#[derive(Clone, Debug, Args)]
pub struct Remote {
    /// Its Unix socket [default: that of its configuration, then the usual places]
    #[arg(long, value_name = "PATH", global = true)]
    socket: Option<PathBuf>,
    /// Its configuration, which names the socket
    #[arg(
        short = 'c',
        long = "config",
        value_name = "FILE",
        conflicts_with = "socket",
        global = true
    )]
    config: Option<PathBuf>,
    /// Shows the answer as it comes, for programs
    #[arg(long, global = true)]
    json: bool,
}

/// Why there is no answer to show.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// Nobody answers.
    #[error("{0}")]
    Unreachable(String),
    /// What was asked for is not to be had.
    #[error("{0}")]
    Refused(String),
}

impl Trouble {
    fn tell(&self) -> ExitCode {
        let what = self.to_string();
        // What is wrong with a configuration begins with that word already.
        complain("error", what.strip_prefix("error: ").unwrap_or(&what));
        self.exit_code()
    }

    fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Unreachable(_) => EXIT_RUN,
            Self::Refused(_) => EXIT_CONFIG,
        })
    }
}

/// What is asked.
pub struct Question {
    method: Method,
    path: String,
    body: String,
}

impl Question {
    /// Something that changes nothing.
    pub fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path, String::new())
    }

    /// Something that does; `body` is JSON.
    pub fn post(path: impl Into<String>, body: String) -> Self {
        Self::new(Method::POST, path, body)
    }

    /// That something end.
    pub fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path, String::new())
    }

    fn new(method: Method, path: impl Into<String>, body: String) -> Self {
        Self {
            method,
            path: path.into(),
            body,
        }
    }
}

impl Remote {
    /// Asks, and shows the answer: as it came, or as `shown` puts it. Exit code 0; 1 if it is refused, or what was asked
    /// for is not in it; 3 if nobody answers.
    pub fn ask<A: DeserializeOwned>(
        &self,
        question: Question,
        shown: impl FnOnce(A) -> Result<String, Trouble>,
    ) -> ExitCode {
        let answered = self.answer(question).and_then(|bytes| {
            let not_understood = |error| Trouble::Unreachable(format!("the answer is not understood: {error}"));
            let answer = serde_json::from_slice(&bytes);
            if !self.json {
                return shown(answer.map_err(not_understood)?);
            }
            match answer {
                Ok(answer) => drop(shown(answer)?),
                // Of another version, whose programs may understand it; but JSON it must be.
                Err(_) => drop(serde_json::from_slice::<IgnoredAny>(&bytes).map_err(not_understood)?),
            }
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        });
        match answered {
            Ok(json) if self.json => say_json(&json),
            Ok(text) => say(&text),
            Err(trouble) => trouble.tell(),
        }
    }

    fn answer(&self, question: Question) -> Result<Bytes, Trouble> {
        let (places, file) = self.places()?;
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Trouble::Unreachable(error.to_string()))?;
        runtime.block_on(async {
            let asked = timeout(PATIENCE, async {
                let stream = reach(&places, file.as_deref()).await?;
                exchange(stream, question).await
            });
            let late = |_| Trouble::Unreachable(format!("no answer within {PATIENCE:?}"));
            asked.await.map_err(late)?
        })
    }

    /// Where it may be, and the file it must run if it was looked for by one.
    fn places(&self) -> Result<(Vec<PathBuf>, Option<PathBuf>), Trouble> {
        if let Some(socket) = &self.socket {
            return Ok((vec![socket.clone()], None));
        }
        let Ok(file) = config::find(self.config.as_deref()) else {
            return Ok((default_paths(), None));
        };
        // What it says of anything else may be wrong: that is when one needs the process.
        let places = match config::admin_socket(&file) {
            Some(AdminSocket::At(path)) => vec![path],
            Some(AdminSocket::Usual) => default_paths(),
            Some(AdminSocket::Off) => {
                let what = "it has no socket: `socket` in [admin] of its configuration is \"off\"";
                return Err(Trouble::Unreachable(what.to_owned()));
            }
            None => {
                let what = "the configuration cannot be read (`acequia check` says why): name its socket with --socket";
                return Err(Trouble::Unreachable(what.to_owned()));
            }
        };
        Ok((places, Some(file)))
    }
}

/// Connects to the first place where somebody listens; where a file is named, somebody who runs it. Nobody is asked for
/// anything else before that is known: with the socket in its usual place several files lead to one process.
async fn reach(places: &[PathBuf], file: Option<&Path>) -> Result<UnixStream, Trouble> {
    let (mut unreachable, mut others) = (Vec::new(), Vec::new());
    for place in places {
        let stream = match connect(place).await {
            Ok(stream) => stream,
            Err(trouble) => {
                unreachable.push(trouble.to_string());
                continue;
            }
        };
        let Some(file) = file else { return Ok(stream) };
        let bytes = exchange(stream, Question::get("/api/v1/process")).await?;
        let process: ProcessBody = serde_json::from_slice(&bytes).map_err(|error| {
            let what = format!("{}: whoever answers there is no acequia: {error}", place.display());
            Trouble::Unreachable(what)
        })?;
        match process.configuration {
            Some(running) if is_same_file(file, Path::new(&running)) => return connect(place).await,
            running => others.push((place, process.pid, running)),
        }
    }
    let (Some((place, pid, running)), Some(file)) = (others.first(), file) else {
        let what = format!(
            "no acequia answers (name its socket with --socket): {}",
            unreachable.join("; ")
        );
        return Err(Trouble::Unreachable(what));
    };
    let named = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    Err(Trouble::Refused(format!(
        "the acequia at {} (pid {pid}) runs {}, not {}: name the socket of the one that is meant with --socket",
        place.display(),
        running.as_deref().unwrap_or("no file"),
        named.display()
    )))
}

/// Whether two paths lead to one file. One of them is as a process sees it, which may be in another file system: there
/// the path is all that can be compared.
fn is_same_file(named: &Path, running: &Path) -> bool {
    let number = |path: &Path| path.metadata().map(|there| (there.dev(), there.ino()));
    match (number(named), number(running)) {
        (Ok(named), Ok(running)) => named == running,
        _ => std::path::absolute(named).is_ok_and(|named| named == running),
    }
}

async fn connect(place: &Path) -> Result<UnixStream, Trouble> {
    let told = |error| Trouble::Unreachable(format!("{}: {error}", place.display()));
    UnixStream::connect(place).await.map_err(told)
}

async fn exchange(stream: UnixStream, question: Question) -> Result<Bytes, Trouble> {
    let lost = |error: &dyn std::fmt::Display| Trouble::Unreachable(format!("the connection was lost: {error}"));
    let request = Request::builder()
        .method(question.method)
        .uri(question.path)
        .header(header::HOST, "localhost")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(question.body)))
        .map_err(|error| Trouble::Refused(error.to_string()))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| lost(&error))?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(|error| lost(&error))?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
    let bytes = body.map_err(|error| lost(&error))?.to_bytes();
    connection.abort();
    if status == StatusCode::OK {
        return Ok(bytes);
    }
    let told = serde_json::from_slice(&bytes).map(|ErrorBody { error }| error);
    Err(Trouble::Refused(told.unwrap_or_else(|_| status.to_string())))
}
