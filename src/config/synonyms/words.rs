//! Groups of normalized key names of other proxies. Each group has an equivalent in several sections of a
//! configuration of acequia.

pub(super) const CONNECT_TIMEOUT: &[&str] = &[
    "timeoutconnect",
    "proxyconnecttimeout",
    "dialtimeout",
    "serverconnecttimeout",
];
pub(super) const RETRIES: &[&str] = &[
    "maxconnectattempts",
    "proxynextupstreamtries",
    "maxretries",
    "retry",
    "attempts",
];
pub(super) const IDLE_TIMEOUT: &[&str] = &[
    "timeoutclient",
    "timeoutserver",
    "timeouttunnel",
    "proxytimeout",
    "clientidletimeout",
    "timeout",
];
pub(super) const HALF_CLOSE_TIMEOUT: &[&str] = &[
    "timeoutclientfin",
    "timeoutserverfin",
    "halfclosedtimeout",
    "terminationdelay",
];
pub(super) const HELLO_TIMEOUT: &[&str] = &[
    "tcprequestinspectdelay",
    "inspectdelay",
    "prereadtimeout",
    "listenerfilterstimeout",
    "clientlogintimeout",
];
pub(super) const BANDWIDTH: &[&str] = &[
    "proxydownloadrate",
    "proxyuploadrate",
    "limitrate",
    "bwlimit",
    "bandwidthlimit",
];
pub(super) const SOURCE: &[&str] = &[
    "source",
    "usesrc",
    "proxybind",
    "sourceaddress",
    "bindaddress",
    "upstreambindconfig",
];
pub(super) const HELLO_MAX: &[&str] = &["prereadbuffersize", "maxclienthellosize"];
pub(super) const KEEPALIVE_SWITCH: &[&str] = &[
    "tcpkeepalive",
    "sokeepalive",
    "proxysocketkeepalive",
    "clitcpka",
    "srvtcpka",
    "tcpka",
];
pub(super) const USER_TIMEOUT: &[&str] = &["tcput", "tcpusertimeout"];
