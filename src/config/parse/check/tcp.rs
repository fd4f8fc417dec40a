//! `check = "tcp"`: it has no keys.

use std::sync::Arc;

use super::reader::KindReader;
use crate::check::tcp::{KIND, TcpCheck};

pub(super) const READER: KindReader = KindReader {
    kind: &KIND,
    read: |_, _| Arc::new(TcpCheck),
};
