//! The certificates of the admin port, of listeners and of pools, and the TLS files that are broken.

use std::time::SystemTime;

use crate::admin::bodies::StateBody;
use crate::text::counted;

/// The words before the error of a broken file.
const BROKEN: &str = "a TLS file is broken, the files read before stay in force";

/// A line for the certificates of the admin port and of each listener and pool, and one for each self-signed
/// certificate, warning and broken file. An empty line comes before them. Nothing if there are no such lines.
pub(super) fn notes(state: &StateBody) -> String {
    let mut notes = String::new();
    let broken_note = |of: &str, what: &str| format!("\n{of}: {BROKEN}: {what}");
    let admin = state.admin_tls.iter().map(|tls| ("[admin]", tls));
    let listeners = state.listeners.iter();
    let listeners = listeners.filter_map(|listener| Some((&*listener.name, listener.tls.as_ref()?)));
    for (of, tls) in admin.chain(listeners) {
        let count = counted(tls.certificates, "certificate");
        let which = tls.expires_first.as_deref().unwrap_or("the first");
        notes += &format!("\n{of}: {count}, {which} {}", expiry(&tls.expires));
        for name in &tls.self_signed {
            notes += &format!(
                "\n{of}: {name} has a self-signed certificate until ACME has issued one (`acequia cert list`)"
            );
        }
        for warning in &tls.warnings {
            notes += &format!("\n{of}: {warning}");
        }
        for broken in &tls.broken {
            notes += &broken_note(of, broken);
        }
    }
    for (name, tls) in state
        .pools
        .iter()
        .filter_map(|pool| Some((&pool.name, pool.tls.as_ref()?)))
    {
        if let Some(expires) = &tls.certificate_expires {
            notes += &format!("\npool {name}: its certificate for servers {}", expiry(expires));
        }
        for broken in &tls.broken {
            notes += &broken_note(&format!("pool {name}"), broken);
        }
    }
    if notes.is_empty() { notes } else { notes + "\n" }
}

/// When a certificate expires, or that it has.
fn expiry(at: &str) -> String {
    let has_expired = humantime::parse_rfc3339(at).is_ok_and(|expires| expires < SystemTime::now());
    format!("{} {at}", if has_expired { "has expired on" } else { "expires" })
}
