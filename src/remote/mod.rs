//! The configuration from the fleet's store: its texts are read, followed, and put in force by reloads, and the results
//! are written back.
//!
//! [`run`] follows the store. In [`RemoteConfig`], [`crate::app`] records which texts are in force, and which were
//! refused.

mod state;
mod texts;
mod status;
mod follow;

pub use follow::run;
pub use state::{LostStore, RefusedBy, RefusedTexts, RemoteConfig, RemoteState, TextsInForce};
pub use texts::fetch;
