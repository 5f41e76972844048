//! Asks a node whether it is there: a STUN Binding request (RFC 8489) over UDP or TCP, which needs no
//! credentials and leaves nothing behind; over TLS a connection is enough.

use super::url::{Transport, TurnUrl};
use crate::session::keys;
use sdk_core::wire::stun::{Builder, Class, HEADER_LEN, Message, Method, TransactionId};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long each of three requests over UDP waits for its answer: two of them may get lost.
const UDP_WAITS: [Duration; 3] =
    [Duration::from_millis(300), Duration::from_millis(600), Duration::from_millis(1000)];
/// The same for a connection and its answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Of a name that has more addresses than these, some are asked.
const MAX_ADDRESSES: usize = 4;

/// Whether it answers, at any of its addresses. The error is for the log.
pub(super) async fn ask(url: &TurnUrl) -> Result<(), String> {
    // Looked up each time: a name may move to another machine. As long as the resolver needs, so that
    // one that hangs holds one thread for each node; and that is no word about the node.
    let host = url.host.trim_matches(['[', ']']);
    let found = lookup_host((host, url.port)).await;
    let found = found.map_err(|e| format!("{host} has no address: {e}"))?;
    let mut asked = JoinSet::new();
    for address in found.take(MAX_ADDRESSES) {
        asked.spawn(ask_address(url.transport, address));
    }
    let mut why = format!("{host} has no address");
    while let Some(outcome) = asked.join_next().await {
        match outcome {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(text)) => why = text,
            Err(e) => why = e.to_string(),
        }
    }
    Err(why)
}

async fn ask_address(transport: Transport, address: SocketAddr) -> Result<(), String> {
    let asked = async {
        match transport {
            Transport::Udp => over_udp(address).await,
            Transport::Tcp => over_tcp(address).await,
            Transport::Tls => TcpStream::connect(address).await.map(drop),
            Transport::Dtls => Err(io::Error::other("DTLS is not asked")),
        }
    };
    match timeout(PATIENCE, asked).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(format!("{address}: {e}")),
        Err(_) => Err(format!("{address}: no answer in {PATIENCE:?}")),
    }
}

async fn over_udp(address: SocketAddr) -> io::Result<()> {
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    let (request, id) = binding()?;
    for wait in UDP_WAITS {
        socket.send(&request).await?;
        let answered = async {
            let mut buffer = [0; 1500];
            loop {
                let len = socket.recv(&mut buffer).await?;
                if is_answer(&buffer[..len], id) {
                    return Ok(());
                }
            }
        };
        // An error that ICMP reports (nobody listens there) is an answer as well.
        if let Ok(answered) = timeout(wait, answered).await {
            return answered;
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "no answer"))
}

async fn over_tcp(address: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let (request, id) = binding()?;
    stream.write_all(&request).await?;
    let mut answer = [0; 1500];
    stream.read_exact(&mut answer[..HEADER_LEN]).await?;
    let len = HEADER_LEN + usize::from(u16::from_be_bytes([answer[2], answer[3]]));
    let no_answer = || io::Error::other("what answers there does not speak STUN");
    stream.read_exact(answer.get_mut(HEADER_LEN..len).ok_or_else(no_answer)?).await?;
    if is_answer(&answer[..len], id) { Ok(()) } else { Err(no_answer()) }
}

fn binding() -> io::Result<([u8; HEADER_LEN], TransactionId)> {
    let id = TransactionId(keys::random()?);
    let mut request = [0; HEADER_LEN];
    Builder::new(&mut request, Class::Request, Method::BINDING, id)
        .finish()
        .ok_or_else(|| io::Error::other("a Binding request is its header alone"))?;
    Ok((request, id))
}

/// A refusal is an answer too: coturn with `secure-stun` wants credentials for this.
fn is_answer(bytes: &[u8], id: TransactionId) -> bool {
    Message::parse(bytes).is_some_and(|message| {
        message.transaction_id() == id && matches!(message.class(), Class::Success | Class::Error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(request: &[u8], class: Class) -> Vec<u8> {
        let id = Message::parse(request).unwrap().transaction_id();
        let mut buffer = [0; 100];
        let len = Builder::new(&mut buffer, class, Method::BINDING, id).finish().unwrap();
        buffer[..len].to_vec()
    }

    fn url(scheme: &str, address: SocketAddr, transport: &str) -> TurnUrl {
        format!("{scheme}:{address}?transport={transport}").parse().unwrap()
    }

    #[tokio::test]
    async fn lost_requests_are_repeated_and_strangers_do_not_count() {
        let node = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = url("turn", node.local_addr().unwrap(), "udp");
        let serve = async {
            let mut buffer = [0; 100];
            node.recv_from(&mut buffer).await.unwrap();
            let (len, from) = node.recv_from(&mut buffer).await.unwrap();
            node.send_to(b"something else", from).await.unwrap();
            let mut forged = answer(&buffer[..len], Class::Success);
            forged[8] ^= 1;
            node.send_to(&forged, from).await.unwrap();
            let good = answer(&buffer[..len], Class::Error);
            node.send_to(&good, from).await.unwrap();
        };
        let (asked, ()) = tokio::join!(ask(&at), serve);
        assert_eq!(asked, Ok(()));
    }

    #[tokio::test]
    async fn silence_and_refusal_are_told_apart() {
        let node = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let at = url("turn", node.local_addr().unwrap(), "udp");
        let silent = ask(&at).await.unwrap_err();
        assert!(silent.contains("127.0.0.1") && silent.contains("no answer"), "{silent}");
        drop(node);
        assert!(ask(&at).await.unwrap_err().contains("refused"));
        let nowhere: TurnUrl = "turn:nowhere.invalid".parse().unwrap();
        assert!(ask(&nowhere).await.unwrap_err().contains("nowhere.invalid"));
    }

    #[tokio::test]
    async fn over_tcp_it_must_speak_stun_and_over_tls_be_there() {
        let node = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = node.local_addr().unwrap();
        for (says, good) in [(true, true), (false, false)] {
            let serve = async {
                let (mut stream, _) = node.accept().await.unwrap();
                let mut request = [0; HEADER_LEN];
                stream.read_exact(&mut request).await.unwrap();
                let bytes = if says { answer(&request, Class::Success) } else { [b'x'; 40].into() };
                stream.write_all(&bytes).await.unwrap();
                // Until the other side has read it.
                let _ = stream.read(&mut request).await;
            };
            let at = url("turn", address, "tcp");
            let (asked, ()) = tokio::join!(ask(&at), serve);
            assert_eq!(asked.is_ok(), good, "{asked:?}");
        }
        let at = url("turns", address, "tcp");
        assert_eq!(ask(&at).await, Ok(()));
        drop(node);
        assert!(ask(&at).await.unwrap_err().contains("refused"));
    }
}
