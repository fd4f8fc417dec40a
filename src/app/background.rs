//! Tasks that run beside the workers.

use std::sync::{Arc, Weak};

use tokio::signal::unix::Signal;
use tokio::task::JoinSet;

use super::acme::AcmeOrders;
use super::listen_sockets::ListenSockets;
use super::recoveries::log_recoveries;
use super::{listener_tls, service_manager};
use crate::account::access_log::AccessLog;
use crate::admin::{self, Admin, AdminEndpoint};
use crate::history::HistoryInputs;
use crate::worker::Heartbeat;
use crate::{discover, outage, retire, sever};

/// Starts tasks that run beside the workers; [`App::run`](super::App::run) adds others. `admin_clients_max`: the
/// largest number of clients of all admin endpoints together.
pub(super) fn spawn_tasks(
    admin: &Arc<Admin>,
    sockets: &ListenSockets,
    heartbeats: Vec<Weak<Heartbeat>>,
    endpoints: Vec<AdminEndpoint>,
    admin_clients_max: usize,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(Arc::clone(&admin.metrics).run_upkeep());
    tasks.spawn(log_recoveries(
        Arc::clone(&admin.metrics),
        Arc::clone(&sockets.hello_memory),
    ));
    tasks.spawn(listener_tls::watch(Arc::clone(&admin.live), Arc::clone(&admin.metrics)));
    tasks.spawn(service_manager::feed_watchdog(heartbeats));
    tasks.spawn(AcmeOrders::new(admin, Arc::clone(&sockets.challenges)).run());
    tasks.spawn(discover::run(Arc::clone(&admin.live)));
    tasks.spawn(outage::run(Arc::clone(&admin.live)));
    tasks.spawn(sever::run(Arc::clone(&admin.live), admin.ledgers.clone()));
    tasks.spawn(Arc::clone(&admin.history).run(HistoryInputs {
        live: Arc::clone(&admin.live),
        limits: Arc::clone(&admin.limits),
        ledgers: admin.ledgers.clone(),
        metrics: Arc::clone(&admin.metrics),
    }));
    tasks.spawn(admin::publish(Arc::clone(admin)));
    tasks.spawn(retire::run(Arc::clone(&admin.live), admin.ledgers.clone()));
    let other_clients_max = admin_clients_max - event_streams_max(admin_clients_max);
    // There are at most two endpoints. Each may have half of the clients that are not event streams, so that the
    // clients of one endpoint cannot lock out those of the other.
    let endpoint_clients_max = (other_clients_max / 2).max(1);
    for endpoint in endpoints {
        tasks.spawn(admin::serve(endpoint, Arc::clone(admin), endpoint_clients_max));
    }
    tasks
}

/// The largest number of event streams of all admin endpoints together. `admin_clients_max`: the largest number of
/// clients of these endpoints, including the event streams.
pub(super) fn event_streams_max(admin_clients_max: usize) -> usize {
    admin_clients_max * 2 / 3
}

/// Reopens the file of the access log on every signal, also while the process drains.
pub(super) async fn reopen_on_signal(log: AccessLog, mut signal: Signal) {
    while signal.recv().await.is_some() {
        log.reopen();
    }
}
