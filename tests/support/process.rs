//! Child processes that never outlive their test, and ports reserved for them.

use std::fmt::Display;
use std::fs::read_to_string;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};
use socket2::{Domain, Socket, Type};

use super::wait_for;

/// The beginning of a command that runs the rest of its words as the user `nobody`. It must be run as root.
pub const NOBODY: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

/// A child process. Dropping it kills it and waits for it.
pub struct Process {
    child: Child,
    pub stdout: Lines,
    pub stderr: Lines,
}

impl Process {
    /// Starts it, and reads its standard output and standard error in the background.
    pub fn start(command: &mut Command) -> Self {
        let spawned = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut process = Self::adopt(spawned.unwrap_or_else(|error| panic!("{command:?}: {error}")));
        process.stdout = Lines::read(process.child.stdout.take());
        process
    }

    /// Takes over a running child; its standard output is not read.
    pub fn adopt(mut child: Child) -> Self {
        let stderr = Lines::read(child.stderr.take());
        Self {
            child,
            stdout: Lines::default(),
            stderr,
        }
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a PID is not 0"), signal).expect("the child is not reaped yet");
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until it has ended and its output is read completely.
    pub fn wait(&mut self) -> ExitStatus {
        let status = wait_for("the process ends", || self.child.try_wait().unwrap());
        self.stdout.finish();
        self.stderr.finish();
        status
    }

    /// Kills it with SIGKILL and reaps it.
    pub fn kill(&mut self) {
        let _ = self.child.kill(); // it may have ended already
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The lines read from a pipe so far.
#[derive(Default)]
pub struct Lines {
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<JoinHandle<()>>,
}

impl Lines {
    pub fn read<R: Read + Send + 'static>(pipe: Option<R>) -> Self {
        let lines = Arc::<Mutex<Vec<String>>>::default();
        let kept = Arc::clone(&lines);
        let reader = pipe.map(|pipe| {
            std::thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    kept.lock().unwrap().push(line);
                }
            })
        });
        Self { lines, reader }
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Whether the pipe is read to its end, or none is read.
    pub fn has_ended(&self) -> bool {
        self.reader.as_ref().is_none_or(JoinHandle::is_finished)
    }

    fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            wait_for("the pipe is read to its end", || reader.is_finished().then_some(()));
        }
    }
}

/// The letter of proc(5) for the state of a process; `None`: there is no such process.
pub fn state_of(pid: impl Display) -> Option<char> {
    let text = read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit(") ").next()?.chars().next()
}

/// Whether a process has ended; its parent may not have reaped it yet.
pub fn has_ended(pid: impl Display) -> bool {
    state_of(pid).is_none_or(|state| state == 'Z')
}

/// Exit code and output of a command that has ended.
#[derive(Debug)]
pub struct Finished {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command to its end.
///
/// # Panics
/// When it cannot be started, or does not end within [`super::PATIENCE`].
pub fn finished(command: &mut Command) -> Finished {
    let mut process = Process::start(command);
    let status = process.wait();
    let text = |lines: &Lines| lines.lines().iter().map(|line| format!("{line}\n")).collect();
    Finished {
        code: status.code(),
        stdout: text(&process.stdout),
        stderr: text(&process.stderr),
    }
}

/// Runs a command that must succeed; returns its standard output.
pub fn must(command: &mut Command) -> String {
    let finished = finished(command);
    assert_eq!(finished.code, Some(0), "{command:?}: {finished:#?}");
    finished.stdout
}

/// A reserved port. It is bound with SO_REUSEADDR but not listening, so it refuses clients until a process that also
/// sets SO_REUSEADDR listens there, and again after that process ends. The system gives it to nobody else meanwhile.
pub struct Port {
    socket: Socket,
    pub address: SocketAddr,
}

impl Port {
    pub fn keep() -> Self {
        Self::keep_on("127.0.0.1")
    }

    pub fn keep_on(ip: &str) -> Self {
        Self::bind(SocketAddr::new(ip.parse().unwrap(), 0))
    }

    /// Another socket for an address that is reserved already.
    pub fn keep_again(address: SocketAddr) -> Self {
        Self::bind(address)
    }

    /// Reserves an address; with port 0 the system chooses the port.
    fn bind(wanted: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(wanted), Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        socket.bind(&wanted.into()).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        Self { socket, address }
    }

    pub fn number(&self) -> u16 {
        self.address.port()
    }

    /// Starts to listen on the port.
    pub fn listen(self) -> std::net::TcpListener {
        self.listen_with(128)
    }

    /// Starts to listen with this backlog.
    pub fn listen_with(self, backlog: i32) -> std::net::TcpListener {
        self.socket.listen(backlog).unwrap();
        self.socket.into()
    }
}
