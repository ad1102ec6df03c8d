//! The console listener: plain HTTP/1.1, a bounded number of connections, ends with the gateway.
//!
//! It is meant for loopback or a management network. Health names no secret; handles are the desk's to refuse where
//! somebody could listen.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::admin::{self, AdminDesk};
use crate::approvals::{self, ApprovalDesk};
use crate::freezes::{self, FreezeDesk};
use crate::handles::{self, HandleDesk};
use crate::health::{self, StatusFn};
use crate::openapi;
use crate::record::{self, RecordDesk};

/// Connections served at once; the next one waits. Probes and a scraper need a handful.
pub const CONSOLE_CONNECTIONS_MAX: usize = 64;

/// How long one connection may live: probes take milliseconds, and one that dawdles must not hold a slot.
pub const CONSOLE_CONNECTION_SECONDS_MAX: u64 = 60;

#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    #[error("console listener ended")]
    Serve(#[source] io::Error),
}

/// Who answers what needs a token; a desk that is not there has no routes.
#[derive(Default)]
pub struct Desks {
    pub handles: Option<Arc<dyn HandleDesk>>,
    pub admin: Option<Arc<dyn AdminDesk>>,
    pub approvals: Option<Arc<dyn ApprovalDesk>>,
    pub freezes: Option<Arc<dyn FreezeDesk>>,
    pub record: Option<Arc<dyn RecordDesk>>,
}

impl std::fmt::Debug for Desks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desks").finish_non_exhaustive()
    }
}

/// Serves until `shutdown` resolves and the open requests are answered.
pub async fn serve(
    listener: TcpListener,
    status: StatusFn,
    desks: Desks,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ConsoleError> {
    let bounded = BoundedListener { inner: listener, slots: Arc::new(Semaphore::new(CONSOLE_CONNECTIONS_MAX)) };
    let mut routes = health::router(status).merge(openapi::routes().router(()));
    if let Some(desk) = desks.handles {
        routes = routes.merge(handles::routes().router(desk));
    }
    if let Some(desk) = desks.admin {
        routes = routes.merge(admin::routes().router(desk));
    }
    if let Some(desk) = desks.approvals {
        routes = routes.merge(approvals::routes().router(desk));
    }
    if let Some(desk) = desks.freezes {
        routes = routes.merge(freezes::routes().router(desk));
    }
    if let Some(desk) = desks.record {
        routes = routes.merge(record::routes().router(desk));
    }
    let service = routes.into_make_service_with_connect_info::<Peer>();
    axum::serve(bounded, service).with_graceful_shutdown(shutdown).await.map_err(ConsoleError::Serve)
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) SocketAddr);

impl Connected<IncomingStream<'_, BoundedListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, BoundedListener>) -> Self {
        Self(*stream.remote_addr())
    }
}

struct BoundedListener {
    inner: TcpListener,
    slots: Arc<Semaphore>,
}

impl Listener for BoundedListener {
    type Io = SlottedStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // The semaphore is never closed, so a failure here would be a bug; waiting on keeps the door shut then.
        let slot = match Arc::clone(&self.slots).acquire_owned().await {
            Ok(slot) => slot,
            Err(_closed) => std::future::pending().await,
        };
        let (stream, peer) = Listener::accept(&mut self.inner).await;
        let lifetime = Box::pin(tokio::time::sleep(Duration::from_secs(CONSOLE_CONNECTION_SECONDS_MAX)));
        (SlottedStream { stream, lifetime, _slot: slot }, peer)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.inner.local_addr()
    }
}

/// A connection that holds one of the listener's slots and reads end of file when its time is over.
struct SlottedStream {
    stream: TcpStream,
    lifetime: Pin<Box<tokio::time::Sleep>>,
    _slot: OwnedSemaphorePermit,
}

impl AsyncRead for SlottedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.lifetime.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for SlottedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
