//! WebSockets through the balancer, with a client and a server that are not ours.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_async, client_async};

use crate::stage::{Balancer, PATIENCE};

type Socket = WebSocketStream<TcpStream>;

/// A server that says what it hears.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut socket) = accept_async(stream).await else { return };
                while let Some(Ok(message)) = socket.next().await {
                    if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

/// Checks by connections alone: the server speaks nothing but WebSocket.
fn before(server: SocketAddr, change: impl Fn(&mut plan::Balancer)) -> Balancer {
    let balancer = Balancer::at(&[server], |section| {
        section.pool.check.kind = plan::CheckKind::Tcp;
        change(section);
    });
    balancer.wait_until_up(1);
    balancer
}

async fn open(balancer: &Balancer) -> Socket {
    let stream = TcpStream::connect(balancer.address).await.unwrap();
    client_async("ws://www.foobar.com/chat", stream).await.unwrap().0
}

/// Sends and hears the same.
async fn echoes(socket: &mut Socket, message: Message) {
    socket.send(message.clone()).await.unwrap();
    let heard = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap();
    assert_eq!(heard.unwrap().unwrap(), message);
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn text_binary_ping_and_close_pass() {
    run(async {
        let balancer = before(echo().await, |_| {});
        let mut socket = open(&balancer).await;
        echoes(&mut socket, Message::text("good morning")).await;
        echoes(&mut socket, Message::binary(vec![0, 255, 13, 10])).await;
        socket.send(Message::Ping(vec![1, 2, 3].into())).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong(vec![1, 2, 3].into()));
        let frame = CloseFrame { code: CloseCode::Away, reason: "bye".into() };
        socket.close(Some(frame.clone())).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::Close(Some(frame)));
        assert!(socket.next().await.is_none(), "the connection ended");
    });
}

#[test]
fn fragments_and_large_messages_pass() {
    run(async {
        let balancer = before(echo().await, |_| {});
        let mut socket = open(&balancer).await;
        let parts = [
            Frame::message("one ", OpCode::Data(Data::Text), false),
            Frame::message("two ", OpCode::Data(Data::Continue), false),
            Frame::message("three", OpCode::Data(Data::Continue), true),
        ];
        for part in parts {
            socket.send(Message::Frame(part)).await.unwrap();
        }
        assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("one two three"));
        let large: Vec<u8> = (0..8 * 1024 * 1024_u32).map(|number| ((number * 31) >> 8) as u8).collect();
        echoes(&mut socket, Message::binary(large)).await;
    });
}

#[test]
fn a_thousand_at_once_are_each_heard() {
    const SOCKETS: usize = 1_000;
    run(async {
        let balancer = before(echo().await, |_| {});
        let mut sockets = Vec::new();
        for _ in 0..SOCKETS {
            sockets.push(open(&balancer).await);
        }
        for (number, socket) in sockets.iter_mut().enumerate() {
            socket.send(Message::text(format!("I am {number}"))).await.unwrap();
        }
        for (number, socket) in sockets.iter_mut().enumerate() {
            let heard = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap();
            assert_eq!(heard.unwrap().unwrap(), Message::text(format!("I am {number}")));
        }
        println!("{} WebSockets at once, each answered", sockets.len());
    });
}

#[test]
fn a_quiet_socket_outlives_all_time_outs_but_the_tunnels() {
    run(async {
        let balancer = before(echo().await, |section| {
            let timeouts = &mut section.timeouts;
            (timeouts.header_ms, timeouts.idle_ms, timeouts.first_byte_ms) = (200, 200, 200);
            (timeouts.body_ms, timeouts.tunnel_ms) = (200, 60_000);
        });
        let mut socket = open(&balancer).await;
        echoes(&mut socket, Message::text("before")).await;
        // Quietness is what is tested.
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        echoes(&mut socket, Message::text("after")).await;
        let short = before(echo().await, |section| section.timeouts.tunnel_ms = 300);
        let mut socket = open(&short).await;
        echoes(&mut socket, Message::text("before")).await;
        let ended = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap();
        assert!(matches!(ended, None | Some(Err(Error::Protocol(_) | Error::Io(_)))), "{ended:?}");
    });
}
