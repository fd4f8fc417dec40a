//! Ports for programs that get their ports as a setting, and bind them only some time later.

use std::fs::File;

use rustix::fs::{FlockOperation, flock};

/// How many ports a block has.
const PORTS: u16 = 100;

/// The first port of the first block. All blocks are below the ports that the system chooses.
const FIRST: u16 = 10_000;

const BLOCKS: u16 = 200;

/// A block of ports that no other test has, in this process or another one.
pub struct PortBlock {
    first: u16,
    /// Locked as long as this lives.
    _lock: File,
}

impl PortBlock {
    /// Takes a block that is free.
    pub fn take() -> Self {
        let block = |number| {
            let file = std::env::temp_dir().join(format!("acequia-test-ports-{number}"));
            let lock = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(file)
                .ok()?; // it may be the file of another user
            flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
            Some(Self {
                first: FIRST + number * PORTS,
                _lock: lock,
            })
        };
        (0..BLOCKS).find_map(block).expect("a block of ports is free")
    }

    /// The ports of the block, in the form of `ports` in `[pools.NAME.scale]`.
    pub fn range(&self) -> String {
        format!("{}-{}", self.first, self.first + PORTS - 1)
    }
}
