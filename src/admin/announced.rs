//! Routes that are announced.

use super::announced_bodies::{AnnouncedBody, RefusedAnnouncementBody};
use super::context::{Admin, rfc3339};
use crate::account::AnnounceSample;
use crate::plan::{AnnouncementRefusal, Plan, RefusedAnnouncement};

/// The maximum number of refused announcements in a response.
const REFUSED_SHOWN: usize = 1000;

/// The source of announced routes; `None`: no listener of the plan accepts announcements.
pub(super) fn announced_body(admin: &Admin, plan: &Plan) -> Option<AnnouncedBody> {
    plan.announcing_engine()?;
    let state = admin.live.announcing();
    let refused = &plan.refused_announcements;
    let body = |refused: &RefusedAnnouncement| RefusedAnnouncementBody {
        from: refused.from.to_string(),
        listener: refused.listener.to_string(),
        sni: refused.sni.to_string(),
        reason: refused.reason.to_string(),
    };
    Some(AnnouncedBody {
        source: "docker".to_owned(),
        up: state.is_up,
        last_success: state.last_success.map(rfc3339),
        error: state.error.as_deref().map(str::to_owned),
        refused: refused.iter().take(REFUSED_SHOWN).map(body).collect(),
        more_refused: refused.len().saturating_sub(REFUSED_SHOWN),
    })
}

/// What the metrics show about announced routes; `None`: no listener of the plan accepts announcements.
pub(super) fn sample(admin: &Admin, plan: &Plan) -> Option<AnnounceSample> {
    plan.announcing_engine()?;
    let state = admin.live.announcing();
    let count_refused = |refusal: AnnouncementRefusal| {
        let all = plan.refused_announcements.iter();
        let count = all.filter(|refused| refused.refusal == refusal).count();
        (refusal.as_str(), count)
    };
    Some(AnnounceSample {
        is_up: state.is_up == Some(true),
        last_success: state.last_success,
        routes: plan.announced_route_counts.clone(),
        refused: AnnouncementRefusal::ALL.map(count_refused).to_vec(),
    })
}
