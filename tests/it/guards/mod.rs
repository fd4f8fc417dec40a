//! Guards: who may pass, and how much they may take.

mod addresses;
mod limits;
mod bandwidth;
mod edits;
