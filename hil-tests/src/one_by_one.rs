//! Lets the `webrtc` crate look at each datagram before it takes the next.
//!
//! Its driver reads up to 64 datagrams in one go and only then asks its own core what they meant.
//! So where a camera's first picture comes on the heels of DTLS's last flight, the crate drops the
//! picture: it has the keys, but has not taken them into use. A browser does not do that, and
//! these tests want to see the very first packet.

use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, RecvMeta, Runtime,
    TokioRuntime, Transmit,
};

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Tokio, with sockets that pause after each datagram.
#[derive(Debug)]
pub struct OneByOne {
    /// Throws away one in so many reads of media, as a bad network would; a read is one datagram,
    /// or several of a kind that the kernel has put together (GRO).
    pub lose_one_in: Option<u32>,
}

impl Runtime for OneByOne {
    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        let inner = TokioRuntime.wrap_udp_socket(socket)?;
        let lose_one_in = self.lose_one_in;
        Ok(Arc::new(Pausing {
            inner,
            has_just_read: AtomicBool::new(false),
            lose_one_in,
            media_reads: AtomicU32::new(0),
        }))
    }

    fn spawn(&self, future: Boxed<'static, ()>) -> Box<dyn JoinHandle> {
        TokioRuntime.spawn(future)
    }

    fn wrap_tcp_listener(&self, listener: TcpListener) -> io::Result<Arc<dyn AsyncTcpListener>> {
        TokioRuntime.wrap_tcp_listener(listener)
    }

    fn connect_tcp<'a>(
        &'a self,
        remote: SocketAddr,
    ) -> Boxed<'a, io::Result<Arc<dyn AsyncTcpStream>>> {
        TokioRuntime.connect_tcp(remote)
    }

    fn resolve_host<'a>(&'a self, host: &'a str) -> Boxed<'a, io::Result<Vec<SocketAddr>>> {
        TokioRuntime.resolve_host(host)
    }

    fn now(&self) -> Instant {
        crate::clock::now()
    }

    fn sleep(&self, duration: Duration) -> Boxed<'static, ()> {
        TokioRuntime.sleep(duration)
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        TokioRuntime.interval(period)
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        TokioRuntime.block_on(future);
    }
}

#[derive(Debug)]
struct Pausing {
    inner: Arc<dyn AsyncUdpSocket>,
    has_just_read: AtomicBool,
    lose_one_in: Option<u32>,
    media_reads: AtomicU32,
}

impl Pausing {
    fn is_lost(&self, buffers: &[IoSliceMut<'_>]) -> bool {
        let Some(one_in) = self.lose_one_in else { return false };
        // RFC 7983 §7 and RFC 5761 §4: RTP, and not RTCP.
        let is_media = matches!(buffers.first().map(|b| &b[..]), Some([128..=191, kind, ..])
            if !(64..=95).contains(&(kind & 0x7f)));
        is_media && (self.media_reads.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(one_in)
    }
}

impl AsyncUdpSocket for Pausing {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        self.inner.poll_send(cx, transmit)
    }

    /// After each read says once that there is nothing more, which ends the driver's burst.
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if self.has_just_read.swap(false, Ordering::Relaxed) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut read = self.inner.poll_recv(cx, buffers, meta);
        while matches!(read, Poll::Ready(Ok(_))) && self.is_lost(buffers) {
            read = self.inner.poll_recv(cx, buffers, meta);
        }
        self.has_just_read.store(matches!(read, Poll::Ready(Ok(_))), Ordering::Relaxed);
        read
    }

    fn max_gso_segments(&self) -> usize {
        self.inner.max_gso_segments()
    }

    fn max_gro_segments(&self) -> usize {
        self.inner.max_gro_segments()
    }
}
