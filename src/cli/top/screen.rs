//! The terminal: its modes, while this program runs and while it is stopped.

use std::io::{self, stdout};
use std::mem;

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{Clear, ClearType, EnterAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::{DefaultTerminal, Terminal};
use rustix::process::{Pid, Signal, getpgid, getpid, getppid, getsid, kill_process};

/// The terminal in raw mode and on its alternate screen, until this value is dropped. A panic restores the terminal
/// before it prints its message.
pub(super) struct RawTerminal {
    pub(super) terminal: DefaultTerminal,
    /// Whether [`Self::stop`] has already taken the terminal again for a SIGCONT that has not been reported yet.
    was_resumed: bool,
}

impl RawTerminal {
    pub(super) fn open() -> io::Result<Self> {
        let terminal = ratatui::try_init().inspect_err(|_| drop(ratatui::try_restore()))?;
        Ok(Self {
            terminal,
            was_resumed: false,
        })
    }

    /// Restores the terminal, stops this process until it is continued, and takes the terminal again.
    pub(super) fn stop(&mut self) -> io::Result<()> {
        self.terminal.show_cursor()?;
        ratatui::try_restore()?;
        kill_process(getpid(), Signal::STOP)?;
        self.take()?;
        self.was_resumed = true;
        Ok(())
    }

    /// Takes the terminal again after other programs have used it. To be called for each SIGCONT.
    pub(super) fn resume(&mut self) -> io::Result<()> {
        if mem::take(&mut self.was_resumed) {
            return Ok(());
        }
        self.take()
    }

    fn take(&mut self) -> io::Result<()> {
        disable_raw_mode()?; // without this, `enable_raw_mode` may assume that raw mode is still on, and do nothing
        enable_raw_mode()?;
        // If another process has sent SIGSTOP, the alternate screen was not left, and has what the shell wrote.
        execute!(stdout(), EnterAlternateScreen, Clear(ClearType::All))?;
        // A new `Terminal` assumes that the screen is empty. `Terminal::clear` would ask for the position of the cursor
        // while another thread reads keys.
        self.terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
        Ok(())
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = ratatui::try_restore(); // fails if the terminal is gone
    }
}

/// Whether the parent is a shell with job control, which can continue this process after a stop. Such a shell is in the
/// same session, and puts each job into a process group of its own.
pub(super) fn has_job_control() -> bool {
    let shell = getppid();
    let group = |pid: Option<Pid>| getpgid(pid).ok();
    let session = |pid: Option<Pid>| getsid(pid).ok();
    shell.is_some() && session(shell) == session(None) && group(shell) != group(None)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::RawTerminal;

    const IN_TERMINAL: &str = "ACEQUIA_TEST_IN_TERMINAL";

    /// The test runs itself in a terminal, and panics there.
    #[test]
    fn a_panic_restores_the_terminal() {
        if std::env::var_os(IN_TERMINAL).is_some() {
            let _screen = RawTerminal::open().unwrap();
            panic!("on purpose");
        }
        let program = std::env::current_exe().unwrap();
        let test = "cli::top::screen::tests::a_panic_restores_the_terminal --exact --nocapture";
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
