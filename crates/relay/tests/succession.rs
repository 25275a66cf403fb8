//! Two engines on one listening socket, of which the first retires: what keep-alive clients and tunnels saw.
#![allow(clippy::unwrap_used)] // what a test lacks may end it

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use relay::{Ended, Exchange, Handler, Serving, Settings, Stop};

const PATIENCE: Duration = Duration::from_secs(20);

struct Named(&'static str);

impl Handler for Named {
    async fn handle(&self, exchange: &mut Exchange<'_>) -> Result<(), Ended> {
        exchange.reply(200, &[("x-name", self.0)], b"").await
    }
}

fn timeouts() -> plan::Timeouts {
    let site = plan::Site::from_text("[balancer]\nservers = [\"127.0.0.1:1\"]\n");
    let place = plan::Place::Up { block: 1 };
    let ground = plan::Ground { place, generation: 1, folder: "test", files: &plan::NoFiles };
    site.plan(&ground).unwrap().balancer.unwrap().timeouts
}

fn engine(listener: &TcpListener, name: &'static str) -> (Stop, Serving) {
    let stop = Stop::default();
    let listeners = vec![listener.try_clone().unwrap()];
    let serving = relay::serve(listeners, Settings::new(timeouts()), stop.clone(), move |_| Named(name));
    (stop, serving.unwrap())
}

/// Sends one request on a kept connection; the head of the answer.
fn ask(stream: &mut TcpStream) -> std::io::Result<String> {
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&head).to_ascii_lowercase())
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Asks until it is over, on a new connection whenever an answer says that this one ends; how many were answered by
/// the second engine.
fn client(address: SocketAddr, over: &AtomicBool) -> usize {
    let (mut stream, mut by_second) = (connect(address), 0);
    while !over.load(Ordering::SeqCst) {
        let head = ask(&mut stream).unwrap();
        assert!(head.starts_with("http/1.1 200 "), "{head}");
        by_second += usize::from(head.contains("x-name: second"));
        if head.contains("connection: close") {
            stream = connect(address);
        }
    }
    by_second
}

#[test]
fn a_successor_takes_over_and_no_request_is_lost() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, first) = engine(&listener, "first");
    let mut idle = connect(address);
    assert!(ask(&mut idle).unwrap().contains("x-name: first"));
    let over = AtomicBool::new(false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(|| client(address, &over))).collect();
        let (last_stop, second) = engine(&listener, "second");
        let told = scope.spawn(|| {
            // One that is mostly idle still gets its answers, and with one of them the word to come back elsewhere.
            loop {
                let head = ask(&mut idle).unwrap();
                assert!(head.contains("x-name: first"), "{head}");
                if head.contains("connection: close") {
                    return;
                }
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        runtime.block_on(first.retire(&stop, PATIENCE, std::future::pending()));
        told.join().unwrap();
        over.store(true, Ordering::SeqCst);
        let by_second: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
        assert!(by_second > 0);
        last_stop.drain(Duration::ZERO);
        second.wait();
    });
}

#[test]
fn a_stop_hurries_one_that_retires() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (stop, serving) = engine(&listener, "first");
    let mut idle = connect(listener.local_addr().unwrap());
    ask(&mut idle).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let began = std::time::Instant::now();
    runtime.block_on(serving.retire(&stop, PATIENCE, std::future::ready(PATIENCE)));
    assert!(began.elapsed() < PATIENCE / 2, "idle connections end at once");
}
