//! The loop that accepts connections, and what bounds each of them.
//!
//! Invariant: every task ends before [`serve`] does.

use std::{future::pending, time::Duration};

use axum::{Router, extract::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};
use tower_service::Service;

/// Connections at a time; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may wait for the next request, or for the rest of its head.
const HEAD_TIME_MAX: Duration = Duration::from_secs(60);
/// After this a connection is closed, whatever it does: a client that does not read must not keep its place.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(600);
/// How long requests may go on after the shutdown has begun.
const SHUTDOWN_TIME_MAX: Duration = Duration::from_secs(3);
/// After an accept that failed, mostly because too many files are open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    let (stop, stopping) = watch::channel(());
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        let has_place = connections.len() < CONNECTIONS_MAX;
        tokio::select! {
            () = &mut shutdown => break,
            stream = accept(&listener), if has_place => {
                connections.spawn(timeout(CONNECTION_TIME_MAX, converse(stream, router.clone(), stopping.clone())));
            }
            Some(_) = connections.join_next() => {}
        }
    }
    drop((listener, stop));
    let finished = async { while connections.join_next().await.is_some() {} };
    let in_time = timeout(SHUTDOWN_TIME_MAX, finished).await;
    if in_time.is_err() {
        connections.shutdown().await;
    }
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// Answers the requests of one connection until it ends or `stopping` loses its sender.
async fn converse(stream: TcpStream, router: Router, mut stopping: watch::Receiver<()>) {
    let service = service_fn(move |request: Request<Incoming>| router.clone().call(request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let stopped = async {
        if stopping.changed().await.is_ok() {
            pending::<()>().await;
        }
    };
    // How a connection ends is its client's affair.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stopped => connection.as_mut().graceful_shutdown(),
    }
    let _ended = connection.await;
}
