//! A server that greets with its name and echoes what it receives.

use std::sync::Arc;

use tokio::io::{self, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Serves clients until a client cannot be accepted, for example because too many files are open. For a demo that is
/// enough.
pub(super) async fn serve(listener: TcpListener, name: Arc<str>) {
    while let Ok((socket, _)) = listener.accept().await {
        tokio::spawn(echo(socket, Arc::clone(&name)));
    }
}

/// Greets the client before it has sent anything, as a database may. A listener that reads no ClientHello forwards the
/// greeting at once.
async fn echo(mut socket: TcpStream, name: Arc<str>) -> io::Result<()> {
    let greeting = format!("server {name} sends back what you type\n");
    socket.write_all(greeting.as_bytes()).await?;
    let (mut from, mut to) = socket.split();
    io::copy(&mut from, &mut to).await?;
    to.shutdown().await
}
