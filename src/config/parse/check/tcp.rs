//! `check = "tcp"`: it has no keys.

use std::sync::Arc;

use super::reader::Reader;
use crate::check::tcp::{KIND, TcpCheck};

pub(super) const READER: Reader = Reader {
    kind: &KIND,
    read: |_, _| Arc::new(TcpCheck),
};
