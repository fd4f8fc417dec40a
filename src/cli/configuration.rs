//! Loads the configuration for commands that only examine it.

use std::path::Path;

use tokio::runtime;

use crate::config::report::Report;
use crate::config::{self, Loaded};
use crate::error::chain;
use crate::remote::fetch;

/// Loads a file and, if it has `[remote]`, the texts of that store.
///
/// # Errors
/// All errors in the file or, if it has none, in the texts; or why the file or the store cannot be read.
pub(super) fn load(path: &Path) -> Result<Loaded, Report> {
    let of_file = config::load(path)?;
    let Some(remote) = &of_file.plan.remote else {
        return Ok(of_file);
    };
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let fetched = match runtime {
        Ok(runtime) => runtime.block_on(fetch(remote)),
        Err(error) => Err(error.into()),
    };
    match fetched {
        Ok(texts) => of_file.with_texts(&texts),
        Err(error) => Err(config::unreadable(&remote.location(), &chain(&*error))),
    }
}
