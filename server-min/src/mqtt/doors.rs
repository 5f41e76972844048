//! The ways to the broker: TCP, TLS, WebSocket, or any other stream of bytes. A place is taken before
//! anything is read, and the time until the CONNECT runs from there, so that a client which stops
//! in the middle of a TLS handshake takes no more than one that stops in the middle of its CONNECT.

use super::broker::{Broker, Registration};
use super::certificate;
use super::connection::{Arrival, Connection, is_ordinary_end};
use super::websocket::WebSocketBytes;
use crate::tls::Tls;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

impl Broker {
    /// Serves MQTT over TCP until [`Broker::shutdown`].
    pub async fn serve_tcp(&self, listener: TcpListener) {
        self.serve(listener, None).await;
    }

    /// Serves MQTT over TLS where a certificate is given, over TCP otherwise, until
    /// [`Broker::shutdown`].
    pub async fn serve(&self, listener: TcpListener, tls: Option<Tls>) {
        loop {
            let shutdown = self.0.shutdown.notified();
            if self.0.is_shutting_down.get() {
                return;
            }
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = shutdown => return,
            };
            match accepted {
                Ok((stream, peer)) => self.spawn(stream, peer, tls.as_ref()),
                Err(error) => {
                    // Out of file descriptors, most likely: connections that end will free some.
                    log::warn!("mqtt: cannot accept: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn spawn(&self, stream: TcpStream, peer: SocketAddr, tls: Option<&Tls>) {
        // Signals are small and urgent; Nagle would hold them for an acknowledgement.
        if let Err(error) = stream.set_nodelay(true) {
            log::debug!("mqtt: {peer}: no TCP_NODELAY: {error}");
        }
        let broker = self.clone();
        match tls.cloned() {
            None => {
                tokio::task::spawn_local(async move { broker.serve_stream(stream, peer).await })
            }
            Some(tls) => {
                tokio::task::spawn_local(async move { broker.serve_tls(stream, peer, &tls).await })
            }
        };
    }

    /// Serves one client over any byte stream (TCP, a pipe) until it is gone.
    pub async fn serve_stream(
        &self,
        io: impl AsyncRead + AsyncWrite + Unpin + 'static,
        peer: SocketAddr,
    ) {
        if let Some(registration) = self.admit(peer) {
            let arrival = self.arrival(peer);
            Connection::new(io, arrival, registration).await;
        }
    }

    /// Serves one client over a WebSocket whose HTTP upgrade was already answered (with
    /// `Sec-WebSocket-Protocol: mqtt`, MQTT 5.0 §6).
    pub async fn serve_websocket(
        &self,
        io: impl AsyncRead + AsyncWrite + Unpin + 'static,
        peer: SocketAddr,
    ) {
        let stream = WebSocketBytes::new(io, self.0.config.max_packet_size).await;
        self.serve_stream(stream, peer).await;
    }

    /// Serves one client over TLS. Whose certificate it presents, its CONNECT must agree with.
    async fn serve_tls(&self, stream: TcpStream, peer: SocketAddr, tls: &Tls) {
        let Some(registration) = self.admit(peer) else { return };
        let mut arrival = self.arrival(peer);
        // Taken anew for each connection, since the certificate may have been read again. On the
        // heap and gone with the handshake: the connection's task lives long, and is to be small.
        let handshake = TlsAcceptor::from(tls.server_with_clients()).accept(stream);
        let handshake = Box::pin(handshake_until(arrival.deadline, handshake, &registration));
        let stream = match handshake.await {
            Ok(stream) => stream,
            // Whoever comes and goes, as health checks do, has not failed.
            Err(error) if is_ordinary_end(&error) => return,
            Err(error) => {
                self.0.counters.update(|c| c.tls_handshakes_failed_total += 1);
                return log::info!("mqtt: {peer}: no TLS connection: {error}");
            }
        };
        let presented = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        arrival.certificate = presented.map(|certificate| certificate::common_name(certificate));
        // Its state is large; it is not to be moved about, nor to have room in several places.
        Connection::new(Box::new(stream), arrival, registration).await;
    }

    fn arrival(&self, peer: SocketAddr) -> Arrival {
        let deadline = Instant::now() + self.0.config.connect_timeout();
        Arrival { peer, deadline, certificate: None }
    }

    /// A place for one more connection, or a word about why there is none.
    fn admit(&self, peer: SocketAddr) -> Option<Registration> {
        let registration = self.register(peer.ip());
        if registration.is_none() {
            self.0.counters.update(|c| c.connections_refused_total += 1);
            let refused = self.0.counters.get().connections_refused_total;
            // A flood of connections is not to become a flood of log lines.
            if refused.is_power_of_two() {
                log::warn!(
                    "mqtt: {peer}: all places are taken (max_connections, max_connecting, \
                     max_connections_per_address); {refused} refused so far"
                );
            }
        }
        registration
    }
}

/// Ends also where the broker shuts down.
async fn handshake_until(
    deadline: Instant,
    handshake: impl Future<Output = io::Result<TlsStream<TcpStream>>>,
    registration: &Registration,
) -> io::Result<TlsStream<TcpStream>> {
    let mut handshake = pin!(handshake);
    let unless_closed = poll_fn(|cx| {
        registration.link.register(cx.waker());
        match registration.link.close_reason() {
            Some(_) => Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
            None => handshake.as_mut().poll(cx),
        }
    });
    let late = || io::Error::new(io::ErrorKind::TimedOut, "the handshake was not done in time");
    timeout_at(deadline, unless_closed).await.unwrap_or_else(|_| Err(late()))
}
