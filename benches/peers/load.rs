//! The load and the servers behind the proxies.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::proxies::Proxy;

const MESSAGE: [u8; 64] = [7; 64];
const BUFFER_BYTES: usize = 256 * 1024;
const GB: f64 = 1e9;

/// Servers on threads of this process, two of each kind.
pub(crate) struct Servers {
    pub(crate) echo: Vec<SocketAddr>,
    pub(crate) source: Vec<SocketAddr>,
}

impl Servers {
    pub(crate) fn start() -> Self {
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            runtime().block_on(async {
                let mut kinds = (Vec::new(), Vec::new());
                for _ in 0..2 {
                    kinds.0.push(serve(echo).await);
                    kinds.1.push(serve(source).await);
                }
                tell.send(kinds).expect("somebody waits");
                std::future::pending::<()>().await;
            });
        });
        let (echo, source) = told.recv().expect("the servers start");
        Self { echo, source }
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

async fn serve<F: Future<Output = ()> + Send + 'static>(story: fn(TcpStream) -> F) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        loop {
            if let Ok((socket, _)) = listener.accept().await {
                socket.set_nodelay(true).expect("it is a TCP socket");
                tokio::spawn(story(socket));
            }
        }
    });
    address
}

async fn echo(mut socket: TcpStream) {
    let mut message = [0; 64];
    while let Ok(read) = socket.read(&mut message).await {
        if read == 0 || socket.write_all(&message[..read]).await.is_err() {
            return;
        }
    }
}

async fn source(mut socket: TcpStream) {
    let bytes = vec![7; BUFFER_BYTES];
    while socket.write_all(&bytes).await.is_ok() {}
}

/// What one run came to.
#[derive(Clone, Copy)]
pub(crate) struct Measured {
    /// Units a second.
    pub(crate) rate: f64,
    /// Seconds of the proxy's CPU a unit.
    pub(crate) cpu_each: f64,
    /// Of single round trips; zero where there are none.
    pub(crate) p99: Duration,
}

/// The middle one.
pub(crate) fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

pub(crate) fn rate_text(rate: f64, unit: &str) -> String {
    if unit == "GB" {
        format!("{:.1} Gbit", rate * 8.0)
    } else {
        format!("{rate:.0}")
    }
}

pub(crate) fn cpu_text(seconds: f64, unit: &str) -> String {
    if unit == "GB" {
        format!("{:.0} ms", seconds * 1e3)
    } else {
        format!("{:.2} us", seconds * 1e6)
    }
}

/// Runs a load for a while and reads the proxy's CPU before and after; `counter` is raised by the load.
fn measure(
    proxy: &Proxy,
    time: Duration,
    load: impl FnOnce(&mut JoinSet<Vec<u64>>, Arc<AtomicU64>, Arc<AtomicBool>),
) -> Measured {
    runtime().block_on(async {
        let (counter, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let mut tasks = JoinSet::new();
        load(&mut tasks, Arc::clone(&counter), Arc::clone(&stop));
        tokio::time::sleep(time / 10).await; // everybody is connected
        let (began, cpu, count) = (Instant::now(), proxy.cpu(), counter.load(Relaxed));
        tokio::time::sleep(time).await;
        let (took, cpu, count) = (began.elapsed(), proxy.cpu() - cpu, counter.load(Relaxed) - count);
        stop.store(true, Relaxed);
        let mut latencies: Vec<u64> = tasks.join_all().await.concat();
        latencies.sort_unstable();
        let p99 = latencies
            .get(latencies.len() * 99 / 100)
            .map_or(Duration::ZERO, |ns| Duration::from_nanos(*ns));
        Measured {
            rate: count as f64 / took.as_secs_f64(),
            cpu_each: cpu.as_secs_f64() / count as f64,
            p99,
        }
    })
}

/// Sessions that each send 64 bytes and wait for them, over and over.
pub(crate) fn round_trips(proxy: &Proxy, sessions: usize, time: Duration) -> Measured {
    let address = proxy.echo;
    measure(proxy, time, |tasks, counter, stop| {
        for _ in 0..sessions {
            let (counter, stop) = (Arc::clone(&counter), Arc::clone(&stop));
            tasks.spawn(async move {
                let mut socket = connect(address).await;
                let mut latencies = Vec::new();
                while !stop.load(Relaxed) {
                    let began = Instant::now();
                    exchange(&mut socket).await;
                    latencies.push(began.elapsed().as_nanos() as u64);
                    counter.fetch_add(1, Relaxed);
                }
                latencies
            });
        }
    })
}

/// Clients that connect, exchange 64 bytes and close, over and over.
pub(crate) fn new_sessions(proxy: &Proxy, clients: usize, time: Duration) -> Measured {
    let address = proxy.echo;
    measure(proxy, time, |tasks, counter, stop| {
        for _ in 0..clients {
            let (counter, stop) = (Arc::clone(&counter), Arc::clone(&stop));
            tasks.spawn(async move {
                while !stop.load(Relaxed) {
                    let mut socket = connect(address).await;
                    exchange(&mut socket).await;
                    drop(socket);
                    counter.fetch_add(1, Relaxed);
                }
                Vec::new()
            });
        }
    })
}

/// Sessions that read without end. The unit is a GB.
pub(crate) fn bulk(proxy: &Proxy, sessions: usize, time: Duration) -> Measured {
    let address = proxy.source;
    let bytes = measure(proxy, time, |tasks, counter, stop| {
        for _ in 0..sessions {
            let (counter, stop) = (Arc::clone(&counter), Arc::clone(&stop));
            tasks.spawn(async move {
                let mut socket = connect(address).await;
                let mut buffer = vec![0; BUFFER_BYTES];
                while !stop.load(Relaxed) {
                    let read = socket.read(&mut buffer).await.expect("the proxy goes on");
                    counter.fetch_add(read as u64, Relaxed);
                }
                Vec::new()
            });
        }
    });
    Measured {
        rate: bytes.rate / GB,
        cpu_each: bytes.cpu_each * GB,
        p99: Duration::ZERO,
    }
}

/// Growth of the proxy's memory over so many sessions that have each exchanged a byte and are silent, per session.
pub(crate) fn idle_bytes(proxy: &Proxy, sessions: usize) -> u64 {
    runtime().block_on(async {
        let before = proxy.resident_bytes();
        let mut held = Vec::with_capacity(sessions);
        for _ in 0..sessions {
            let mut socket = connect(proxy.echo).await;
            socket.write_all(b"x").await.expect("it is open");
            socket.read_u8().await.expect("it is echoed");
            held.push(socket);
        }
        (proxy.resident_bytes().saturating_sub(before)) / sessions as u64
    })
}

async fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).await.expect("the proxy accepts");
    socket.set_nodelay(true).expect("it is a TCP socket");
    socket
}

async fn exchange(socket: &mut TcpStream) {
    let mut answer = [0; 64];
    socket.write_all(&MESSAGE).await.expect("it is open");
    socket.read_exact(&mut answer).await.expect("it is echoed");
}
