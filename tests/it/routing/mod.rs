//! Which route a connection takes.

mod tls_by_name;
mod redirect;
mod folding;
mod hello_vectors;
