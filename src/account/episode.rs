//! Many pauses of accepting in a short time are one episode: its begin is said once, and its end once.

use std::time::Duration;

use tokio::time::Instant;

/// After so long without a pause, and with a client let in since the last one, an episode is over. At a limit that
/// is just reached every single client would be news otherwise.
const CALM: Duration = Duration::from_secs(5);

/// Pauses of one listener.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Episode {
    last_pause: Option<Instant>,
    accepted_since: bool,
}

impl Episode {
    /// Accepting rests; whether that begins an episode.
    pub(super) fn paused(&mut self, now: Instant) -> bool {
        self.accepted_since = false;
        self.last_pause.replace(now).is_none()
    }

    /// A client was let in.
    pub(super) fn accepted(&mut self) {
        self.accepted_since = true;
    }

    /// Whether the episode is over by now; said once.
    pub(super) fn is_over(&mut self, now: Instant) -> bool {
        let calm = self.accepted_since && self.last_pause.is_some_and(|pause| now >= pause + CALM);
        if calm {
            *self = Self::default();
        }
        calm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_is_just_reached_is_one_episode() {
        let mut episode = Episode::default();
        let mut now = Instant::now();
        let mut news = 0;
        for _ in 0..100 {
            news += u32::from(episode.paused(now));
            episode.accepted();
            now += CALM / 2;
            assert!(!episode.is_over(now));
        }
        assert_eq!(news, 1);
        assert!(episode.is_over(now + CALM / 2));
        assert!(!episode.is_over(now + CALM), "it is said once");
        assert!(episode.paused(now), "the next one is news again");
    }

    #[tokio::test(start_paused = true)]
    async fn an_hour_of_waiting_is_not_the_end() {
        let mut episode = Episode::default();
        let now = Instant::now();
        assert!(episode.paused(now));
        assert!(!episode.is_over(now + Duration::from_secs(3600)), "nobody was let in");
    }
}
