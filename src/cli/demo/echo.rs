//! A server that says its name and sends back what it gets.

use tokio::io::{self, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Serves every client, for as long as it is polled.
pub(super) async fn serve(listener: TcpListener, name: &'static str) {
    // An error here is that of a client who has left, or of a process without descriptors: the demo is over then.
    while let Ok((socket, _)) = listener.accept().await {
        tokio::spawn(echo(socket, name));
    }
}

/// Speaks first, as databases do: a listener that reads no names lets that pass.
async fn echo(mut socket: TcpStream, name: &'static str) -> io::Result<()> {
    let greeting = format!("server {name} sends back what you type\n");
    socket.write_all(greeting.as_bytes()).await?;
    let (mut from, mut to) = socket.split();
    io::copy(&mut from, &mut to).await?;
    to.shutdown().await
}
