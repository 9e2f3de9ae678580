//! Errors as they are answered: a status, and JSON that says what is wrong and what would be right.

use std::borrow::Cow;

use axum::{
    Json,
    extract::rejection::{PathRejection, QueryRejection},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::Serialize;

use crate::store::{StoreError, SubmitError};

/// A request that was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct ApiError {
    #[serde(skip)]
    pub(super) status: StatusCode,
    pub(super) error: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) help: Option<Cow<'static, str>>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, error: impl Into<Cow<'static, str>>) -> Self {
        Self { status, error: error.into(), help: None }
    }

    pub(super) fn help(self, help: impl Into<Cow<'static, str>>) -> Self {
        Self { help: Some(help.into()), ..self }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self)).into_response()
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::new(StatusCode::BAD_REQUEST, format!("the path cannot be read: {}", rejection.body_text()))
            .help("percent-encode what is not a letter or a digit, as UTF-8")
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(StatusCode::BAD_REQUEST, rejection.body_text())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
            .help("GET /readyz and the log of the broker say why")
    }
}
