//! Pools that grow and shrink: when they do so ([`Scaler`]), what a clone is ([`CloneKind`]), and who holds the
//! processes of clones ([`keeper`]).

mod decision;
mod plan;
mod pool_scale;
mod printed;
mod printed_pipe;
pub mod keeper;

pub use decision::{ScaleLoad, ScaleRules, ScaleStep, Scaler};
pub use plan::{CloneCommand, CloneContainer, CloneHook, CloneKind, ScalePlan, fill};
pub use pool_scale::{CloneState, CloneStatus, PoolScale, ScaleCounts, WantedClones};
pub use printed::{PrintedLine, PrintedLines};
pub use printed_pipe::PrintedPipe;
