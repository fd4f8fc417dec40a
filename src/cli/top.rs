//! `acequia top`: the servers and sessions of a running process, live, in the terminal.
//!
//! It follows the stream of events, as the admin page does. The process makes each event but the first of a stream only
//! once for all viewers, so that the cost is bounded even with very many servers. The rates are computed from counts in
//! the events. Sessions are not part of the stream and are read while they are shown.

mod columns;
mod filter;
mod rows;
mod list;
mod question;
mod rates;
mod feed;
mod view;
mod ascii;
mod palette;
mod header;
mod table;
mod draw;
mod screen;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event};
use tokio::runtime;
use tokio::select;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::exit::EXIT_RUN;
use super::remote::{ApiRequest, EventStream, Remote, RemoteError};
use super::terminal::{print_message, reject_arguments};
use crate::admin::session_bodies::SessionsBody;
use crate::error::chain;
use feed::Update;
use palette::Palette;
use screen::{RawTerminal, has_job_control};
use view::{Action, View};

/// How often the sessions are read while they are shown.
const SESSIONS_INTERVAL: Duration = Duration::from_secs(2);

/// How often everything is drawn again even without news: the screen shows ages, and how long the process has been
/// silent.
const DRAW_INTERVAL: Duration = Duration::from_secs(1);

/// Shows the process until the user quits, a signal ends the program, or an error occurs. Returns the exit code: 0; 2
/// with `--json` or without a terminal; 3 if the terminal fails; otherwise the exit code of the `RemoteError`.
#[must_use]
pub fn run(remote: &Remote) -> ExitCode {
    if remote.wants_json() {
        return reject_arguments(
            "`top` has no --json: use `acequia servers --json`, or the stream /api/v1/events of the API",
        );
    }
    if !io::stdout().is_terminal() {
        return reject_arguments("`top` needs a terminal: use `acequia servers` and `acequia sessions`");
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

/// The keys, for the screen and for `--help`.
pub(super) const KEYS: &str = "\
Tab        servers, or sessions
↑ ↓ PgUp PgDn Home End   select
/          filter by words in names and addresses; sessions
           also by pool=NAME, server=NAME, min_bytes=N, …,
           as `acequia sessions --filter`; \"a b\" is one word
Esc        no filter
< >        sort by another column
r          reverse the order
Enter      sessions of the selected server
d e x      drain, enable, disable the selected server
k          end the selected session
Ctrl-Z     stop until `fg`
q Ctrl-C   quit";

/// Why the program ended although the user did not quit.
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
        // The stream is opened before the terminal changes, so that an error is printed as by every command.
        let stream = feed::open(remote).await?;
        let mut screen = RawTerminal::open()?;
        Top::new(remote, stream)?.run(&mut screen).await
    })
}

/// A response of the process.
enum Response {
    Sessions(Result<SessionsBody, RemoteError>),
    /// The `done` of an [`Action::Change`], or why its request failed.
    Change(Result<String, RemoteError>),
}

struct Top {
    remote: Remote,
    news: mpsc::Receiver<Result<Update, RemoteError>>,
    /// The events of the terminal: keys, and others such as a change of its size.
    terminal_events: mpsc::Receiver<io::Result<Event>>,
    /// The signals that end the program: SIGHUP, SIGINT, SIGTERM.
    signals: [Signal; 3],
    /// The signal that stops the program until a shell continues it.
    stop: Signal,
    /// The signal that a shell sends when the program goes on after a stop.
    resumed: Signal,
    responses: JoinSet<Response>,
    /// The path of the request for the sessions that is under way.
    sessions_requested: Option<String>,
    view: View,
}

impl Top {
    fn new(remote: &Remote, stream: Option<EventStream>) -> io::Result<Self> {
        let (sender, news) = mpsc::channel(1);
        tokio::spawn(feed::follow(remote.clone(), stream, sender));
        Ok(Self {
            remote: remote.clone(),
            news,
            terminal_events: read_terminal_events()?,
            signals: [
                signal(SignalKind::hangup())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
            ],
            stop: signal(SignalKind::from_raw(rustix::process::Signal::TSTP.as_raw()))?,
            resumed: signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()))?,
            responses: JoinSet::new(),
            sessions_requested: None,
            view: View::default(),
        })
    }

    async fn run(mut self, screen: &mut RawTerminal) -> Result<(), TopError> {
        let palette = Palette::from_environment();
        let mut sessions_due = interval(SESSIONS_INTERVAL);
        sessions_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut drawing_due = interval(DRAW_INTERVAL);
        drawing_due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            screen
                .terminal
                .draw(|frame| draw::draw(frame, &mut self.view, &palette))?;
            let [hang_up, interrupt, terminate] = &mut self.signals;
            select! {
                biased; // `resumed` first: the terminal must be in raw mode again before anything is drawn
                _ = self.resumed.recv() => screen.resume()?,
                _ = self.stop.recv() => screen.stop()?,
                _ = hang_up.recv() => return Ok(()),
                _ = interrupt.recv() => return Ok(()),
                _ = terminate.recv() => return Ok(()),
                event = self.terminal_events.recv() => {
                    let event = event.unwrap_or_else(|| Err(io::ErrorKind::UnexpectedEof.into()))?;
                    // Everything is drawn again also after other events, such as a change of the size.
                    match event.as_key_event().and_then(|key| self.view.press(key)) {
                        Some(Action::Quit) => return Ok(()),
                        Some(Action::Stop) if has_job_control() => screen.stop()?,
                        Some(action) => self.act(action),
                        None => {}
                    }
                }
                Some(response) = self.responses.join_next() => match response {
                    Ok(Response::Sessions(response)) => {
                        if self.sessions_requested.take() == Some(self.view.sessions_path()) {
                            self.view.take_sessions(response.map_err(|error| chain(&error)));
                        } else {
                            self.act(Action::ReadSessions); // the filter or the order is another one now
                        }
                    }
                    Ok(Response::Change(response)) => self.view.take_answer(response.map_err(|error| chain(&error))),
                    Err(failed) => std::panic::resume_unwind(failed.into_panic()), // nothing cancels these tasks
                },
                update = self.news.recv() => match update {
                    Some(update) => self.view.take(update?),
                    None => return Err(RemoteError::Ended.into()), // does not happen: an error is sent first
                },
                _ = sessions_due.tick(), if self.view.shows_sessions() => self.act(Action::ReadSessions),
                _ = drawing_due.tick() => {}
            }
        }
    }

    /// Starts the request of an action, if it has one. [`Self::run`] takes the response.
    fn act(&mut self, action: Action) {
        let remote = self.remote.clone();
        match action {
            // `run` has handled `Quit`, and `Stop` if there is job control. Otherwise `Stop` does nothing.
            Action::Quit | Action::Stop => {}
            Action::ReadSessions if self.sessions_requested.is_some() => {}
            Action::ReadSessions => {
                let path = self.view.sessions_path();
                self.sessions_requested = Some(path.clone());
                let request = ApiRequest::get(path);
                self.responses
                    .spawn(async move { Response::Sessions(remote.fetch_json(request).await) });
            }
            Action::Change { request, done } => {
                self.responses.spawn(async move {
                    let response = remote.fetch(request).await;
                    Response::Change(response.map(|_| done))
                });
            }
        }
    }
}

/// Reads the terminal's events. The thread ends with the process: nothing interrupts a read.
fn read_terminal_events() -> io::Result<mpsc::Receiver<io::Result<Event>>> {
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
