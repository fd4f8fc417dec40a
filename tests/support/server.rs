//! Servers behind the proxy, with one thread per session.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use rustix::net::Shutdown as How;

use super::PATIENCE;
use super::process::Port;

/// A server. Dropping it closes its port; open sessions continue to their end.
pub struct Server {
    pub address: SocketAddr,
    sessions: Arc<AtomicUsize>,
    received: Arc<Mutex<Vec<Vec<u8>>>>,
    listener: Arc<TcpListener>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    /// A server that echoes.
    pub fn echo() -> Self {
        Self::run(echo)
    }

    pub fn echo_on(listener: TcpListener) -> Self {
        Self::run_on(listener, |stream, _| echo(stream))
    }

    /// A server that sends its name first, and closes when the client has half-closed.
    pub fn named(name: &'static str) -> Self {
        Self::run(move |stream| greet(stream, name))
    }

    /// As [`Self::named`], on this listener.
    pub fn named_on(listener: TcpListener, name: &'static str) -> Self {
        Self::run_on(listener, move |stream, _| greet(stream, name))
    }

    /// A server that records what it receives, and sends `answer` when the client has half-closed.
    pub fn keeping(answer: &'static [u8]) -> Self {
        Self::keeping_on("127.0.0.1:0", answer)
    }

    /// As [`Self::keeping`], on this address.
    pub fn keeping_on(address: &str, answer: &'static [u8]) -> Self {
        Self::run_on(TcpListener::bind(address).unwrap(), move |mut stream, received| {
            let mut bytes = Vec::new();
            let _ = stream.read_to_end(&mut bytes);
            received.lock().unwrap().push(bytes);
            let _ = stream.write_all(answer);
        })
    }

    /// A server that sends nothing, and closes when the client has half-closed.
    pub fn silent() -> Self {
        Self::named("")
    }

    /// A server that runs `serve` for every session.
    pub fn run(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self::run_on(TcpListener::bind("127.0.0.1:0").unwrap(), move |stream, _| {
            serve(stream)
        })
    }

    /// As [`Self::run`], on this listener; `serve` may record what it has received.
    pub fn run_on(
        listener: TcpListener,
        serve: impl Fn(TcpStream, &Mutex<Vec<Vec<u8>>>) + Send + Sync + 'static,
    ) -> Self {
        let listener = Arc::new(listener);
        let (sessions, received) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<Vec<u8>>>>::default());
        let serve = Arc::new(serve);
        let accepting = spawn({
            let (sessions, received) = (Arc::clone(&sessions), Arc::clone(&received));
            let listener = Arc::clone(&listener);
            move || {
                while let Ok((stream, _)) = listener.accept() {
                    sessions.fetch_add(1, SeqCst);
                    let (serve, received) = (Arc::clone(&serve), Arc::clone(&received));
                    spawn(move || serve(stream, &received));
                }
            }
        });
        let address = listener.local_addr().unwrap();
        Self {
            address,
            sessions,
            received,
            listener,
            accepting: Some(accepting),
        }
    }

    /// The number of sessions accepted so far.
    pub fn sessions(&self) -> usize {
        self.sessions.load(SeqCst)
    }

    /// What the server has recorded. [`Self::keeping`] records the bytes of a session when its client has half-closed.
    pub fn received(&self) -> Vec<Vec<u8>> {
        self.received.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Wakes the accepting thread, which holds the other reference to the listener.
        let _ = rustix::net::shutdown(&*self.listener, How::Both);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn greet(mut stream: TcpStream, name: &str) {
    let _ = stream.write_all(name.as_bytes());
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
}

/// An address that refuses connections until the returned value is dropped.
pub fn refusing() -> Port {
    Port::keep()
}

/// `"a", "b"`: the addresses as written in a configuration's `servers`.
pub fn list(servers: &[&Server]) -> String {
    let quoted: Vec<_> = servers.iter().map(|server| format!("\"{}\"", server.address)).collect();
    quoted.join(", ")
}

/// An address that neither accepts nor refuses: its accept queue is full, so the kernel drops new connections.
pub struct Hanging {
    pub address: SocketAddr,
    listener: TcpListener,
    _queued: Vec<TcpStream>,
}

impl Hanging {
    /// Enlarges the accept queue, and returns the listener to accept from.
    pub fn resume(self) -> TcpListener {
        rustix::net::listen(&self.listener, 128).unwrap();
        self.listener
    }
}

/// See [`Hanging`].
pub fn hanging() -> Hanging {
    let port = Port::keep();
    let address = port.address;
    let listener = port.listen_with(0);
    let mut queued = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
        queued.push(stream);
    }
    Hanging {
        address,
        listener,
        _queued: queued,
    }
}

/// A server whose sessions are served by the test itself.
pub struct ManualServer {
    pub server: Server,
    sessions: Receiver<TcpStream>,
}

impl ManualServer {
    pub fn new() -> Self {
        let (sender, sessions) = channel();
        let sender = Mutex::new(sender);
        let server = Server::run(move |stream| {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            let _ = sender.lock().unwrap().send(stream); // fails when the test has ended
        });
        Self { server, sessions }
    }

    /// The next session that a client begins. Waits for at most [`PATIENCE`].
    pub fn session(&self) -> TcpStream {
        self.try_session().unwrap()
    }

    /// As [`Self::session`], after the PROXY header of version 2 with which it begins. Also returns what follows the
    /// length in the header: the addresses and the extensions.
    pub fn session_behind_header(&self) -> (TcpStream, Vec<u8>) {
        let (mut session, mut head) = (self.session(), [0; 16]);
        session.read_exact(&mut head).unwrap();
        let mut rest = vec![0; u16::from_be_bytes([head[14], head[15]]).into()];
        session.read_exact(&mut rest).unwrap();
        (session, rest)
    }

    /// As [`Self::session`]; `None`: there was none within [`PATIENCE`].
    pub fn try_session(&self) -> Option<TcpStream> {
        self.sessions.recv_timeout(PATIENCE).ok()
    }
}

fn echo(mut stream: TcpStream) {
    let mut from = stream.try_clone().unwrap();
    let _ = std::io::copy(&mut from, &mut stream);
    let _ = stream.shutdown(Shutdown::Write);
}
