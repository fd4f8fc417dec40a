//! The addresses of clones that hooks (two commands of the operator) have started: the hooks print them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// The addresses of all clones that hooks have started: no two clones can have the same.
#[derive(Clone, Default)]
pub(super) struct HookAddresses {
    /// The name of the clone at each address. A blocking mutex: locked for a few statements.
    clones: Arc<Mutex<HashMap<SocketAddr, Arc<str>>>>,
}

/// The address of a clone. Dropping this value makes the address free again.
pub(super) struct HookAddress {
    pub(super) address: SocketAddr,
    all: HookAddresses,
}

impl HookAddresses {
    /// Takes an address for a clone.
    ///
    /// # Errors
    /// Another clone has the address. The error is the name of that clone.
    pub(super) fn take(&self, address: SocketAddr, clone: &Arc<str>) -> Result<HookAddress, Arc<str>> {
        let mut clones = self.clones.lock();
        if let Some(other) = clones.get(&address) {
            return Err(Arc::clone(other));
        }
        clones.insert(address, Arc::clone(clone));
        Ok(HookAddress {
            address,
            all: self.clone(),
        })
    }
}

impl Drop for HookAddress {
    fn drop(&mut self) {
        self.all.clones.lock().remove(&self.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_clones_never_have_the_same_address() {
        let (all, address) = (HookAddresses::default(), "127.0.0.1:9001".parse().unwrap());
        let first = all.take(address, &"vm-1".into()).ok().unwrap();
        assert_eq!(all.take(address, &"vm-2".into()).err().as_deref(), Some("vm-1"));
        drop(first);
        assert!(all.take(address, &"vm-2".into()).is_ok());
    }
}
