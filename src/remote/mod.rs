//! The configuration from the fleet's store: its texts are read, followed, and put in force by reloads, and the results
//! are written back.
//!
//! [`RemoteConfig`] holds its state: [`crate::app`] records there what is in force, and what was refused. [`run`]
//! follows the store.

mod state;
mod texts;
mod status;
mod follow;

pub use follow::run;
pub use state::{LostStore, RefusedBy, RefusedTexts, RemoteConfig, RemoteState, TextsInForce};
pub use texts::fetch;
