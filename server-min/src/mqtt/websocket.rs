//! A WebSocket as a stream of bytes: MQTT packets travel in binary frames whose borders mean nothing
//! (MQTT 5.0 §6). `tungstenite` does the framing; everything it may buffer is bounded here.

use futures_util::{Sink, Stream};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

pub(crate) struct WebSocketBytes<S> {
    inner: WebSocketStream<S>,
    /// What is left of the last frame.
    rest: Bytes,
}

impl<S: AsyncRead + AsyncWrite + Unpin> WebSocketBytes<S> {
    pub(crate) async fn new(io: S, max_packet_size: u32) -> Self {
        // A frame may carry the end of one packet and the beginning of the next.
        let max_size = Some(max_packet_size as usize + SLACK);
        let config = WebSocketConfig::default()
            .read_buffer_size(IDLE_BUFFER)
            .write_buffer_size(0)
            .max_message_size(max_size)
            .max_frame_size(max_size);
        let inner = WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await;
        Self { inner, rest: Bytes::new() }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for WebSocketBytes<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.rest.is_empty() {
            match ready!(Pin::new(&mut this.inner).poll_next(cx)) {
                Some(Ok(Message::Binary(bytes))) => this.rest = bytes,
                // §6.0-1: only binary frames.
                Some(Ok(Message::Text(_))) => {
                    return Poll::Ready(Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "a text frame",
                    )));
                }
                // Pings are answered by tungstenite, a Close too: reading on sends the answer.
                Some(Ok(_)) => {}
                None | Some(Err(Error::ConnectionClosed | Error::AlreadyClosed)) => {
                    return Poll::Ready(Ok(()));
                }
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
            }
        }
        let len = this.rest.len().min(buf.remaining());
        buf.put_slice(&this.rest.split_to(len));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for WebSocketBytes<S> {
    /// At most one frame is under way, and a small one: its buffer stays with the connection.
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.inner).poll_ready(cx)).map_err(io_error)?;
        let len = bytes.len().min(LONGEST_FRAME);
        let frame = Message::Binary(Bytes::copy_from_slice(&bytes[..len]));
        Pin::new(&mut this.inner).start_send(frame).map_err(io_error)?;
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx).map_err(io_error)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_close(cx).map_err(io_error)
    }
}

fn io_error(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::Capacity(error) => io::Error::new(io::ErrorKind::FileTooLarge, error),
        Error::ConnectionClosed | Error::AlreadyClosed => io::ErrorKind::ConnectionAborted.into(),
        Error::Protocol(error) => io::Error::new(io::ErrorKind::ConnectionAborted, error),
        other => io::Error::other(other),
    }
}

const IDLE_BUFFER: usize = 2 * 1024;
const LONGEST_FRAME: usize = 4 * 1024;
const SLACK: usize = 16 * 1024;
