//! `/api/v1/explain`: whom a publish to a topic would reach, and what each of them is promised.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{ApiError, Shared};
use crate::{
    bridge::ReachedRoute,
    broker::{Reach, Thought},
    codec::Qos,
    topic::TopicName,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExplainQuery {
    topic: String,
    #[serde(default = "one")]
    qos: u8,
    client_id: Option<String>,
    user_name: Option<String>,
}

/// The answer: who would get a message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The topic that was asked for.
    pub topic: String,
    /// The QoS that was asked for.
    pub qos: u8,
    /// Sessions, shared groups and the retained message.
    #[serde(flatten)]
    pub reach: Reach,
    /// Routes, in the order of the configuration.
    pub routes: Vec<ReachedRoute>,
}

fn one() -> u8 {
    1
}

pub(super) async fn explain(
    State(app): Shared,
    query: Result<Query<ExplainQuery>, QueryRejection>,
) -> Result<Json<Explanation>, ApiError> {
    let Query(ExplainQuery { topic, qos, client_id, user_name }) = query?;
    let level = Qos::from_u8(qos).ok_or_else(|| bad("qos is not 0, 1 or 2"))?;
    let bridge = Arc::clone(&app.state.bridge);
    let explain = app.blocking(move |broker| {
        let levels_max = broker.limits().session.topic_levels;
        let name = TopicName::parse(&topic, levels_max).map_err(|error| bad(format!("the topic {error}")))?;
        let (client_id, user_name) = (client_id.as_deref(), user_name.as_deref());
        let reach = broker.reach(&Thought { topic: &name, qos: level, client_id, user_name });
        let routes = bridge.reach(&name, level);
        Ok(Explanation { reach, routes, topic, qos })
    });
    explain.await?.map(Json)
}

fn bad(what: impl Into<std::borrow::Cow<'static, str>>) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, what)
        .help("name the topic of a message, without wildcards, and a QoS of 0, 1 or 2")
}
