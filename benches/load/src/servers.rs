//! The servers behind the proxies, on one thread of this process.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::place::{Place, runtime};
use crate::workload::Answer;

/// What a bulk transfer reads and writes at a time.
pub(crate) const BULK_BYTES: usize = 256 * 1024;

/// Two of each kind, for a balancer to choose among.
pub(crate) struct Servers {
    /// Send back what they get, or what it asks for ([`Answer`]).
    pub(crate) echo: [SocketAddr; 2],
    /// Send without end, and throw away what they get.
    pub(crate) source: [SocketAddr; 2],
    /// Throw away what they get.
    pub(crate) sink: [SocketAddr; 2],
    /// Bytes thrown away so far by all of them: what has arrived, not what a client has merely written.
    pub(crate) thrown_away: Arc<AtomicU64>,
}

impl Servers {
    /// Starts them; they run until the process ends.
    pub(crate) fn start(place: Place, ip: IpAddr) -> Self {
        let (tell, told) = mpsc::channel();
        let thrown_away = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&thrown_away);
        thread::spawn(move || {
            place.enter();
            runtime().block_on(async move {
                let mut all = Vec::new();
                for kind in [Kind::Echo, Kind::Source, Kind::Sink] {
                    all.push([serve(kind, ip, &count).await, serve(kind, ip, &count).await]);
                }
                tell.send(all).expect("somebody waits");
                std::future::pending::<()>().await;
            });
        });
        let all = told.recv().expect("the servers start");
        Self {
            echo: all[0],
            source: all[1],
            sink: all[2],
            thrown_away,
        }
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Echo,
    Source,
    Sink,
}

async fn serve(kind: Kind, ip: IpAddr, thrown_away: &Arc<AtomicU64>) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).await.expect("the address has a free port");
    let address = listener.local_addr().expect("it is bound");
    let thrown_away = Arc::clone(thrown_away);
    tokio::spawn(async move {
        loop {
            let Ok((socket, _)) = listener.accept().await else {
                continue;
            };
            let _ = socket.set_nodelay(true); // of a client that is gone already
            let thrown_away = Arc::clone(&thrown_away);
            tokio::spawn(async move {
                match kind {
                    Kind::Echo => echo(socket).await,
                    Kind::Sink => sink(socket, &thrown_away).await,
                    Kind::Source => {
                        let (reading, writing) = socket.into_split();
                        tokio::select! {
                            () = sink(reading, &thrown_away) => {}
                            () = source(writing) => {}
                        }
                    }
                }
            });
        }
    });
    address
}

async fn echo(mut socket: TcpStream) {
    let mut message = [0; 16 * 1024];
    while let Ok(read @ 1..) = socket.read(&mut message).await {
        let wanted = Answer::ALL
            .into_iter()
            .find(|answer| message[..read].ends_with(answer.request()));
        let written = match wanted {
            None => socket.write_all(&message[..read]).await,
            Some(answer) => in_two_writes(&mut socket, answer).await,
        };
        if written.is_err() {
            return;
        }
    }
}

/// As a server does that does not know of TCP_NODELAY.
async fn in_two_writes(socket: &mut TcpStream, answer: Answer) -> io::Result<()> {
    socket.set_nodelay(false)?;
    for length in answer.writes() {
        socket.write_all(&vec![7; length]).await?;
    }
    Ok(())
}

async fn source(mut socket: impl AsyncWriteExt + Unpin) {
    let bytes = vec![7; BULK_BYTES];
    while socket.write_all(&bytes).await.is_ok() {}
}

async fn sink(mut socket: impl AsyncReadExt + Unpin, thrown_away: &AtomicU64) {
    let mut bytes = vec![0; BULK_BYTES];
    while let Ok(read @ 1..) = socket.read(&mut bytes).await {
        thrown_away.fetch_add(read as u64, Relaxed);
    }
}
