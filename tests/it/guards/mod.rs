//! Guards: who may pass, and how much they may take.

mod accept_proxy;
mod addresses;
mod limits;
mod bandwidth;
mod edits;
