//! The key names of other proxies for pools, their servers and checks.

use super::Synonyms;
use super::tls::SERVER_TLS;
use super::words::{
    CONNECT_TIMEOUT, HALF_CLOSE_TIMEOUT, IDLE_TIMEOUT, KEEPALIVE_SWITCH, RETRIES, SOURCE, USER_TIMEOUT,
};

const HTTP_CHECK: &[&str] = &["httpchk", "httpcheck", "httphealthcheck"];
const SEND_EXPECT_CHECK: &[&str] = &["tcpcheck", "tcphealthcheck", "customhealthcheck"];

const EXEC_CHECK: &[&str] = &["externalcheck", "externalcheckcommand"];
const AGENT_CHECK: &[&str] = &["agentcheck", "agentport", "agentinter", "agentaddr", "agentsend"];

const POSTGRES_CHECK: &[&str] = &["pgsqlcheck", "postgrescheck"];
const MYSQL_CHECK: &[&str] = &["mysqlcheck", "mariadbcheck"];
const REDIS_CHECK: &[&str] = &["redischeck", "redishealthcheck"];

pub(super) const POOL_SYNONYMS: Synonyms = &[
    (
        &[
            "server",
            "upstream",
            "upstreams",
            "backend",
            "backends",
            "endpoint",
            "endpoints",
            "loadassignment",
            "targets",
            "members",
            "hosts",
            "addresses",
        ],
        "`servers`",
    ),
    (
        &[
            "algorithm",
            "lbpolicy",
            "loadbalancer",
            "loadbalancing",
            "method",
            "policy",
            "strategy",
        ],
        "`balance`",
    ),
    (CONNECT_TIMEOUT, "`connect_timeout`"),
    (RETRIES, "`retries`"),
    (SOURCE, "`bind_source`"),
    (&["sendproxy"], "`proxy_protocol = \"v1\"`"),
    (&["sendproxyv2"], "`proxy_protocol = \"v2\"`"),
    (
        &["healthcheck", "healthchecks", "check", "checks", "outlierdetection"],
        "`[pools.NAME.health]`",
    ),
    (HTTP_CHECK, "`check = \"http\"` in `[pools.NAME.health]`"),
    (SEND_EXPECT_CHECK, "`check = \"send-expect\"` in `[pools.NAME.health]`"),
    (EXEC_CHECK, "`check = \"exec\"` in `[pools.NAME.health]`"),
    (AGENT_CHECK, "`check = \"agent\"` in `[pools.NAME.health]`"),
    (POSTGRES_CHECK, "`check = \"postgres\"` in `[pools.NAME.health]`"),
    (MYSQL_CHECK, "`check = \"mysql\"` in `[pools.NAME.health]`"),
    (REDIS_CHECK, "`check = \"redis\"` in `[pools.NAME.health]`"),
    (
        &[
            "targetsessionattrs",
            "targetrole",
            "servertype",
            "hostgroup",
            "writer",
            "readonly",
        ],
        "`role`",
    ),
    (
        &["maxreplicationlag", "replicationlag", "maximumlagonfailover", "lag"],
        "`max_lag`",
    ),
    (
        &["multimaster", "multiprimary", "multiwriter", "maxwriters"],
        "`single = false`: all primaries are used",
    ),
    (&["preempt", "nopreempt", "autofailback", "nofailback"], "`failback`"),
    (
        &["failover", "failoverpool", "fallbackpool", "aggregatecluster"],
        "`fallback`",
    ),
    (&["onmarkedup"], "`on_recover = \"close\"`"),
    (
        &["poolsize", "defaultpoolsize", "maxdbconnections", "reservepoolsize"],
        "`max_sessions`, a limit of each server; acequia shares no connection among clients",
    ),
    (&["dnsrefreshrate", "dnsinterval"], "`resolve_interval`"),
    (&["resolver", "resolvers"], "`resolve_interval`"),
    (&["dnslookupfamily", "resolveprefer"], "`resolve`"),
    (KEEPALIVE_SWITCH, "`keepalive`"),
    (USER_TIMEOUT, "`user_timeout`"),
    (IDLE_TIMEOUT, "`idle_timeout` in `[listeners.NAME]` or `[defaults]`"),
    (
        HALF_CLOSE_TIMEOUT,
        "`half_close_timeout` in `[listeners.NAME]` or `[defaults]`",
    ),
    (&["hash", "hashon"], "`balance = \"source-hash\"`"),
    (
        &["onmarkeddown", "closeconnectionsonhosthealthfailure"],
        "`on_down = \"close\"`",
    ),
    (&["slowstartconfig", "slowstartwindow"], "`slow_start`"),
    (SERVER_TLS, "`[pools.NAME.tls]`: TLS with the servers"),
    (
        &[
            "maxconnectionduration",
            "maxconnectionage",
            "maxlifetime",
            "serverlifetime",
        ],
        "`max_session_age`",
    ),
    (
        &[
            "maxconn",
            "maxconns",
            "maxconnections",
            "fullconn",
            "circuitbreakers",
            "inflightconn",
            "limitconn",
        ],
        "`max_sessions`, a limit of each server",
    ),
    (
        &[
            "backlogqueue",
            "maxqueue",
            "maxpendingrequests",
            "timeoutqueue",
            "queuetimeout",
            "querywaittimeout",
        ],
        "`queue = { max = 1000, timeout = \"5s\" }`",
    ),
    (
        &["panicthreshold", "healthypanicthreshold"],
        "`panic_threshold` in `[pools.NAME.health]`",
    ),
];

pub(super) const SERVER_SYNONYMS: Synonyms = &[
    (AGENT_CHECK, "`check = \"agent\"` in `[pools.NAME.health]`"),
    (
        &["addr", "host", "ip", "url", "server", "target", "socketaddress"],
        "`address`",
    ),
    (&["port"], "`address`, as in \"10.0.0.11:5432\""),
    (&["backup"], "`priority = 1`"),
    (&["down", "disabled", "drain"], "`weight = 0`"),
    (&["loadbalancingweight"], "`weight`"),
    (&["id", "label", "hostname"], "`name`"),
    (
        &["check", "health", "healthcheck", "inter", "rise", "fall"],
        "`[pools.NAME.health]`, which applies to all servers of the pool",
    ),
    (&["maxconn", "maxconns", "maxconnections"], "`max_sessions`"),
    (&["maxqueue", "minconn"], "`queue` in `[pools.NAME]`"),
    (&["maxfails"], "`eject_after` in `[pools.NAME.health]`"),
    (&["failtimeout"], "`eject_for` in `[pools.NAME.health]`"),
    (
        &["proxyprotocol", "sendproxy", "sendproxyv2"],
        "`proxy_protocol` in `[pools.NAME]`",
    ),
    (SOURCE, "`bind_source` in `[pools.NAME]`"),
    (
        SERVER_TLS,
        "`[pools.NAME.tls]`, which applies to all servers of the pool",
    ),
];

pub(super) const HEALTH_SYNONYMS: Synonyms = &[
    (&["type", "kind", "mode", "protocol"], "`check`"),
    (HTTP_CHECK, "`check = \"http\"`"),
    (POSTGRES_CHECK, "`check = \"postgres\"`"),
    (MYSQL_CHECK, "`check = \"mysql\"`"),
    (REDIS_CHECK, "`check = \"redis\"`"),
    (
        &["query", "servercheckquery", "sql"],
        "`check = \"postgres\"` or `\"mysql\"` with `user`: these checks query what `role` and `max_lag` need",
    ),
    (
        &[
            "username",
            "login",
            "authuser",
            "authusername",
            "monitoruser",
            "monitorusername",
        ],
        "`user`",
    ),
    (&["sentinelusername", "sentinelauthuser"], "`sentinel_user`"),
    (
        &["sentinelpassword", "sentinelauthpass"],
        "`sentinel_password_file`: a file that contains it",
    ),
    (SEND_EXPECT_CHECK, "`check = \"send-expect\"`"),
    (&["uri", "url", "httppath", "httpchkuri"], "`path`"),
    (&["httpmethod", "meth"], "`method`"),
    (&["hostname", "authority", "hdr"], "`host`"),
    (&["requestheaderstoadd", "header", "httpheaders"], "`headers`"),
    (
        &[
            "status",
            "rstatus",
            "expectedstatus",
            "expectedstatuses",
            "codes",
            "httpcheckexpect",
        ],
        "`expect`",
    ),
    (&["rstring", "string", "receive", "httpbody"], "`body`"),
    (&["recv", "sendbinary", "tcpcheckexpect", "tcpchecksend"], "`steps`"),
    (&["scheme", "ssl", "checkssl"], "`tls`"),
    (
        &["externalcheck", "externalcheckcommand", "script", "exec"],
        "`check = \"exec\"` with `command`",
    ),
    (&["agentcheck", "agent"], "`check = \"agent\"`"),
    (&["agentport"], "`port`, with `check = \"agent\"`"),
    (&["agentaddr"], "`address`, with `check = \"agent\"`"),
    (&["agentsend"], "`send`"),
    (&["inter", "every", "period"], "`interval`"),
    (&["downinter", "fastinter", "unhealthyinterval"], "`interval_down`"),
    (&["healthythreshold", "passes", "successes"], "`rise`"),
    (&["unhealthythreshold", "fails", "failures"], "`fall`"),
    (
        &[
            "maxfails",
            "consecutive5xx",
            "consecutivelocaloriginfailure",
            "errorlimit",
        ],
        "`eject_after`",
    ),
    (&["failtimeout", "baseejectiontime"], "`eject_for`"),
    (&["maxejectiontime"], "`eject_max_for`"),
    (&["maxejectionpercent"], "`eject_max_percent`"),
    (&["healthypanicthreshold"], "`panic_threshold`"),
    (&["checksni", "servername"], "`sni`"),
    (
        &[
            "password",
            "passwd",
            "authpassword",
            "authpass",
            "requirepass",
            "monitorpassword",
        ],
        "`password_file`: a file that contains it",
    ),
    (&["mastername", "servicename", "sentinelmaster"], "`master`"),
    (&["sentinel", "sentinelnodes"], "`sentinels`"),
    (&["dbname", "datname"], "`database`"),
    (&["enabled", "disabled"], "`check`; \"off\" disables checks"),
];
