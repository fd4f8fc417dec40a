//! A server of TLS 1.3 sends tickets after the handshake. The records of one may be longer than each of two buffers:
//! that of the relay for received records (64 KiB), and that of the caller for plaintext.

use std::future::poll_fn;

use super::*;
use crate::relay::engine::poll::Wire;
use crate::tls::connected_with_ticket;

#[tokio::test]
async fn bytes_after_a_ticket_longer_than_the_buffers_are_received() {
    for buffer_bytes in [100, 1 << 16] {
        let (tls, mut peer, mut records) = connected_with_ticket(65_470, None);
        peer.encrypt(b"an answer", 1 << 14, &mut records).unwrap();
        peer.close(&mut records);
        let (mut server, inner_server) = connected(None, None).await;
        let side = TlsSide {
            socket: &inner_server,
            tls: Some(tls),
        };
        let wire = side.wire();
        let mut buffer = vec![0; buffer_bytes];
        let mut received = Vec::new();
        let receiving = async {
            loop {
                match poll_fn(|cx| wire.poll_recv(cx, &mut buffer)).await.unwrap() {
                    0 => return,
                    bytes => received.extend_from_slice(&buffer[..bytes]),
                }
            }
        };
        let sending = async { server.write_all(&records).await.unwrap() };
        within(async { tokio::join!(receiving, sending) }).await;
        assert_eq!(received, b"an answer");
    }
}
