//! Certificates by ACME (RFC 8555): what is configured, the challenges that an order has pending, one order, and when the
//! next one is due. [`crate::app`] makes the orders, one at a time.

mod plan;
mod challenges;
mod http;
mod account;
mod order;
mod schedule;
mod renewals;

pub use account::AcmeError;
pub use challenges::{ACME_TLS_ALPN, Challenges, PendingChallenge};
pub use order::issue;
pub use plan::{AcmePlan, ChallengeKind, ExternalAccount};
pub use renewals::{RenewalState, Renewals};
pub use schedule::{Attempts, back_off, pause_after_issue, renewal_time};
