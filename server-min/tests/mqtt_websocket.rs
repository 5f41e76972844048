//! MQTT over WebSocket: mqtt.js, as the viewer page's colleagues use it, and frames it would not send.

#![allow(clippy::unwrap_used, reason = "clippy sees tests only in functions marked as such")]

mod js_support;
mod mqtt_support;

use futures_util::{SinkExt, StreamExt};
use mqtt_support::{Rig, TestUsers, Version, connect_packet, publish_packet};
use server_min::mqtt::{Broker, BrokerConfig};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::LocalSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async, client_async};

/// Answers the handshake as server-min's HTTP side does, and hands the bare stream on.
async fn with_websocket_broker<F: Future>(test: impl FnOnce(Rig) -> F) -> F::Output {
    LocalSet::new()
        .run_until(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let broker = Broker::new(BrokerConfig::default(), Rc::new(TestUsers));
            let serving = broker.clone();
            tokio::task::spawn_local(async move {
                while let Ok((stream, peer)) = listener.accept().await {
                    stream.set_nodelay(true).unwrap();
                    let broker = serving.clone();
                    tokio::task::spawn_local(async move {
                        if let Ok(upgraded) = accept_hdr_async(stream, speak_mqtt).await {
                            broker.serve_websocket(upgraded.into_inner(), peer).await;
                        }
                    });
                }
            });
            test(Rig { broker, address }).await
        })
        .await
}

#[allow(clippy::result_large_err, reason = "the handshake's own error type")]
fn speak_mqtt(
    request: &Request,
    mut response: Response,
) -> Result<Response, tokio_tungstenite::tungstenite::handshake::server::ErrorResponse> {
    assert_eq!(request.headers()["sec-websocket-protocol"], "mqtt");
    response.headers_mut().insert("sec-websocket-protocol", "mqtt".parse().unwrap());
    Ok(response)
}

#[tokio::test]
async fn mqtt_js_signals_over_a_websocket() {
    with_websocket_broker(|rig| async move {
        let url = format!("ws://{}/mqtt", rig.address);
        js_support::everything_arrives(&url, &[], None).await;
    })
    .await;
}

async fn open(rig: &Rig) -> WebSocketStream<TcpStream> {
    use tokio_tungstenite::tungstenite::client::IntoClientRequest;
    let mut request = format!("ws://{}/mqtt", rig.address).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "mqtt".parse().unwrap());
    client_async(request, TcpStream::connect(rig.address).await.unwrap()).await.unwrap().0
}

/// The next binary frame; `None` at the end.
async fn bytes(socket: &mut WebSocketStream<TcpStream>) -> Option<Vec<u8>> {
    loop {
        match timeout(Duration::from_secs(10), socket.next()).await.expect("an answer in time") {
            Some(Ok(Message::Binary(bytes))) => return Some(bytes.to_vec()),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            _ => return None,
        }
    }
}

#[tokio::test]
async fn frame_borders_mean_nothing() {
    with_websocket_broker(|rig| async move {
        let mut socket = open(&rig).await;
        let stream =
            [connect_packet(Version::V3, "admin:a", "split", true, 60), vec![0xc0, 0, 0xc0, 0]]
                .concat();
        for byte in stream.chunks(3) {
            socket.send(Message::Binary(byte.to_vec().into())).await.unwrap();
        }
        let mut answer = Vec::new();
        while answer.len() < 8 {
            answer.extend(bytes(&mut socket).await.unwrap());
        }
        assert_eq!(answer, [0x20, 2, 0, 0, 0xd0, 0, 0xd0, 0]);
        socket.send(Message::Ping(vec![1].into())).await.unwrap();
        let pong = socket.next().await.unwrap().unwrap();
        assert_eq!(pong, Message::Pong(vec![1].into()));
        socket.close(None).await.unwrap();
        while rig.broker.stats().connections > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn text_and_giant_frames_end_the_connection() {
    with_websocket_broker(|rig| async move {
        let mut socket = open(&rig).await;
        socket.send(Message::Text("hello".into())).await.unwrap();
        assert_eq!(bytes(&mut socket).await, None);

        let mut socket = open(&rig).await;
        socket
            .send(Message::Binary(connect_packet(Version::V5, "admin:a", "x", true, 60).into()))
            .await
            .unwrap();
        assert_eq!(bytes(&mut socket).await.unwrap()[0], 0x20);
        let giant = publish_packet(Version::V5, "x", &vec![0; 1_000_000], 1, 1, false);
        let _ = socket.send(Message::Binary(giant.into())).await;
        assert_eq!(bytes(&mut socket).await, Some(vec![0xe0, 1, 0x95]));
        assert_eq!(bytes(&mut socket).await, None);
        while rig.broker.stats().connections > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
