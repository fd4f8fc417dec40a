//! Peers that are slow, silent, malformed or very many.

mod hello_memory;
mod hostile_clients;
mod slow_clients;
mod slow_readers;
mod storm;
mod churn;
