//! The names of all metrics but `process_*`, and the help texts of those whose values the crate
//! `metrics-exporter-prometheus` keeps.

pub(super) const BUILD_INFO: &str = "acequia_build_info";
pub(super) const CONNECTIONS: &str = "acequia_connections_total";
pub(super) const SESSIONS: &str = "acequia_sessions_total";
pub(super) const POOL_SESSIONS: &str = "acequia_pool_sessions_total";
pub(super) const POOL_PRIMARIES: &str = "acequia_pool_primaries";
pub(super) const POOL_FALLBACK: &str = "acequia_pool_fallback";
pub(super) const STATE_DIR_UNSAVED: &str = "acequia_state_dir_unsaved";
pub(super) const REMOTE_UP: &str = "acequia_remote_up";
pub(super) const REMOTE_REFUSED: &str = "acequia_remote_refused";
pub(super) const REMOTE_REVISION: &str = "acequia_remote_revision";
pub(super) const ANNOUNCE_UP: &str = "acequia_announce_up";
pub(super) const ANNOUNCE_LAST_SUCCESS: &str = "acequia_announce_last_success_timestamp_seconds";
pub(super) const ANNOUNCED_ROUTES: &str = "acequia_announced_routes";
pub(super) const ANNOUNCEMENTS_REFUSED: &str = "acequia_announcements_refused";
pub(super) const DISCOVERY_UP: &str = "acequia_discovery_up";
pub(super) const DISCOVERY_LAST_SUCCESS: &str = "acequia_discovery_last_success_timestamp_seconds";
pub(super) const POOL_QUEUE: &str = "acequia_pool_queue";
pub(super) const POOL_CLONES: &str = "acequia_pool_clones";
pub(super) const POOL_SCALE: &str = "acequia_pool_scale_total";
pub(super) const POOL_COLD_STARTS: &str = "acequia_pool_cold_starts_total";
pub(super) const QUEUE_WAIT: &str = "acequia_queue_wait_seconds";
pub(super) const ROUTE_SESSIONS: &str = "acequia_route_sessions_total";
pub(super) const WORKER_BUSY: &str = "acequia_worker_busy_seconds_total";
pub(super) const SERVER_LAG: &str = "acequia_server_lag_seconds";
pub(super) const SESSIONS_ACTIVE: &str = "acequia_sessions_active";
pub(super) const SERVER_SESSIONS_ACTIVE: &str = "acequia_server_sessions_active";
pub(super) const SERVER_MAX_SESSIONS: &str = "acequia_server_max_sessions";
pub(super) const BYTES: &str = "acequia_bytes_total";
pub(super) const HELLO_DURATION: &str = "acequia_hello_duration_seconds";
pub(super) const TLS_HANDSHAKES: &str = "acequia_tls_handshakes_total";
pub(super) const TLS_RESUMPTIONS: &str = "acequia_tls_resumptions_total";
pub(super) const TLS_HANDSHAKE_DURATION: &str = "acequia_tls_handshake_seconds";
pub(super) const CERTIFICATE_RELOADS: &str = "acequia_certificate_reloads_total";
pub(super) const OWN_CERTIFICATE_EXPIRY: &str = "acequia_certificate_expiry_timestamp_seconds";
pub(super) const OWN_CERTIFICATE_NOT_BEFORE: &str = "acequia_certificate_not_before_timestamp_seconds";
pub(super) const CRL_NEXT_UPDATE: &str = "acequia_crl_next_update_timestamp_seconds";
pub(super) const ACME_RENEWALS: &str = "acequia_acme_renewals_total";
pub(super) const CONNECT_DURATION: &str = "acequia_connect_duration_seconds";
pub(super) const CONNECT_FAILURES: &str = "acequia_connect_failures_total";
pub(super) const SESSION_DURATION: &str = "acequia_session_duration_seconds";
pub(super) const SERVER_UP: &str = "acequia_server_up";
pub(super) const SERVER_HEALTHY: &str = "acequia_server_healthy";
pub(super) const SERVER_ROLE_OK: &str = "acequia_server_role_ok";
pub(super) const SERVER_USE: &str = "acequia_server_use";
pub(super) const SERVER_EJECTED: &str = "acequia_server_ejected";
pub(super) const SERVER_USABLE: &str = "acequia_server_usable";
pub(super) const SERVER_WEIGHT: &str = "acequia_server_weight";
pub(super) const POOL_SERVERS: &str = "acequia_pool_servers";
pub(super) const POOL_USABLE: &str = "acequia_pool_usable";
pub(super) const MAX_CONNECTIONS: &str = "acequia_max_connections";
pub(super) const PROCESS_MAX_CONNECTIONS: &str = "acequia_process_max_connections";
pub(super) const HEALTH_CHECK_DURATION: &str = "acequia_health_check_duration_seconds";
pub(super) const SERVER_CERTIFICATE_EXPIRY: &str = "acequia_server_certificate_expiry_timestamp_seconds";
pub(super) const SERVER_CERTIFICATE_NOT_BEFORE: &str = "acequia_server_certificate_not_before_timestamp_seconds";
pub(super) const HEALTH_CHECKS: &str = "acequia_health_checks_total";
pub(super) const HEALTH_CHECK_REFUSED: &str = "acequia_health_check_refused";
pub(super) const HEALTH_TRANSITIONS: &str = "acequia_health_transitions_total";
pub(super) const ACCEPT_PAUSES: &str = "acequia_accept_pauses_total";
pub(super) const CANCELS: &str = "acequia_cancel_requests_total";
pub(super) const CONFIG_RELOADS: &str = "acequia_config_reloads_total";
pub(super) const CONFIG_LAST_RELOAD: &str = "acequia_config_last_reload_timestamp_seconds";
pub(super) const LOG_LINES_DROPPED: &str = "acequia_log_lines_dropped_total";

pub(super) const GUARD_REFUSALS: &str = "acequia_guard_refusals_total";
pub(super) const GUARD_REPORTS: &str = "acequia_guard_reports_total";
pub(super) const GUARD_EVICTIONS: &str = "acequia_guard_evictions_total";
pub(super) const GUARD_SESSIONS: &str = "acequia_guard_sessions";
pub(super) const GUARD_SOURCES: &str = "acequia_guard_sources";

/// Counters whose values `metrics-exporter-prometheus` keeps: name and help text.
pub(super) const COUNTERS: &[(&str, &str)] = &[
    (CONNECTIONS, "Client connections accepted."),
    (SESSIONS, "Sessions that have ended, by ending."),
    (BYTES, "Bytes read from clients (up) and from servers (down)."),
    (CONNECT_FAILURES, "Failed attempts to connect to a server, by reason."),
    (HEALTH_CHECKS, "Health checks, by result."),
    (
        HEALTH_TRANSITIONS,
        "Changes of the health checks' verdict on a server to up, down or wrong_role.",
    ),
    (
        ACCEPT_PAUSES,
        "Times that accepting paused although a client was waiting, by reason.",
    ),
    (
        TLS_HANDSHAKES,
        "TLS handshakes with clients, by version (empty if none was agreed) and result.",
    ),
    (
        CERTIFICATE_RELOADS,
        "Times that changed TLS files were read again, by result.",
    ),
    (TLS_RESUMPTIONS, "TLS sessions of clients that were resumed."),
    (
        CANCELS,
        "Requests to cancel a query of PostgreSQL, by how the server was found.",
    ),
    (CONFIG_RELOADS, "Reloads of the configuration, by result."),
    (LOG_LINES_DROPPED, "Access log lines that could not be written."),
];

/// Gauges whose values `metrics-exporter-prometheus` keeps: name and help text.
pub(super) const GAUGES: &[(&str, &str)] = &[
    (BUILD_INFO, "Always 1; the label is the version."),
    (
        CONFIG_LAST_RELOAD,
        "When the current configuration was loaded, in seconds since the Unix epoch.",
    ),
];
