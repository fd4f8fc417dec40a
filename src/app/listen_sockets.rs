//! The listening sockets of all workers: bound before anything is changed, kept by address across reloads, closed when
//! no listener has their address any more.

use std::collections::HashMap;
use std::future::pending;
use std::sync::{Arc, Weak};

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::DropGuard;

use super::Failure;
use crate::account::Metrics;
use crate::acme::Challenges;
use crate::addr::ListenAddr;
use crate::back_off::BackOff;
use crate::cancel::CancelTable;
use crate::capacity::ListenerLimits;
use crate::drain::Drain;
use crate::error::chain;
use crate::listen::{BindError, Bound, Listening, PassedSockets};
use crate::live::InForce;
use crate::plan::{ListenerPlan, Plan};
use crate::session::ListenerState;
use crate::sniff::HelloMemory;
use crate::unix_socket::SocketFile;
use crate::worker::{ListenSocket, OpenAddress};

/// The listening sockets of all workers.
pub(super) struct ListenSockets {
    /// The channels to the workers.
    workers: Vec<UnboundedSender<ListenSocket>>,
    metrics: Arc<Metrics>,
    /// The limits on the sessions of listeners, kept across reloads.
    pub(super) limits: Arc<ListenerLimits>,
    pub(super) hello_memory: Arc<HelloMemory>,
    pub(super) cancels: Arc<CancelTable>,
    /// Shared by all listeners, because an ACME server may come to any of them.
    pub(super) challenges: Arc<Challenges>,
    /// The sockets that the service manager has passed. A listener with the address of such a socket takes it, now and
    /// after a reload.
    passed: PassedSockets,
    in_use: HashMap<AddressKey, AddressInUse>,
    /// Notified when an address is lost because one of its sockets was shut down from outside. Only [`Self::bind`]
    /// notices that the file of a Unix socket was removed or replaced.
    lost: Arc<Notify>,
    /// When lost addresses are tried again; `None`: [`Self::rebind`] has not failed the last time.
    retry_at: Option<Instant>,
    back_off: BackOff,
    /// Addresses whose sockets are being closed.
    closing: Vec<(ListenAddr, Weak<OpenAddress>)>,
}

/// An address that is listened on.
struct AddressInUse {
    /// The address, with the port that the system chose for port 0.
    address: ListenAddr,
    /// Lives as long as one of its sockets is open.
    open: Weak<OpenAddress>,
    /// The file of a Unix socket. If a reload removes the address, the file is removed before the socket is closed, so
    /// that nobody connects to a queue that is being closed.
    file: Option<SocketFile>,
    /// Once it is dropped, clients in a queue of this process are accepted if they get permits; then the sockets close.
    _stop: DropGuard,
}

impl AddressInUse {
    /// Why the address must be bound again; `None`: it is not lost.
    fn loss(&self) -> Option<String> {
        let address = self.address;
        let is_open = self.open.upgrade().is_some_and(|open| !open.is_lost());
        if !is_open {
            return Some(format!("a listening socket of {address} was shut down (as by `ss -K`)"));
        }
        let is_removed = self.file.as_ref().is_some_and(|file| !file.is_in_place());
        is_removed.then(|| format!("the file of {address} was removed or replaced"))
    }

    /// Sets the permissions of a Unix socket.
    fn set_mode(&self, mode: u32) {
        let file = self.file.as_ref().filter(|file| file.is_in_place());
        if let Some(Err(error)) = file.map(|file| file.set_mode(mode)) {
            tracing::warn!(address = %self.address, %error, "cannot change the permissions of a Unix socket");
        }
    }
}

/// What identifies an address across reloads. With port 0, the address alone is not enough, because the system chooses
/// another port each time: the key also has the name of the listener and the index among its addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct AddressKey(ListenAddr, Option<(Arc<str>, usize)>);

impl AddressKey {
    fn all(listener: &ListenerPlan) -> impl Iterator<Item = Self> {
        listener.bind.iter().enumerate().map(|(index, address)| {
            let port_0 = (address.port() == Some(0)).then(|| (Arc::clone(&listener.name), index));
            Self(*address, port_0)
        })
    }
}

/// New addresses, bound.
#[derive(Default)]
pub(super) struct NewlyBound {
    /// Each address, with the name of its listener and the backlog.
    addresses: Vec<(AddressKey, Arc<str>, Bound, u32)>,
    /// A warning for each address that was lost, whether it is bound again or not.
    pub(super) warnings: Vec<String>,
}

/// New addresses that are listened on: the key of each, and the address with the port that the system chose for port 0.
#[derive(Default)]
pub(super) struct NewlyListening(Vec<(AddressKey, ListenAddr, Listening)>);

impl NewlyBound {
    pub(super) fn len(&self) -> usize {
        self.addresses.len()
    }
}

impl ListenSockets {
    pub(super) fn new(
        workers: Vec<UnboundedSender<ListenSocket>>,
        metrics: Arc<Metrics>,
        hello_memory: Arc<HelloMemory>,
        passed: PassedSockets,
    ) -> Self {
        Self {
            workers,
            metrics,
            limits: Arc::default(),
            hello_memory,
            cancels: Arc::default(),
            challenges: Arc::default(),
            passed,
            in_use: HashMap::new(),
            lost: Arc::default(),
            retry_at: None,
            back_off: BackOff::default(),
            closing: Vec::new(),
        }
    }

    /// Binds every address of the plan that is new or lost, or takes the socket that was passed for it. A new address
    /// that cannot be bound is added to `failed`. A lost address that cannot be bound only gets a warning.
    pub(super) fn bind(&self, plan: &Plan, failed: &mut Vec<(String, BindError)>) -> NewlyBound {
        let mut bound = NewlyBound::default();
        let ours = self.all_addresses();
        for listener in &plan.listeners {
            for key in AddressKey::all(listener) {
                let in_use = self.in_use.get(&key);
                let loss = in_use.and_then(AddressInUse::loss);
                if in_use.is_some() && loss.is_none() {
                    continue;
                }
                let address = in_use.map_or(key.0, |in_use| in_use.address);
                let result = match (self.passed.at(address), address.unix()) {
                    (Some(passed), _) => Bound::passed(address, passed, &listener.socket),
                    (None, Some(path)) => Bound::bind_unix(*path, listener.unix_mode),
                    (None, None) if ours.overlaps(address) => Bound::with_reuse_port(address, &listener.socket),
                    (None, None) => Bound::new(address, &listener.socket),
                };
                let loss = loss.map(|loss| format!("listeners.{}: {loss}", listener.name));
                match result {
                    Ok(socket) => {
                        bound
                            .warnings
                            .extend(loss.map(|loss| format!("{loss}: it is bound again")));
                        let name = Arc::clone(&listener.name);
                        bound.addresses.push((key, name, socket, listener.backlog));
                    }
                    Err(error) => match loss {
                        Some(loss) => bound.warnings.push(format!(
                            "{loss}: clients may not reach it, and it cannot be bound again: {}",
                            error.cause
                        )),
                        None => failed.push((format!("listener `{}`", listener.name), error)),
                    },
                }
            }
        }
        bound
    }

    /// Listens on the addresses that were bound; from now on connections are queued. On an error, all are closed again.
    /// An address that overlaps with an earlier one of these can be listened on only with SO_REUSEPORT.
    pub(super) fn listen(&self, bound: NewlyBound) -> Result<NewlyListening, Failure> {
        let mut all: Vec<(AddressKey, ListenAddr, Listening)> = Vec::new();
        let mut ours = ByPort::default();
        for (key, listener, bound, backlog) in bound.addresses {
            let address = bound.address();
            if ours.overlaps(address) {
                bound.set_reuse_port();
            }
            ours.add(address);
            let listening = bound.listen(self.workers.len(), backlog);
            let listening =
                listening.map_err(|error| Failure::Bind(vec![(format!("listener `{listener}`"), error)]))?;
            all.push((key, address, listening));
        }
        Ok(NewlyListening(all))
    }

    /// The addresses that each listener of the plan has once [`Self::apply`] is done, in the order of the plan.
    pub(super) fn addresses(&self, plan: &Plan, listening: &NewlyListening) -> Vec<Vec<ListenAddr>> {
        let new: HashMap<_, _> = listening.0.iter().map(|(key, address, _)| (key, *address)).collect();
        let address = |key: AddressKey| {
            let in_use = self.in_use.get(&key).map(|in_use| in_use.address);
            in_use.or_else(|| new.get(&key).copied())
        };
        let listeners = plan.listeners.iter();
        listeners
            .map(|listener| AddressKey::all(listener).filter_map(address).collect())
            .collect()
    }

    /// Gives every socket the state of its listener, hands the new ones to the workers, and closes those whose address
    /// no listener has any more.
    pub(super) fn apply(&mut self, in_force: &InForce, listening: NewlyListening, drain: &Drain) {
        let mut states = HashMap::new();
        for listener in &in_force.plan.listeners {
            let state = self.state(listener, in_force);
            states.extend(AddressKey::all(listener).map(|key| (key, Arc::clone(&state))));
        }
        let closing = self.in_use.extract_if(|key, in_use| match states.get(key) {
            Some(state) => {
                in_use.set_mode(state.plan.unix_mode);
                set_state(&in_use.open, state);
                false
            }
            None => true,
        });
        // The rest of each `AddressInUse` is dropped, which closes its sockets.
        self.closing
            .extend(closing.map(|(_, in_use)| (in_use.address, in_use.open)));
        self.closing.retain(|(_, open)| open.strong_count() > 0);
        for (key, address, listening) in listening.0 {
            let state = states.get(&key).expect("it was bound for a listener of this plan");
            let in_use = self.start(address, Arc::clone(state), listening, drain);
            let lost = self.in_use.insert(key, in_use); // `None`: the address is new
            self.closing.extend(lost.map(|lost| (lost.address, lost.open)));
        }
        self.hand_over(&states);
        for address in self.passed.addresses() {
            if !self.in_use.values().any(|in_use| in_use.address == address) {
                tracing::warn!(%address, "no listener has the address of a socket of the service manager: its clients wait");
            }
        }
    }

    /// Waits until an address is lost, or the pause after a failure of [`Self::rebind`] is over. Cancel safe.
    pub(super) async fn rebind_due(&self) {
        let until_retry = async {
            match self.retry_at {
                Some(at) => sleep_until(at).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = self.lost.notified() => {}
            () = until_retry => {}
        }
    }

    /// Binds lost addresses of the plan in force again. If that fails, [`Self::rebind_due`] returns after a pause.
    pub(super) fn rebind(&mut self, in_force: &InForce, drain: &Drain) {
        let mut failed = Vec::new(); // stays empty: this plan has no new address
        let bound = self.bind(&in_force.plan, &mut failed);
        let losses = bound.warnings.clone(); // empty if a reload was faster
        let mut has_failed = bound.addresses.len() < losses.len(); // some lost addresses were not bound
        match self.listen(bound) {
            Ok(listening) => {
                for loss in &losses {
                    tracing::error!(%loss, "an address was lost");
                }
                if !listening.0.is_empty() {
                    self.apply(in_force, listening, drain);
                }
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "cannot listen again at a lost address");
                has_failed = true;
            }
        }
        self.retry_at = has_failed.then(|| Instant::now() + self.back_off.next_pause());
        if !has_failed {
            self.back_off.reset();
        }
    }

    /// Gives each closing socket the state of the listener that takes over its address: this listener may have permits
    /// for the clients that wait there. Until the socket is closed, a few new clients may join them.
    fn hand_over(&self, states: &HashMap<AddressKey, Arc<ListenerState>>) {
        for (address, open) in &self.closing {
            let covering = self.in_use.iter().filter(|(_, in_use)| in_use.address.covers(*address));
            // New clients come to the most specific address.
            let successor = covering.max_by_key(|(_, in_use)| in_use.address == *address);
            if let Some(state) = successor.and_then(|(key, _)| states.get(key)) {
                set_state(open, state);
            }
        }
    }

    /// Hands a socket of this address to each worker.
    fn start(
        &self,
        address: ListenAddr,
        state: Arc<ListenerState>,
        listening: Listening,
        drain: &Drain,
    ) -> AddressInUse {
        let (stop, open) = (
            drain.socket_stop(),
            Arc::new(OpenAddress::new(state, Arc::clone(&self.lost))),
        );
        for (worker, socket) in self.workers.iter().zip(listening.sockets) {
            let socket = ListenSocket {
                socket,
                queue: listening.queue,
                states: open.states(),
                stop: stop.child_token(),
                open: Arc::clone(&open),
            };
            let _ = worker.send(socket); // fails if the worker is gone, which ends the process anyway
        }
        AddressInUse {
            address,
            open: Arc::downgrade(&open),
            file: listening.file,
            _stop: stop.drop_guard(),
        }
    }

    fn state(&self, listener: &Arc<ListenerPlan>, in_force: &InForce) -> Arc<ListenerState> {
        let limits = self.limits.listener(&listener.name, listener.max_connections);
        let series = self.metrics.listener(&listener.name);
        let memory = Arc::clone(&self.hello_memory);
        Arc::new(ListenerState::new(
            Arc::clone(listener),
            in_force,
            limits,
            series,
            memory,
            (Arc::clone(&self.cancels), Arc::clone(&self.challenges)),
        ))
    }

    /// All addresses that are listened on, including those whose sockets are being closed. An address without an open
    /// socket is left out: another process may listen there by now, and must not share the port with us.
    fn all_addresses(&self) -> ByPort {
        let in_use = self.in_use.values().map(|in_use| (in_use.address, &in_use.open));
        let closing = self.closing.iter().map(|(address, open)| (*address, open));
        let mut all = ByPort::default();
        for (address, _) in in_use.chain(closing).filter(|(_, open)| open.strong_count() > 0) {
            all.add(address);
        }
        all
    }
}

/// Gives the sockets of an address another state, unless they are closed.
fn set_state(open: &Weak<OpenAddress>, state: &Arc<ListenerState>) {
    if let Some(open) = open.upgrade() {
        open.set_state(Arc::clone(state));
    }
}

/// Addresses by port; `None`: Unix sockets.
#[derive(Default)]
struct ByPort(HashMap<Option<u16>, Vec<ListenAddr>>);

impl ByPort {
    fn add(&mut self, address: ListenAddr) {
        self.0.entry(address.port()).or_default().push(address);
    }

    /// Whether the kernel sees a conflict between this address and one of these.
    fn overlaps(&self, address: ListenAddr) -> bool {
        let at_port = self.0.get(&address.port()).into_iter().flatten();
        at_port.copied().any(|ours| ours.overlaps(address))
    }
}
