//! The listening sockets: bound before anything is changed, carried over by address, closed when nobody wants them.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio_util::sync::DropGuard;

use super::{Addresses, Failure};
use crate::account::Metrics;
use crate::addr::ListenAddr;
use crate::capacity::ListenerLimits;
use crate::drain::Drain;
use crate::listen::{BindError, Bound};
use crate::plan::{ListenerPlan, Plan};
use crate::session::ListenerState;
use crate::sniff::HelloMemory;
use crate::worker::ListenSocket;

/// All gates of all workers.
pub(super) struct Gates {
    /// To each worker.
    pub(super) workers: Vec<UnboundedSender<ListenSocket>>,
    pub(super) metrics: Arc<Metrics>,
    /// The sessions that listeners may have, kept across reloads.
    pub(super) limits: Arc<ListenerLimits>,
    pub(super) hello_memory: Arc<HelloMemory>,
    held: HashMap<Key, Held>,
    /// Addresses that are being closed, as long as they are.
    closing: Vec<(ListenAddr, Weak<()>)>,
}

/// An address that is listened on.
struct Held {
    /// The one it really is.
    address: ListenAddr,
    front: watch::Sender<Arc<ListenerState>>,
    /// Held by each of its gates, too.
    open: Weak<()>,
    /// Dropping it closes the gates, once those who wait are let in.
    _stop: DropGuard,
}

/// What an address is known by: itself; but port 0 is another one each time, so that of those it takes the listener
/// and which of its it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key(ListenAddr, Option<(Arc<str>, usize)>);

impl Key {
    fn all(listener: &ListenerPlan) -> impl Iterator<Item = Self> {
        listener.bind.iter().enumerate().map(|(index, address)| {
            let anew = (address.port() == 0).then(|| (Arc::clone(&listener.name), index));
            Self(*address, anew)
        })
    }
}

/// New addresses, bound: of which listener, and with which backlog.
pub(super) struct NewlyBound(Vec<(Key, Arc<str>, Bound, u32)>);

/// New addresses, listened on: the one each really is, and a socket for each worker.
pub(super) struct Listening(Vec<(Key, ListenAddr, Vec<OwnedFd>)>);

impl NewlyBound {
    /// Addresses.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Gates {
    pub(super) fn new(
        workers: Vec<UnboundedSender<ListenSocket>>,
        metrics: Arc<Metrics>,
        hello_memory: Arc<HelloMemory>,
    ) -> Self {
        Self {
            workers,
            metrics,
            limits: Arc::default(),
            hello_memory,
            held: HashMap::new(),
            closing: Vec::new(),
        }
    }

    /// Addresses that are listened on.
    pub(super) fn len(&self) -> usize {
        self.held.len()
    }

    /// Binds every address of the plan that is not listened on yet; on any failure none stays bound. What cannot be
    /// bound is added to `failed`.
    pub(super) fn bind(&self, plan: &Plan, failed: &mut Vec<(String, BindError)>) -> NewlyBound {
        let mut bound = Vec::new();
        let ours = self.ours();
        for listener in &plan.listeners {
            for key in Key::all(listener).filter(|key| !self.held.contains_key(key)) {
                let address = key.0;
                let tried = if ours.overlap(address) {
                    Bound::beside_our_own(address, &listener.socket)
                } else {
                    Bound::new(address, &listener.socket)
                };
                match tried {
                    Ok(socket) => bound.push((key, Arc::clone(&listener.name), socket, listener.backlog)),
                    Err(error) => failed.push((format!("listener `{}`", listener.name), error)),
                }
            }
        }
        NewlyBound(bound)
    }

    /// Listens on what was bound; from now on clients wait. On any failure nobody listens. What overlaps with what has
    /// just been listened on must share.
    pub(super) fn listen(&self, bound: NewlyBound) -> Result<Listening, Failure> {
        let mut listening: Vec<(Key, ListenAddr, Vec<OwnedFd>)> = Vec::new();
        let mut ours = ByPort::default();
        for (key, listener, bound, backlog) in bound.0 {
            let address = bound.address();
            if ours.overlap(address) {
                bound.share();
            }
            ours.add(address);
            let sockets = bound.listen(self.workers.len(), backlog);
            let sockets = sockets.map_err(|error| Failure::Bind(vec![(format!("listener `{listener}`"), error)]))?;
            listening.push((key, address, sockets));
        }
        Ok(Listening(listening))
    }

    /// Puts the plan in force at every gate, opens those that are new, and closes those that nobody wants any more.
    /// Returns the addresses.
    pub(super) fn open(&mut self, plan: &Plan, listening: Listening, drain: &Drain) -> Vec<Addresses> {
        let mut fronts = HashMap::new();
        for listener in &plan.listeners {
            let front = self.front(listener);
            fronts.extend(Key::all(listener).map(|key| (key, Arc::clone(&front))));
        }
        let closing = self.held.extract_if(|key, held| match fronts.get(key) {
            Some(front) => {
                held.front.send_replace(Arc::clone(front));
                false
            }
            None => true,
        });
        self.closing.extend(closing.map(|(_, held)| (held.address, held.open)));
        self.closing.retain(|(_, open)| open.strong_count() > 0);
        for (key, address, sockets) in listening.0 {
            let front = fronts.get(&key).expect("it was bound for a listener of this plan");
            let (front, watched) = watch::channel(Arc::clone(front));
            let (stop, open) = (drain.socket_stop(), Arc::new(()));
            for (worker, socket) in self.workers.iter().zip(sockets) {
                let gate = ListenSocket {
                    socket,
                    state: watched.clone(),
                    stop: stop.child_token(),
                    open: Arc::clone(&open),
                };
                let _ = worker.send(gate); // a worker that is gone has been missed already
            }
            let held = Held {
                address,
                front,
                open: Arc::downgrade(&open),
                _stop: stop.drop_guard(),
            };
            self.held.insert(key, held);
        }
        self.addresses(plan)
    }

    fn front(&self, listener: &Arc<ListenerPlan>) -> Arc<ListenerState> {
        let limits = self.limits.listener(&listener.name, listener.max_connections);
        let series = self.metrics.listener(&listener.name);
        let memory = Arc::clone(&self.hello_memory);
        Arc::new(ListenerState::new(Arc::clone(listener), limits, series, memory))
    }

    /// All addresses that are listened on, those being closed included.
    fn ours(&self) -> ByPort {
        let closing = self.closing.iter().filter(|(_, open)| open.strong_count() > 0);
        let closing = closing.map(|(address, _)| *address);
        let mut ours = ByPort::default();
        for address in self.held.values().map(|held| held.address).chain(closing) {
            ours.add(address);
        }
        ours
    }

    /// The real addresses, in the order of the plan.
    fn addresses(&self, plan: &Plan) -> Vec<Addresses> {
        let of = |listener: &Arc<ListenerPlan>| {
            let addresses = Key::all(listener).filter_map(|key| Some(self.held.get(&key)?.address));
            (Arc::clone(&listener.name), addresses.collect())
        };
        plan.listeners.iter().map(of).collect()
    }
}

/// Addresses by their port.
#[derive(Default)]
struct ByPort(HashMap<u16, Vec<ListenAddr>>);

impl ByPort {
    fn add(&mut self, address: ListenAddr) {
        self.0.entry(address.port()).or_default().push(address);
    }

    /// Whether the kernel takes this for a conflict with one of these.
    fn overlap(&self, address: ListenAddr) -> bool {
        let at_port = self.0.get(&address.port()).into_iter().flatten();
        at_port.copied().any(|ours| ours.overlaps(address))
    }
}
