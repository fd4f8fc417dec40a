//! The part of `acequia route` about TLS.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use crate::name::{ServerName, Sni};
use crate::plan::{ListenerPlan, PoolId};
use crate::route::{RouteChoice, TlsMode};
use crate::tls::ListenerTls;

/// Explains whether TLS is terminated or passed on. Writes nothing for a listener without a `tls` section. `tls`: the
/// certificates of the listener; `None`: a TLS file of the plan cannot be read.
pub(super) fn write_tls(
    text: &mut String,
    listener: &ListenerPlan,
    tls: Option<&Arc<ListenerTls>>,
    name: Option<&Sni>,
    choice: &RouteChoice<'_, PoolId>,
) -> fmt::Result {
    if listener.tls.is_none() {
        return Ok(());
    }
    if listener.routes.tls_mode(choice) != Some(TlsMode::Terminate) {
        return writeln!(text, "TLS is passed on");
    }
    let valid = name.and_then(Sni::valid).map(ServerName::as_str);
    match tls.and_then(|tls| tls.certificate_for(valid)) {
        Some(certificate) if certificate.is_self_signed => writeln!(
            text,
            "TLS ends here, with a self-signed certificate, until there is {}",
            certificate.path().display()
        ),
        Some(certificate) => writeln!(
            text,
            "TLS ends here, with the certificate {}",
            certificate.path().display()
        ),
        None => writeln!(text, "TLS ends here, but the certificates cannot be read"),
    }
}
