//! The PROXY header that a session sends to its server.

use super::*;
use crate::account::Ending;

#[test]
fn a_session_whose_server_expects_a_proxy_header_fails_without_a_local_address() {
    let client = ClientAddr::new("192.0.2.1:1".parse().unwrap());
    for version in [Version::V1, Version::V2] {
        // An error of getsockname(2). `Fault::classify` takes ENOTCONN as the sign that the peer, here the client, has
        // reset the connection.
        let no_local_address = Err(io::ErrorKind::NotConnected.into());
        let (hello, tls, forwarded) = (None, None, None);
        let refusal = proxy_header(version, client, no_local_address, (hello, tls), forwarded).unwrap_err();
        assert_eq!((refusal.ending(), refusal.reply()), (Ending::ClientReset, Reply::Reset));
    }
}
