//! What is served over HTTP: `/metrics`, `/healthz`, `/readyz` and `/status`. It reads what is known and changes nothing.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use engine::status::{Standing, State};
use engine::{Failure, Outcome};
use jiff::Timestamp;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::observed::Observed;
use crate::{metrics, page};

/// Listens; the error says that the address cannot be had.
pub(crate) async fn listen(address: SocketAddr) -> Outcome<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        Failure::failed(format!("the agent cannot listen: {error}"))
            .object(address)
            .cause("another process may have it; name another one as agent.listen in lifeboat.yaml, or `off`")
    })
}

/// Serves until it is dropped.
pub(crate) async fn serve(listener: TcpListener, observed: Arc<Observed>) {
    let routes = Router::new()
        .route("/metrics", get(numbers))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/status", get(status))
        .with_state(observed);
    // It never ends by itself: errors of single connections are not its own.
    let _ = axum::serve(listener, routes).await;
}

async fn numbers(Shared(observed): Shared<Arc<Observed>>) -> Response {
    match metrics::text(&observed, Timestamp::now()) {
        Ok(text) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Ready is who has looked at every cluster and finds each protected: what is green while nothing is backed up helps nobody.
async fn ready(Shared(observed): Shared<Arc<Observed>>) -> Response {
    let clusters = observed.at(Timestamp::now());
    let wrong: Vec<String> = clusters
        .iter()
        .filter_map(|(name, known)| match known.standing.as_ref().map(|standing| standing.state) {
            None => Some(format!("{name}: not looked at yet\n")),
            Some(State::Protected | State::LastRunFailed) => None,
            Some(state) => Some(format!("{name}: {}\n", state.word())),
        })
        .collect();
    if wrong.is_empty() { "ready\n".into_response() } else { (StatusCode::SERVICE_UNAVAILABLE, wrong.concat()).into_response() }
}

async fn status(Shared(observed): Shared<Arc<Observed>>) -> Response {
    let now = Timestamp::now();
    let standings: Vec<Standing> = observed.at(now).into_values().filter_map(|known| known.standing).collect();
    let mut value = page::standings(&standings, now);
    if let Some(object) = value.as_object_mut() {
        object.insert("schema".to_owned(), Value::from(page::SCHEMA));
    }
    ([(CONTENT_TYPE, "application/json")], format!("{value}\n")).into_response()
}
