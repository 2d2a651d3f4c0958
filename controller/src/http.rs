//! Health and metrics over HTTP: `/healthz` (the process answers), `/readyz` (the snapshot is complete and fresh),
//! `/metrics` (OpenMetrics text).

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;

use crate::metrics::Metrics;
use crate::snapshot::Snapshot;

/// What the pages show.
#[derive(Clone)]
pub struct Pages {
    /// The snapshot whose state is readiness.
    pub snapshot: Snapshot,
    /// Metrics.
    pub metrics: Arc<Metrics>,
}

/// A failure to serve.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Serving ended.
    #[error("serving HTTP ended")]
    Serve {
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Serves until the process ends.
///
/// # Errors
/// [`HttpError::Listen`] if the address is taken.
pub async fn serve(address: SocketAddr, pages: Pages) -> Result<(), HttpError> {
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .map_err(|source| HttpError::Listen { address, source })?;
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(pages);
    axum::serve(listener, router).await.map_err(|source| HttpError::Serve { source })
}

async fn ready(State(pages): State<Pages>) -> impl IntoResponse {
    let view = pages.snapshot.view();
    match (view.synced, view.stale) {
        (true, None) => (StatusCode::OK, format!("ready at revision {}\n", view.fleet.revision)),
        (true, Some(why)) => (StatusCode::SERVICE_UNAVAILABLE, format!("stale: {why}\n")),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "reading the store\n".to_owned()),
    }
}

async fn metrics(State(pages): State<Pages>) -> impl IntoResponse {
    match pages.metrics.render() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (StatusCode::OK, [(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
