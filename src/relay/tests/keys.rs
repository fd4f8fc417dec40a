//! The keys of a connection of TLS 1.2 are used up after a number of records, and rustls cannot renegotiate new ones.

use std::future::pending;

use tokio::task::yield_now;

use super::*;
use crate::tls::tls12_pair_with_key_limit;

#[tokio::test]
async fn exhausted_tls_keys_end_a_session_abruptly_with_the_error_of_rustls() {
    let (_peer, tls) = tls12_pair_with_key_limit(20);
    let (_client, inner_client) = connected(None, None).await;
    let (mut server, inner_server) = connected(None, None).await;
    let traffic = Traffic::default();
    let client_side = TlsSide {
        socket: &inner_client,
        tls: Some(tls),
    };
    let server_side = TlsSide {
        socket: &inner_server,
        tls: None,
    };
    let relay = relay_tls(
        client_side,
        server_side,
        Vec::new(),
        NO_LIMITS,
        &traffic,
        None,
        pending(),
    );
    let sending = async {
        loop {
            server.write_all(&[7; 100]).await.unwrap();
            yield_now().await;
        }
    };
    let (closed, error) = within(async {
        tokio::select! {
            ended = relay => ended,
            () = sending => unreachable!("it sends without end"),
        }
    })
    .await;
    assert_eq!(closed, Closed::Broke(Side::Client, Fault::Tls));
    assert!(closed.is_abrupt());
    assert_eq!(error, Some(rustls::Error::EncryptError));
}
