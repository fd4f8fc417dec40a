//! A terminal for programs under test: tmux, with a server of its own.

use std::process::Command;

use rustix::process::Pid;
use tempfile::TempDir;

use super::process::must;
use super::wait_for;

/// A terminal in which a shell command runs.
pub struct Tmux {
    directory: TempDir,
}

impl Tmux {
    /// Starts the command in a terminal of this size. When the command has ended, the terminal stays, and shows the
    /// exit code and the output of `stty -a`.
    pub fn start(width: u32, height: u32, variables: &[(&str, &str)], command: &str) -> Self {
        let tmux = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        let mut start = tmux.command(&["-f", "/dev/null", "new-session", "-d"]);
        start.args(["-x", &width.to_string(), "-y", &height.to_string()]);
        start.arg(format!("{command}; echo \"exit code $?\"; stty -a; exec sleep 600"));
        start.env_remove("NO_COLOR").env("LC_ALL", "C.UTF-8");
        must(start.envs(variables.iter().copied()));
        tmux
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.arg("-S").arg(self.directory.path().join("tmux")).args(arguments);
        tmux
    }

    /// The text on the screen.
    pub fn screen(&self) -> String {
        must(&mut self.command(&["capture-pane", "-p"]))
    }

    /// The screen with the escape sequences for colours and attributes.
    pub fn raw_screen(&self) -> String {
        must(&mut self.command(&["capture-pane", "-p", "-e"]))
    }

    /// Whether the cursor is hidden.
    pub fn hides_cursor(&self) -> bool {
        must(&mut self.command(&["display-message", "-p", "#{cursor_flag}"])).trim() == "0"
    }

    /// Waits until the screen contains this text; returns the screen.
    pub fn wait_for(&self, text: &str) -> String {
        wait_for(&format!("{text:?} on the screen"), || {
            Some(self.screen()).filter(|screen| screen.contains(text))
        })
    }

    /// Presses keys, by their names in tmux.
    pub fn press(&self, keys: &[&str]) {
        must(self.command(&["send-keys"]).args(keys));
    }

    /// Writes on the terminal, as another program does.
    pub fn write(&self, text: &str) {
        let tty = must(&mut self.command(&["display-message", "-p", "#{pane_tty}"]));
        std::fs::write(tty.trim(), text).unwrap();
    }

    /// Waits until the shell in the terminal has a child, and returns the PID of the first one.
    pub fn child(&self) -> Pid {
        let shell = must(&mut self.command(&["display-message", "-p", "#{pane_pid}"]));
        let children = format!("/proc/{0}/task/{0}/children", shell.trim());
        wait_for("a child of the shell", || {
            let children = std::fs::read_to_string(&children).ok()?;
            Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
        })
    }

    /// Closes the terminal, which hangs up the programs in it.
    pub fn close(&self) {
        let _ = self.command(&["kill-server"]).output();
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        self.close();
    }
}
