//! TLS that a listener terminates, and TLS with servers.

mod site;

mod acme;
mod acme_state;
mod agreed;
mod browser;
mod certificates;
mod checked;
mod client_certificates;
mod clients;
mod ejection;
mod endings;
mod keys;
mod ocsp;
mod offered;
mod renewal_info;
mod replaced_files;
mod resumption;
mod revocation;
mod servers;
mod sessions;
mod storm;
mod system_authorities;
