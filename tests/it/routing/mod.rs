//! Which route a client takes.

mod tls_by_name;
mod folding;
mod hello_vectors;
