//! The key names of other proxies for TLS, ACME and redirects.

use super::Synonyms;

/// Keys for a certificate that belong in `[listeners.NAME.tls]`, but were written in the listener itself.
pub(super) const LISTENER_CERTIFICATE: &[&str] = &[
    "ssl",
    "crt",
    "crtlist",
    "cert",
    "certs",
    "certfile",
    "certificate",
    "certificates",
    "sslcertificate",
    "sslcertificatekey",
    "tlscertificates",
    "transportsocket",
    "downstreamtlscontext",
];

/// Keys for TLS with servers that belong in `[pools.NAME.tls]`, but were written in the pool or a server itself.
pub(super) const SERVER_TLS: &[&str] = &[
    "ssl",
    "proxyssl",
    "transportsocket",
    "upstreamtlscontext",
    "serverstransport",
    "scheme",
];

/// Keys for the ACME account of certificates.
pub(super) const ACME_RESOLVER: &[&str] = &["certificatesresolver", "certificatesresolvers", "certresolver"];

/// Keys for a redirect to https.
pub(super) const HTTPS_REDIRECT: &[&str] = &["redirectscheme", "httpsredirect", "redirections", "return", "rewrite"];

pub(super) const LISTENER_TLS_SYNONYMS: Synonyms = &[
    (
        &[
            "crt",
            "crtlist",
            "cert",
            "certs",
            "certfile",
            "certificate",
            "sslcertificate",
            "tlscertificates",
            "defaultcertificate",
            "stores",
        ],
        "`certificates = [{ cert = \"FILE\", key = \"FILE\" }]`",
    ),
    (
        &["key", "keyfile", "privatekey", "sslcertificatekey"],
        "`key` in an entry of `certificates`",
    ),
    (
        ACME_RESOLVER,
        "`certificates = [{ acme = \"NAME\", names = [\"shop.example.com\"] }]`",
    ),
    (&["alpnprotocols", "protocols", "nextprotocols", "http2"], "`alpn`"),
    (
        &[
            "sslminver",
            "sslprotocols",
            "minversion",
            "tlsminimumprotocolversion",
            "tlsparams",
            "minprotocol",
            "nosslv3",
            "notlsv10",
            "notlsv11",
        ],
        "`min_version`: \"1.2\" or \"1.3\"",
    ),
    (
        &[
            "verify",
            "verifyclient",
            "sslverifyclient",
            "clientauthtype",
            "requireclientcertificate",
            "cafile",
            "cafiles",
            "sslclientcertificate",
            "sslcrl",
            "crlfile",
            "validationcontext",
        ],
        "`client_auth = { ca_file = \"FILE\", mode = \"require\", crl_file = \"FILE\" }`",
    ),
    (
        &[
            "tlsticketkeys",
            "sslsessionticketkey",
            "sessionticketkeys",
            "sslsessiontickets",
        ],
        "`tickets`",
    ),
    (
        &["passthrough"],
        "`tls = \"pass\"` in `[[listeners.NAME.routes]]`; without `[listeners.NAME.tls]` all TLS is passed on",
    ),
    (
        &[
            "ciphers",
            "ciphersuites",
            "sslciphers",
            "sslciphersuites",
            "curves",
            "curvepreferences",
            "ecdhe",
        ],
        "none: suites and groups are the safe ones of TLS 1.2 and 1.3",
    ),
    (
        &["snistrict", "strictsni", "sslrejecthandshake"],
        "`refuse = true` in a route; without `pool` in the listener, names without a route are always refused",
    ),
];

pub(super) const CERTIFICATE_SYNONYMS: Synonyms = &[
    (
        &[
            "crt",
            "certfile",
            "certificate",
            "certificatechain",
            "sslcertificate",
            "file",
        ],
        "`cert`",
    ),
    (&["keyfile", "privatekey", "sslcertificatekey"], "`key`"),
    (&["crtbase", "crtdir", "dir", "folder", "path"], "`directory`"),
    (ACME_RESOLVER, "`acme`"),
    (&["domain", "domains", "main", "sans", "hosts", "servername"], "`names`"),
    (
        &["ocsp", "ocspstaple", "sslstapling", "sslstaplingfile"],
        "none: a response in NAME.ocsp beside NAME.pem is sent along",
    ),
];

pub(super) const CLIENT_AUTH_SYNONYMS: Synonyms = &[
    (
        &["cafiles", "trustedca", "sslclientcertificate", "ssltrustedcertificate"],
        "`ca_file`",
    ),
    (
        &[
            "verify",
            "clientauthtype",
            "sslverifyclient",
            "requireclientcertificate",
            "required",
            "optional",
        ],
        "`mode`: \"require\" or \"request\"",
    ),
    (&["crl", "sslcrl"], "`crl_file`"),
    (
        &[
            "san",
            "sans",
            "subjectaltname",
            "matchsubjectaltnames",
            "matchtypedsubjectaltnames",
        ],
        "`names`",
    ),
];

pub(super) const POOL_TLS_SYNONYMS: Synonyms = &[
    (&["servername", "proxysslname", "host", "hostname"], "`sni`"),
    (
        &["proxysslservername"],
        "`sni`; without it, the host name in the server's address is sent",
    ),
    (
        &[
            "proxysslverify",
            "insecureskipverify",
            "insecure",
            "trustchainverification",
            "verifynone",
        ],
        "`verify`: on by default, false turns it off",
    ),
    (
        &[
            "cafiles",
            "rootcas",
            "trustedca",
            "proxyssltrustedcertificate",
            "validationcontext",
        ],
        "`ca_file`",
    ),
    (
        &[
            "crt",
            "certfile",
            "certificate",
            "certificates",
            "proxysslcertificate",
            "tlscertificates",
        ],
        "`cert`",
    ),
    (&["keyfile", "privatekey", "proxysslcertificatekey"], "`key`"),
    (&["alpnprotocols", "protocols"], "`alpn`"),
    (
        &["minversion", "proxysslprotocols", "sslminver"],
        "none: servers are offered TLS 1.2 and 1.3",
    ),
];

pub(super) const ACME_SYNONYMS: Synonyms = &[
    (&["caserver", "server", "url", "directoryurl"], "`directory`"),
    (&["email", "mail"], "`contact = [\"mailto:ops@example.com\"]`"),
    (&["storage", "store", "statedir", "dir"], "`state_dir`"),
    (&["tlschallenge"], "`challenge = \"tls-alpn-01\"`, the default"),
    (&["httpchallenge"], "`challenge = \"http-01\"`"),
    (&["dnschallenge"], "none: names are validated by tls-alpn-01 or http-01"),
    (&["cacertificates", "cafile"], "`ca_file`"),
    (
        &["domain", "domains", "names"],
        "`names` in an entry of `certificates` of `[listeners.NAME.tls]`",
    ),
];

pub(super) const REDIRECT_SYNONYMS: Synonyms = &[
    (
        &["target", "location", "entrypoint", "listener"],
        "`to`: the name of a listener",
    ),
    (&["permanent", "status", "responsecode"], "`code`: 301, 302, 307 or 308"),
    (&["host", "servername"], "`hosts`"),
    (&["scheme"], "none: it is always https"),
];
