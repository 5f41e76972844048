//! The listeners: connections in, bounded in number and in time, so that silent clients hold nothing.

use super::router::Site;
use crate::per_address::PerAddress;
use crate::tls::Tls;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sdk_core::wire::signal::SessionId;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

/// A request's head must be there within this time of the connection or of the last answer; a TLS
/// handshake before it has as long.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one connection may serve requests before it is asked to end.
const CONNECTION_LIFE: Duration = Duration::from_secs(120);
/// How long an answer under way may take after that, or after the server was told to stop.
const GRACE: Duration = Duration::from_secs(5);
const MAX_HEADER_LEN: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;

/// What all listeners share. Cheap to clone.
#[derive(Clone)]
pub struct Front {
    site: Rc<Site>,
    max_connections: usize,
    places: Arc<Semaphore>,
    addresses: Rc<PerAddress>,
    stop: watch::Receiver<bool>,
}

/// How a request came.
#[derive(Debug, Clone, Copy)]
pub struct Via {
    pub peer: SocketAddr,
    /// Our own address.
    pub local: SocketAddr,
    pub is_tls: bool,
}

impl Front {
    /// Serves until `stop` says true. `per_address`: connections from one address, 0 for no limit.
    pub fn new(
        site: Rc<Site>,
        max_connections: usize,
        per_address: usize,
        stop: watch::Receiver<bool>,
    ) -> Front {
        let places = Arc::new(Semaphore::new(max_connections));
        Front { site, max_connections, places, addresses: PerAddress::new(per_address), stop }
    }

    /// Serves one listener, over TLS where a certificate is given. Within a `LocalSet`.
    pub async fn serve(self, listener: TcpListener, tls: Option<Tls>) {
        let mut stop = self.stop.clone();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(e) => {
                    // Out of descriptors, or a client that left already. Others may still come.
                    log::warn!("a connection was not taken: {e}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            // Past a bound a newcomer is turned away at once, rather than kept waiting.
            let Ok(place) = self.places.clone().try_acquire_owned() else {
                let max = self.max_connections;
                log::warn!("{peer} turned away: {max} connections (http.max_connections)");
                continue;
            };
            let Some(of_address) = self.addresses.take(peer.ip()) else {
                log::debug!("{peer} turned away: http.max_connections_per_address");
                continue;
            };
            let (front, tls) = (self.clone(), tls.clone());
            tokio::task::spawn_local(async move {
                front.connection(stream, peer, tls).await;
                drop((place, of_address));
            });
        }
    }

    async fn connection(mut self, stream: TcpStream, peer: SocketAddr, tls: Option<Tls>) {
        let Ok(local) = stream.local_addr() else { return };
        let _ = stream.set_nodelay(true);
        let via = Via { peer, local, is_tls: tls.is_some() };
        let Some(tls) = tls else { return self.requests(stream, via).await };
        // Taken anew for each connection, since the certificate may have been read again.
        let handshake = TlsAcceptor::from(tls.server()).accept(stream);
        let handshake = tokio::select! {
            done = timeout(HEADER_TIMEOUT, handshake) => done,
            _ = self.stop.wait_for(|stop| *stop) => return,
        };
        match handshake {
            // On the heap, or each connection's task would have room for both of its forms.
            Ok(Ok(stream)) => Box::pin(self.requests(stream, via)).await,
            Ok(Err(e)) => log::debug!("{peer} TLS handshake: {e}"),
            Err(_) => log::debug!("{peer} no TLS handshake within {HEADER_TIMEOUT:?}, closed"),
        }
    }

    async fn requests<S>(mut self, stream: S, via: Via)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let peer = via.peer;
        let answer = service_fn(|request| {
            let site = &self.site;
            async move {
                let path = request.uri().path();
                let session = path.strip_prefix("/v1/sessions/").and_then(SessionId::parse);
                let of_it = session.map_or(String::new(), |id| format!("sessionId={id} "));
                let what = format!("{of_it}{peer} {} {path}", request.method());
                let reply = site.answer(request, via).await;
                log::debug!("{what} {}", reply.status().as_u16());
                Ok::<_, Infallible>(reply)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEADER_LEN)
            .serve_connection(TokioIo::new(stream), answer)
            .with_upgrades();
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = tokio::time::sleep(CONNECTION_LIFE) => None,
            _ = self.stop.wait_for(|stop| *stop) => None,
        };
        let ended = match ended {
            Some(ended) => ended,
            None => {
                connection.as_mut().graceful_shutdown();
                match timeout(GRACE, connection).await {
                    Ok(ended) => ended,
                    Err(_) => return log::debug!("{peer} cut off: it did not take its answer"),
                }
            }
        };
        if let Err(e) = ended {
            log::debug!("{peer} {e}");
        }
    }
}
