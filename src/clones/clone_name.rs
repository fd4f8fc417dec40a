//! The names of a clone and its pool.

use std::sync::Arc;

use crate::scale::fill;

/// A clone, by its name and that of its pool.
#[derive(Clone)]
pub(super) struct CloneName {
    pub(super) pool: Arc<str>,
    pub(super) clone: Arc<str>,
}

impl CloneName {
    /// The values of `{port}`, `{name}` and `{pool}` in the configured texts.
    pub(super) fn values<'a>(&'a self, port: &'a str) -> [(&'static str, &'a str); 3] {
        [("port", port), ("name", &self.clone), ("pool", &self.pool)]
    }

    /// The environment variables of the clone: first those that acequia sets, then the configured ones.
    pub(super) fn environment<'a>(
        &'a self,
        port: &'a str,
        configured: &'a [(Box<str>, Box<str>)],
    ) -> impl Iterator<Item = (String, String)> + 'a {
        let own = [
            ("PORT", port),
            ("ACEQUIA_POOL", &*self.pool),
            ("ACEQUIA_CLONE", &*self.clone),
        ];
        let own = own.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let values = self.values(port);
        let configured = configured.iter();
        own.into_iter()
            .chain(configured.map(move |(key, value)| (key.to_string(), fill(value, &values))))
    }

    /// Logs a line that the clone, or a command of its hook, has printed. `suppressed` is the number of lines before
    /// this line that were not logged.
    pub(super) fn log_line(&self, line: &str, suppressed: u64) {
        let Self { pool, clone } = self;
        let suppressed = Some(suppressed).filter(|suppressed| *suppressed > 0);
        tracing::info!(%pool, %clone, line, suppressed, "printed by a clone");
    }
}
