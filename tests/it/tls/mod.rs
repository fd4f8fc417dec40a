//! TLS that ends at a listener.

mod site;

mod certificates;
mod client_certificates;
mod endings;
mod sessions;
