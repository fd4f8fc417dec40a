//! The servers behind the proxies, on one thread of this process.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::thread;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::namespace::{NetworkNamespace, runtime};
use crate::workload::Answer;

/// Bytes per read and write of a bulk transfer.
pub(crate) const BULK_BYTES: usize = 256 * 1024;

/// Two servers of each kind.
pub(crate) struct Servers {
    /// Send back what they receive; a request for an [`Answer`] gets that answer instead.
    pub(crate) echo: [SocketAddr; 2],
    /// Send endlessly, and discard what they receive.
    pub(crate) source: [SocketAddr; 2],
    /// Discard what they receive.
    pub(crate) sink: [SocketAddr; 2],
    /// Bytes discarded so far by all servers: what has arrived, not what clients have written.
    pub(crate) discarded: Arc<AtomicU64>,
}

impl Servers {
    /// Starts the servers; they run until the process ends.
    pub(crate) fn start(namespace: NetworkNamespace, ip: IpAddr) -> Self {
        let (sender, addresses) = mpsc::channel();
        let discarded = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&discarded);
        thread::spawn(move || {
            namespace.enter();
            runtime().block_on(async move {
                let mut all = Vec::new();
                for kind in [ServerKind::Echo, ServerKind::Source, ServerKind::Sink] {
                    all.push([serve(kind, ip, &count).await, serve(kind, ip, &count).await]);
                }
                sender.send(all).expect("the starting thread waits");
                std::future::pending::<()>().await;
            });
        });
        let all = addresses.recv().expect("the servers start");
        Self {
            echo: all[0],
            source: all[1],
            sink: all[2],
            discarded,
        }
    }
}

#[derive(Clone, Copy)]
enum ServerKind {
    Echo,
    Source,
    Sink,
}

async fn serve(kind: ServerKind, ip: IpAddr, discarded: &Arc<AtomicU64>) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).await.expect("the address has a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    let discarded = Arc::clone(discarded);
    tokio::spawn(async move {
        loop {
            let Ok((socket, _)) = listener.accept().await else {
                continue;
            };
            let _ = socket.set_nodelay(true); // fails when the client is gone already
            let discarded = Arc::clone(&discarded);
            tokio::spawn(async move {
                match kind {
                    ServerKind::Echo => echo(socket).await,
                    ServerKind::Sink => sink(socket, &discarded).await,
                    ServerKind::Source => {
                        let (reading, writing) = socket.into_split();
                        tokio::select! {
                            () = sink(reading, &discarded) => {}
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
            .find(|answer| message[..read].ends_with(answer.request_end()));
        let written = match wanted {
            None => socket.write_all(&message[..read]).await,
            Some(answer) => answer_in_two_writes(&mut socket, answer).await,
        };
        if written.is_err() {
            return;
        }
    }
}

/// Sends the answer with Nagle's algorithm on, like a server that does not set TCP_NODELAY.
async fn answer_in_two_writes(socket: &mut TcpStream, answer: Answer) -> io::Result<()> {
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

async fn sink(mut socket: impl AsyncReadExt + Unpin, discarded: &AtomicU64) {
    let mut bytes = vec![0; BULK_BYTES];
    while let Ok(read @ 1..) = socket.read(&mut bytes).await {
        discarded.fetch_add(read as u64, Relaxed);
    }
}
