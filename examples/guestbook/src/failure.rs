//! What the outside is told when something failed. The one function that turns errors into answers; the
//! details of the database go to the log, not to the visitor.

use axum::extract::rejection::{BytesRejection, FormRejection, QueryRejection};
use axum::http::StatusCode;

use crate::entry::DraftError;
use crate::pool::DatabaseError;

/// What `Retry-After` says, in seconds, when the database is away.
pub(crate) const RETRY_AFTER: &str = "1";

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Draft(#[from] DraftError),
    #[error("the body is not JSON: {0}")]
    NotJson(serde_json::Error),
    #[error("the body is not {{\"name\": text, \"message\": text}}: {0}")]
    OddJson(serde_json::Error),
    #[error("{}", .0.body_text())]
    Body(#[from] BytesRejection),
    #[error("{}", .0.body_text())]
    Form(#[from] FormRejection),
    #[error("{}", .0.body_text())]
    Query(#[from] QueryRejection),
    #[error("limit is 0; ask for at least one entry")]
    NoLimit,
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("the page could not be drawn: {0}")]
    Page(#[from] askama::Error),
}

/// JSON errors are of two kinds: no JSON at all, and JSON of another shape than we asked for.
impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        if error.is_data() { Self::OddJson(error) } else { Self::NotJson(error) }
    }
}

impl Failure {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Draft(_) | Self::OddJson(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NotJson(_) | Self::NoLimit => StatusCode::BAD_REQUEST,
            Self::Body(rejection) => rejection.status(),
            Self::Form(rejection) => rejection.status(),
            Self::Query(rejection) => rejection.status(),
            Self::Database(DatabaseError::Refused(_)) | Self::Page(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Database(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// One sentence for whoever asked; `writing` when they wanted to write.
    pub(crate) fn sentence(&self, writing: bool) -> String {
        let Self::Database(error) = self else {
            return match self {
                Self::Page(_) => "the page could not be drawn".to_owned(),
                other => other.to_string(),
            };
        };
        match (error, writing) {
            (DatabaseError::Refused(_), _) => "the database refused".to_owned(),
            (DatabaseError::Broken(_) | DatabaseError::Slow(_), true) => {
                "the database did not confirm the entry: it may or may not be saved".to_owned()
            }
            (_, true) => "the database is away: the entry was not saved".to_owned(),
            (_, false) => "the database is away: the entries cannot be read right now".to_owned(),
        }
    }

    pub(crate) fn log(&self) {
        if self.status().is_server_error() {
            eprintln!("guestbook: {self}");
        }
    }
}
