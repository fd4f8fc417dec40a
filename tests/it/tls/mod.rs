//! TLS that ends at a listener.

mod site;

mod acme;
mod certificates;
mod client_certificates;
mod clients;
mod ejection;
mod endings;
mod ocsp;
mod replaced_files;
mod servers;
mod sessions;
mod storm;
mod system_authorities;
