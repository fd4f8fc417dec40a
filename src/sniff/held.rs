//! Charges bytes that are held after sniffing, for instance in a TLS handshake, to the budget of sniffing.

use std::sync::Arc;

use super::memory::HelloMemory;

/// The number of bytes that are held for one client. The budget is charged with it until the drop of this value.
#[derive(Debug)]
pub struct HeldBytes {
    memory: Arc<HelloMemory>,
    bytes: usize,
}

impl HeldBytes {
    /// No bytes yet.
    #[must_use]
    pub fn new(memory: &Arc<HelloMemory>) -> Self {
        Self {
            memory: Arc::clone(memory),
            bytes: 0,
        }
    }

    /// Sets how many bytes are held now, and charges them in any case. If they do not fit into the budget, evicts the
    /// clients that have waited longest for the rest of their first message. Returns whether the bytes fit after
    /// that; fewer bytes than before always do. If they do not fit, this client must end.
    #[must_use]
    pub fn set(&mut self, bytes: usize) -> bool {
        let before = std::mem::replace(&mut self.bytes, bytes);
        if bytes <= before {
            self.memory.refund(before - bytes);
            return true;
        }
        self.memory.charge(bytes - before)
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.memory.refund(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_beyond_the_budget_do_not_fit_and_dropped_bytes_are_returned() {
        let memory = HelloMemory::new(100);
        let (mut one, mut other) = (HeldBytes::new(&memory), HeldBytes::new(&memory));
        assert!(one.set(60) && other.set(40));
        assert!(!other.set(41));
        assert!(other.set(30) && one.set(70));
        drop(one);
        assert_eq!(memory.held(), 30);
        assert!(other.set(100));
        drop(other);
        assert_eq!(memory.held(), 0);
    }
}
