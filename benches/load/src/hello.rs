//! ClientHellos as a real client (rustls) sends them, one for each server name.

use std::rc::Rc;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::workload::NAME_COUNTS;

/// A list for each count in [`NAME_COUNTS`]: the hellos for that many names, in the order of the names' numbers.
pub(crate) struct Hellos([Rc<[Box<[u8]>]>; NAME_COUNTS.len()]);

impl Hellos {
    pub(crate) fn new() -> Self {
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider supports the default protocol versions")
            .with_root_certificates(RootCertStore::empty()) // no handshake gets as far as a certificate
            .with_no_client_auth();
        let config = Arc::new(config);
        Self(NAME_COUNTS.map(|names| (0..names).map(|number| hello(&config, number)).collect()))
    }

    /// The hellos for `names` names, and the index of this count in [`NAME_COUNTS`], which must contain it.
    pub(crate) fn among(&self, names: usize) -> (usize, Rc<[Box<[u8]>]>) {
        let index = NAME_COUNTS
            .iter()
            .position(|count| *count == names)
            .expect("the count is in NAME_COUNTS");
        (index, Rc::clone(&self.0[index]))
    }
}

/// The server name with this number.
pub(crate) fn name(number: usize) -> String {
    format!("service-{number}.shop.example.com")
}

/// The hello for the name with this number.
fn hello(config: &Arc<ClientConfig>, number: usize) -> Box<[u8]> {
    let name = ServerName::try_from(name(number)).expect("the name is valid");
    let mut client = ClientConnection::new(Arc::clone(config), name).expect("the configuration is complete");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("writing to a vector does not fail");
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hello_contains_the_name_with_its_number() {
        let hellos = Hellos::new();
        let (index, hellos) = hellos.among(100);
        assert_eq!(NAME_COUNTS[index], 100);
        assert_eq!(hellos.len(), 100);
        for (number, hello) in hellos.iter().enumerate() {
            assert_eq!(hello[..2], [22, 3], "not a handshake record");
            let name = name(number);
            assert!(hello.windows(name.len()).any(|part| part == name.as_bytes()));
        }
    }
}
