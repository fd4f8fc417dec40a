//! `acequia top`: the servers and sessions of a running process, live, in the terminal.
//!
//! It follows the stream of events, as the page does: a process with very many servers then makes the same events for all
//! who look, at a bounded cost, and the rates come with them. Sessions are not part of the stream and are read while
//! they are shown.

mod columns;
mod rows;
mod list;
mod question;
mod view;
mod palette;
mod header;
mod table;
mod draw;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event};
use serde::de::DeserializeOwned;
use tokio::runtime;
use tokio::select;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::exit::{EXIT_RUN, EXIT_USAGE};
use super::remote::{ApiRequest, EventStream, Remote, RemoteError};
use super::terminal::print_message;
use crate::admin::session_bodies::SessionsBody;
use palette::Palette;
use view::{Action, View};

/// How often the sessions are read while they are shown.
const SESSIONS_INTERVAL: Duration = Duration::from_secs(2);

/// The process sends a sample every second. After so long without an event it counts as lost.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// Shows the process until the user quits or the process is lost. Returns the exit code: 0; 2 if there is no terminal;
/// 3 if no process answers, or it is lost.
#[must_use]
pub fn run(remote: &Remote) -> ExitCode {
    let refuse = |message| {
        print_message("error", message);
        ExitCode::from(EXIT_USAGE)
    };
    if remote.wants_json() {
        return refuse("`top` has no --json: use `acequia servers --json`, or the stream /api/v1/events of the API");
    }
    if !io::stdout().is_terminal() {
        return refuse("`top` needs a terminal: use `acequia servers` and `acequia sessions`");
    }
    match show(remote) {
        Ok(()) => ExitCode::SUCCESS,
        Err(TopError::Remote(error)) => error.print(),
        Err(TopError::Terminal(error)) => {
            print_message("error", &format!("the terminal failed: {error}"));
            ExitCode::from(EXIT_RUN)
        }
    }
}

/// Why it ended without being asked to.
#[derive(Debug, thiserror::Error)]
enum TopError {
    #[error(transparent)]
    Remote(#[from] RemoteError),
    #[error(transparent)]
    Terminal(#[from] io::Error),
}

fn show(remote: &Remote) -> Result<(), TopError> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(RemoteError::Runtime)?;
    runtime.block_on(async {
        // Before the terminal changes, so that an error is printed as by every command.
        let events = remote.events().await?;
        let mut screen = RawTerminal::open()?;
        Top::new(remote, events)?.run(&mut screen.terminal).await
    })
}

/// The terminal in raw mode and on its alternate screen, until this is dropped. A panic restores it before the message.
struct RawTerminal {
    terminal: DefaultTerminal,
}

impl RawTerminal {
    fn open() -> io::Result<Self> {
        let terminal = ratatui::try_init().inspect_err(|_| drop(ratatui::try_restore()))?;
        Ok(Self { terminal })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = ratatui::try_restore(); // fails if the terminal is gone
    }
}

/// A response of the process.
enum Response {
    Sessions(Result<SessionsBody, RemoteError>),
    /// What was done, or why it was not.
    Act(Result<String, RemoteError>),
}

struct Top {
    remote: Remote,
    events: EventStream,
    /// When the process counts as lost, unless an event comes.
    silent_at: Instant,
    keys: mpsc::Receiver<io::Result<Event>>,
    /// They end it: a hang-up, an interrupt, a request to terminate.
    signals: [Signal; 3],
    responses: JoinSet<Response>,
    reads_sessions: bool,
    view: View,
}

impl Top {
    fn new(remote: &Remote, events: EventStream) -> io::Result<Self> {
        Ok(Self {
            remote: remote.clone(),
            events,
            silent_at: Instant::now() + SILENCE_MAX,
            keys: read_keys()?,
            signals: [
                signal(SignalKind::hangup())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
            ],
            responses: JoinSet::new(),
            reads_sessions: false,
            view: View::default(),
        })
    }

    async fn run(mut self, terminal: &mut DefaultTerminal) -> Result<(), TopError> {
        let palette = Palette::from_environment();
        let mut sessions_due = interval(SESSIONS_INTERVAL);
        sessions_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            terminal.draw(|frame| draw::draw(frame, &mut self.view, &palette))?;
            let [hang_up, interrupt, terminate] = &mut self.signals;
            select! {
                event = self.events.next() => {
                    let (name, data) = event?;
                    self.silent_at = Instant::now() + SILENCE_MAX;
                    self.take_event(&name, &data)?;
                }
                () = sleep_until(self.silent_at) => return Err(RemoteError::Timeout(SILENCE_MAX).into()),
                event = self.keys.recv() => {
                    let event = event.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))?;
                    // Everything is drawn again also after other events, such as a change of the size.
                    match event.as_key_event().and_then(|key| self.view.press(key)) {
                        Some(Action::Quit) => return Ok(()),
                        Some(action) => self.act(action),
                        None => {}
                    }
                }
                _ = sessions_due.tick(), if self.view.shows_sessions() => self.act(Action::ReadSessions),
                Some(response) = self.responses.join_next() => match response {
                    Ok(Response::Sessions(response)) => {
                        self.reads_sessions = false;
                        self.view.take_sessions(response.map_err(|error| error.to_string()));
                    }
                    Ok(Response::Act(response)) => self.view.take_answer(response.map_err(|error| error.to_string())),
                    Err(failed) => std::panic::resume_unwind(failed.into_panic()), // nothing cancels these tasks
                },
                _ = hang_up.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                _ = terminate.recv() => return Ok(()),
            }
        }
    }

    fn take_event(&mut self, name: &str, data: &str) -> Result<(), RemoteError> {
        fn read<T: DeserializeOwned>(data: &str) -> Result<T, RemoteError> {
            serde_json::from_str(data).map_err(RemoteError::InvalidResponse)
        }
        match name {
            "state" => self.view.take_state(read(data)?),
            "changes" => self.view.take_changes(read(data)?),
            "sample" => self.view.take_sample(read(data)?),
            _ => {} // of a later version
        }
        Ok(())
    }

    /// Starts a request; the loop takes its response.
    fn act(&mut self, action: Action) {
        let remote = self.remote.clone();
        match action {
            Action::Quit => {}
            Action::ReadSessions if self.reads_sessions => {}
            Action::ReadSessions => {
                self.reads_sessions = true;
                let request = ApiRequest::get(self.view.sessions_path());
                self.responses.spawn(async move {
                    let bytes = remote.fetch(request).await;
                    let read = |bytes: hyper::body::Bytes| {
                        serde_json::from_slice(&bytes).map_err(RemoteError::InvalidResponse)
                    };
                    Response::Sessions(bytes.and_then(read))
                });
            }
            Action::Change { request, done } => {
                self.responses.spawn(async move {
                    let response = remote.fetch(request).await;
                    Response::Act(response.map(|_| done))
                });
            }
        }
    }
}

/// Reads the terminal's events. The thread ends with the process: nothing interrupts a read.
fn read_keys() -> io::Result<mpsc::Receiver<io::Result<Event>>> {
    let (sender, receiver) = mpsc::channel(16);
    let thread = thread::Builder::new().name("keys".to_owned());
    thread.spawn(move || {
        loop {
            let event = event::read();
            let is_last = event.is_err();
            if sender.blocking_send(event).is_err() || is_last {
                return;
            }
        }
    })?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::RawTerminal;

    const IN_TERMINAL: &str = "ACEQUIA_TEST_IN_TERMINAL";

    /// Runs itself in a terminal, and panics there.
    #[test]
    fn a_panic_restores_the_terminal() {
        if std::env::var_os(IN_TERMINAL).is_some() {
            let _screen = RawTerminal::open().unwrap();
            panic!("on purpose");
        }
        let program = std::env::current_exe().unwrap();
        let test = "cli::top::tests::a_panic_restores_the_terminal --exact --nocapture";
        let mut terminal = Command::new("script");
        terminal
            .arg("-qec")
            .arg(format!("'{}' {test}; stty -a", program.display()));
        terminal.arg("/dev/null").env(IN_TERMINAL, "1").stdin(Stdio::null());
        let output = terminal.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("{part:?}: {text}"));
        let [enters, leaves] = ["\u{1b}[?1049h", "\u{1b}[?1049l"].map(at);
        assert!(enters < leaves && leaves < at("on purpose"), "{text}");
        for mode in ["icanon", "echo", "isig", "icrnl", "opost"] {
            assert!(text.split_whitespace().any(|word| word == mode), "{mode}: {text}");
        }
    }
}
