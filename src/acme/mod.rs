//! Certificates by ACME (RFC 8555): what is configured, one order, its pending challenges, and when the next order is
//! due. The ACME server may suggest that time (RFC 9773). [`crate::app`] makes the orders, one at a time.

mod plan;
mod challenges;
mod http;
mod account;
mod order;
mod schedule;
mod renewal_info;
mod renewals;

pub use account::AcmeError;
pub use challenges::{ACME_TLS_ALPN, Challenges, PendingChallenge};
pub use order::issue;
pub use plan::{AcmePlan, ChallengeKind, ExternalAccount};
pub use renewal_info::{RenewalAnswer, SuggestedRenewal, identifier, renewal_info};
pub use renewals::{RenewalReason, RenewalState, Renewals, RenewalsByFile};
pub use schedule::{Attempts, RenewalWindow, back_off, pause_after_issue, poll_back_off, poll_interval, renewal_time};
