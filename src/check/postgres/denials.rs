//! The questions that a server does not answer to the user of the check.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

/// For this long after a denial, the question is not asked again, because each denial leaves an error in the server's
/// log. A check that fails ends this wait: the probe then drops its [`Denials`].
const DENIED_INTERVAL: Duration = Duration::from_secs(60);

/// A question that a server may deny to the user of the check.
#[derive(Clone, Copy, Debug)]
pub(super) enum DeniableQuestion {
    /// The timeline and the position.
    Position,
    /// The identity of the data.
    System,
    /// The latest point from which the server can start again.
    Restartpoint,
}

/// The number of questions.
const QUESTIONS: usize = 3;

/// The questions that the server has denied to this user. The arrays are indexed by [`DeniableQuestion`].
#[derive(Debug, Default)]
pub(super) struct Denials {
    /// When the server last denied the question; `None`: never, or the server has answered it since.
    at: [Option<Instant>; QUESTIONS],
    /// The function of [`POSITION_FUNCTIONS`] that the latest denial was about; `None`: it was about none of them, or
    /// the question is not denied.
    function: [Option<&'static str>; QUESTIONS],
}

impl Denials {
    /// Whether to ask this question.
    pub(super) fn may_ask(&self, question: DeniableQuestion) -> bool {
        self.at[question as usize].is_none_or(|at| at.elapsed() >= DENIED_INTERVAL)
    }

    /// Records a denial without an error.
    #[cfg(test)]
    pub(super) fn deny_for_test(&mut self, question: DeniableQuestion) {
        self.at[question as usize] = Some(Instant::now());
    }

    /// Whether an error says that this user may not ask a question, or that this variety of PostgreSQL does not know
    /// the question.
    pub(super) fn is_denial(error: &Error) -> bool {
        error.code().is_some_and(|code| DENIAL_CODES.contains(code))
    }

    /// Records a denial. Returns whether it is the first one since the last answer.
    pub(super) fn record_denial(&mut self, question: DeniableQuestion, error: &Error) -> bool {
        self.function[question as usize] = denied_function(error);
        self.at[question as usize].replace(Instant::now()).is_none()
    }

    /// Records an answer. Returns whether the question was denied before.
    pub(super) fn record_answer(&mut self, question: DeniableQuestion) -> bool {
        self.function[question as usize] = None;
        self.at[question as usize].take().is_some()
    }

    /// The function that the user may not call, if that is why the timeline and the position are not known.
    pub(super) fn denied_position_function(&self) -> Option<&'static str> {
        self.function[DeniableQuestion::Position as usize]
    }
}

/// The functions of the WAL that the query for [`DeniableQuestion::Position`] calls. It also calls
/// `pg_is_in_recovery()`: if that is denied, the query for the role fails, too.
const POSITION_FUNCTIONS: [&str; 6] = [
    "pg_walfile_name(pg_lsn)",
    "pg_current_wal_lsn()",
    "pg_current_wal_flush_lsn()",
    "pg_wal_lsn_diff(pg_lsn, pg_lsn)",
    "pg_last_wal_receive_lsn()",
    "pg_last_wal_replay_lsn()",
];

/// The function of [`POSITION_FUNCTIONS`] that an error is about.
fn denied_function(error: &Error) -> Option<&'static str> {
    let error = error.as_db_error()?;
    if *error.code() != SqlState::INSUFFICIENT_PRIVILEGE {
        return None;
    }
    POSITION_FUNCTIONS.into_iter().find(|function| {
        let name = function.split('(').next().unwrap_or_default();
        error.message().ends_with(&format!(" {name}"))
    })
}

/// Errors which mean that the next check would most likely get no answer either.
const DENIAL_CODES: [SqlState; 4] = [
    SqlState::INSUFFICIENT_PRIVILEGE,
    SqlState::UNDEFINED_FUNCTION,
    SqlState::UNDEFINED_COLUMN,
    SqlState::FEATURE_NOT_SUPPORTED,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_denied_question_is_asked_again_after_a_minute() {
        let mut denials = Denials::default();
        assert!(denials.may_ask(DeniableQuestion::Position));
        denials.deny_for_test(DeniableQuestion::Position);
        tokio::time::advance(DENIED_INTERVAL - Duration::from_millis(1)).await;
        let all = [
            DeniableQuestion::Position,
            DeniableQuestion::System,
            DeniableQuestion::Restartpoint,
        ];
        assert_eq!(all.map(|question| denials.may_ask(question)), [false, true, true]);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(denials.may_ask(DeniableQuestion::Position));
    }
}
