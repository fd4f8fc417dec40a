//! Urgent data. Old protocols send it: telnet, FTP (`ABOR`), and some database protocols, to interrupt a query.

use super::*;

/// Sends bytes, of which the last one is urgent.
fn send_urgent(socket: &TcpStream, bytes: &[u8]) {
    let sent = SockRef::from(socket).send_out_of_band(bytes).unwrap();
    assert_eq!(sent, bytes.len());
}

/// A read that stops before an urgent byte looks like a read that has emptied the socket. Only another system call
/// could tell them apart. So an urgent byte that follows others may wait, with all after it, until more bytes arrive.
#[tokio::test]
async fn an_urgent_byte_behind_others_waits_at_most_for_the_next_bytes() {
    let mut session = Session::new().await;
    session.client.write_all(b"before").await.unwrap();
    send_urgent(&session.client, b"!");
    session.client.write_all(b"after").await.unwrap();
    let mut received = [0; 6];
    within(session.server.read_exact(&mut received)).await.unwrap();
    assert_eq!(&received, b"before");
    session.client.write_all(b"next").await.unwrap();
    let mut received = [0; 10];
    within(session.server.read_exact(&mut received)).await.unwrap();
    assert_eq!(&received, b"!afternext");
}

#[tokio::test]
async fn a_single_urgent_byte_is_forwarded_at_once() {
    let mut session = Session::new().await;
    for _ in 0..3 {
        send_urgent(&session.client, b"!");
        assert_eq!(within(session.server.read_u8()).await.unwrap(), b'!');
    }
}

#[tokio::test]
async fn urgent_data_does_not_end_a_spliced_stream_early() {
    let mut session = Session::new().await;
    let (mut client, mut server) = (session.client, session.server);
    let bulk = vec![1; 8 << 20];
    let sent = tokio::spawn(async move {
        client.write_all(&bulk).await.unwrap();
        send_urgent(&client, b"!");
        client.write_all(&bulk).await.unwrap();
        client.shutdown().await.unwrap();
        client
    });
    let (received, end) = read_all(&mut server).await;
    session.client = sent.await.unwrap();
    assert!(end.is_ok());
    assert_eq!(received.len(), (16 << 20) + 1);
}
