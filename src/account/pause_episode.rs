//! Groups the pauses of accepting that follow each other closely into one episode, whose start and end are logged once.

use std::time::Duration;

use tokio::time::Instant;

/// An episode ends when its last pause began at least this long ago, and a connection was accepted after that pause
/// began. As long as none was accepted, accepting may still be paused. Without episodes, a listener right at its
/// limit would log a pause for every single client.
const EPISODE_GAP: Duration = Duration::from_secs(5);

/// The current episode of one listener, if any.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PauseEpisode {
    last_pause: Option<Instant>,
    has_accepted_since: bool,
}

impl PauseEpisode {
    /// Records a pause; returns whether it begins an episode.
    pub(super) fn record_pause(&mut self, now: Instant) -> bool {
        self.has_accepted_since = false;
        self.last_pause.replace(now).is_none()
    }

    /// Records an accepted connection.
    pub(super) fn record_accepted(&mut self) {
        self.has_accepted_since = true;
    }

    /// Returns whether the episode has ended. If so, resets the state: each end is reported only once.
    pub(super) fn take_end(&mut self, now: Instant) -> bool {
        let has_ended = self.has_accepted_since && self.last_pause.is_some_and(|pause| now >= pause + EPISODE_GAP);
        if has_ended {
            *self = Self::default();
        }
        has_ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pauses_that_follow_each_other_closely_are_one_episode() {
        let mut episode = PauseEpisode::default();
        let mut now = Instant::now();
        let mut begins = 0;
        for _ in 0..100 {
            begins += u32::from(episode.record_pause(now));
            episode.record_accepted();
            now += EPISODE_GAP / 2;
            assert!(!episode.take_end(now));
        }
        assert_eq!(begins, 1);
        assert!(episode.take_end(now + EPISODE_GAP / 2));
        assert!(
            !episode.take_end(now + EPISODE_GAP),
            "expected the end to be reported once"
        );
        assert!(episode.record_pause(now), "expected the next pause to begin an episode");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_episode_does_not_end_before_a_connection_is_accepted() {
        let mut episode = PauseEpisode::default();
        let now = Instant::now();
        assert!(episode.record_pause(now));
        assert!(!episode.take_end(now + Duration::from_secs(3600)));
    }
}
