//! Handshakes on a socket.
//!
//! A handshake is a burst of computation. A worker computes the handshakes with clients one step at a time, and between
//! two steps every other session has its turn: a storm of handshakes does not stop the sessions under way. Handshakes
//! start in the order in which they were requested. A later step of a handshake waits for at most one start of another.
//!
//! Handshakes with servers do not queue: a wait would count as the server's time.

use std::io;
use std::mem::take;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout_at};

use super::connection::TlsConnection;

/// The most bytes of one read.
const READ_BYTES_MAX: usize = 4096;

thread_local! {
    /// The queue of this worker.
    static QUEUE: Arc<HandshakeQueue> = Arc::default();
}

/// Why a handshake has failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer has closed the connection during the handshake.
    #[error("the peer closed the connection during the TLS handshake")]
    LeftEarly,
    /// There is no room for the bytes that the handshake holds.
    #[error("no memory is left for the peer's TLS handshake")]
    NoRoom,
    /// The handshake was not complete in time.
    #[error("the TLS handshake was not complete in time")]
    TooSlow,
    /// The connection broke.
    #[error("the connection broke during the TLS handshake")]
    Io(#[from] io::Error),
    /// Usually, the peer has sent something invalid, and got an alert; or the peer has sent a fatal alert. No alert is
    /// sent if our configuration contradicts itself, or if a server selects no protocol (ALPN) where one is required.
    #[error("the TLS handshake failed")]
    Tls(#[from] rustls::Error),
}

/// Completes a handshake with a client before the deadline. `first` is what the client has sent already: its
/// ClientHello. `hold` gets the number of bytes that are held while the handshake waits for its turn or for the client,
/// and returns whether there is room for them.
///
/// Dropping the future leaves the connection useless.
///
/// # Errors
/// Why it has failed.
pub async fn handshake_with_client(
    socket: &TcpStream,
    connection: &mut TlsConnection,
    first: Vec<u8>,
    deadline: Instant,
    hold: impl FnMut(usize) -> bool,
) -> Result<(), HandshakeError> {
    let steps = steps_with_client(socket, connection, first, deadline, hold);
    timeout_at(deadline, steps)
        .await
        .unwrap_or(Err(HandshakeError::TooSlow))
}

async fn steps_with_client(
    socket: &TcpStream,
    connection: &mut TlsConnection,
    first: Vec<u8>,
    deadline: Instant,
    mut hold: impl FnMut(usize) -> bool,
) -> Result<(), HandshakeError> {
    let queue = QUEUE.with(Arc::clone);
    let (mut received, mut outgoing) = (first, Vec::new());
    if !hold(received.capacity()) {
        return Err(HandshakeError::NoRoom);
    }
    let mut first_step_permit = Some(queue.begin(deadline).await?);
    loop {
        let turn = queue.turn().await;
        let result = connection.handshake(&take(&mut received), &mut outgoing);
        yield_now().await; // before the turn is given up, so that sessions run between the steps of two handshakes
        drop((turn, first_step_permit.take())); // other handshakes have their turn while this one sends and reads
        if send_step(socket, connection, &mut outgoing, result).await? {
            return Ok(());
        }
        if !hold(connection.held_bytes()) {
            return Err(HandshakeError::NoRoom);
        }
        received = read_some(socket).await?;
        if !hold(connection.held_bytes() + received.capacity()) {
            return Err(HandshakeError::NoRoom);
        }
    }
}

/// Completes a handshake with a server, after sending it the PROXY header, which may be empty. The caller bounds the
/// time.
///
/// Dropping the future leaves the connection useless.
///
/// # Errors
/// Why it has failed.
pub async fn handshake_with_server(
    socket: &TcpStream,
    connection: &mut TlsConnection,
    header: Vec<u8>,
) -> Result<(), HandshakeError> {
    let (mut received, mut outgoing) = (Vec::new(), header);
    loop {
        let result = connection.handshake(&received, &mut outgoing);
        yield_now().await;
        if send_step(socket, connection, &mut outgoing, result).await? {
            return Ok(());
        }
        received = read_some(socket).await?;
    }
}

/// The turns of the handshakes with clients on a worker. Both semaphores are fair.
#[derive(Debug)]
struct HandshakeQueue {
    /// Taken for the first step of a handshake, so that at most one first step waits for `steps`. A later step of
    /// a handshake therefore waits for at most one first step of another handshake.
    first_steps: Semaphore,
    /// Taken for every step.
    steps: Semaphore,
}

impl Default for HandshakeQueue {
    fn default() -> Self {
        Self {
            first_steps: Semaphore::new(1),
            steps: Semaphore::new(1),
        }
    }
}

impl HandshakeQueue {
    /// Waits until a handshake may start, but at most half of the time until its deadline. Under a lasting load, a
    /// handshake that has waited longer would not be complete in time, and would take turns from others.
    async fn begin(&self, deadline: Instant) -> Result<SemaphorePermit<'_>, HandshakeError> {
        let now = Instant::now();
        let latest = now + deadline.saturating_duration_since(now) / 2;
        let permit = timeout_at(latest, self.first_steps.acquire()).await;
        permit
            .map(|permit| permit.expect("it is never closed"))
            .map_err(|_| HandshakeError::TooSlow)
    }

    /// Waits for the turn of a handshake's next step.
    async fn turn(&self) -> SemaphorePermit<'_> {
        self.steps.acquire().await.expect("it is never closed")
    }
}

/// Sends the output of a step; after an error, that is the alert. Returns whether the handshake is complete.
async fn send_step(
    socket: &TcpStream,
    connection: &TlsConnection,
    outgoing: &mut Vec<u8>,
    result: Result<(), rustls::Error>,
) -> Result<bool, HandshakeError> {
    if !outgoing.is_empty() {
        let written = write_all(socket, outgoing).await;
        if result.is_ok() {
            written?;
        }
        outgoing.clear();
    }
    result?;
    Ok(!connection.is_handshaking())
}

async fn write_all(socket: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        socket.ready(Interest::WRITABLE).await?;
        match socket.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads what is there, at least a byte. No buffer is held while the peer is waited for.
async fn read_some(socket: &TcpStream) -> Result<Vec<u8>, HandshakeError> {
    loop {
        socket.ready(Interest::READABLE).await?;
        let mut buffer = [0; READ_BYTES_MAX];
        match socket.try_read(&mut buffer) {
            Ok(0) => return Err(HandshakeError::LeftEarly),
            Ok(bytes) => return Ok(buffer[..bytes].to_vec()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::task::JoinSet;
    use tokio::time::sleep;

    use super::*;

    /// How long a worker computes the first of the two steps of a handshake.
    const FIRST_STEP: Duration = Duration::from_millis(10);
    /// How long a worker computes the second step.
    const LAST_STEP: Duration = Duration::from_millis(2);
    /// How long the client takes between the two steps.
    const ROUND_TRIP: Duration = Duration::from_millis(50);

    async fn handshake(queue: &HandshakeQueue, deadline: Instant) -> Result<(), HandshakeError> {
        let first_step_permit = queue.begin(deadline).await?;
        let turn = queue.turn().await;
        sleep(FIRST_STEP).await;
        drop((turn, first_step_permit));
        sleep(ROUND_TRIP).await;
        let _turn = queue.turn().await;
        sleep(LAST_STEP).await;
        Ok(())
    }

    /// Requests this many handshakes, with a `pause` after each. Returns how many were complete within a second of the
    /// request.
    async fn completed(handshakes: u32, pause: Duration) -> u32 {
        let queue = Arc::<HandshakeQueue>::default();
        let mut all = JoinSet::new();
        for _ in 0..handshakes {
            let (queue, deadline) = (Arc::clone(&queue), Instant::now() + Duration::from_secs(1));
            all.spawn(async move { timeout_at(deadline, handshake(&queue, deadline)).await });
            sleep(pause).await;
        }
        let mut completed = 0;
        while let Some(ended) = all.join_next().await {
            completed += u32::from(matches!(ended, Ok(Ok(Ok(())))));
        }
        completed
    }

    #[tokio::test(start_paused = true)]
    async fn under_lasting_load_handshakes_are_completed_at_nearly_full_speed() {
        const HANDSHAKES: u32 = 3_000;
        let pause = Duration::from_millis(4); // a third of the two steps together
        let possible = (HANDSHAKES * pause).as_millis() / (FIRST_STEP + LAST_STEP).as_millis();
        let completed = u128::from(completed(HANDSHAKES, pause).await);
        assert!(completed * 10 >= possible * 9, "{completed} of {possible}");
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_sudden_crowd_as_many_are_served_as_can_start_in_half_of_the_time() {
        assert_eq!(completed(40, Duration::ZERO).await, 40);
        let served = completed(1_000, Duration::ZERO).await;
        // Half of a second is enough for 41 whole handshakes, or for 50 first steps.
        assert!((40..=60).contains(&served), "{served}");
    }
}
