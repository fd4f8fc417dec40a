//! Peers that are slow or silent, that send malformed bytes, or that are very many.

mod hello_memory;
mod hostile_clients;
mod slow_clients;
mod slow_readers;
mod storm;
mod churn;
