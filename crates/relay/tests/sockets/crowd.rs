//! Threads that share what one target may have of connections.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use relay::{Edits, Ended, Exchange, Fleet, Handler, Settings, Stop};

use crate::stage::{Client, Origin, read_head, timeouts, wait_until};

#[derive(Clone)]
struct ByFleet(Arc<Fleet>);

impl Handler for ByFleet {
    async fn handle(&self, exchange: &mut Exchange<'_>) -> Result<(), Ended> {
        exchange.forward(self.0.way(0), &Edits::default()).await.map(|_| ()).map_err(|_| Ended)
    }
}

fn check() -> plan::Check {
    let text = r#"{"path":"/","interval_ms":2000,"timeout_ms":1000,"rise":2,"fall":3}"#;
    serde_json::from_str(text).unwrap()
}

fn targets(address: SocketAddr, max_connections: Option<u32>) -> Vec<plan::Target> {
    let (name, machine) = ("a".to_owned(), None);
    vec![plan::Target { name, address, lookup: None, machine, weight: 1, backup: false, max_connections }]
}

/// A server with one process serves nobody else while a connection to it is kept.
#[test]
fn an_idle_connection_of_one_thread_makes_room_for_another_thread() {
    for (most, closed) in [(Some(1), true), (Some(2), false), (None, false)] {
        let origin = Origin::start(|stream, _| {
            while read_head(stream).is_some() {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
            }
            Ok(())
        });
        let fleet = Arc::new(Fleet::new(targets(origin.address(), most), check(), None));
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        let doors = [0, 1].map(|thread: usize| listeners[thread].local_addr().unwrap());
        let (stop, handler) = (Stop::default(), ByFleet(fleet));
        let settings = Settings::new(timeouts());
        let serving =
            relay::serve(listeners.into(), settings, stop.clone(), move |_| handler.clone()).unwrap();
        let ask = |door| {
            let mut client = Client::to(door);
            client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
            assert!(client.answer().ends_with("ok"));
        };
        ask(doors[0]);
        ask(doors[0]);
        assert_eq!((origin.connections(), origin.closed()), (1, 0), "it is kept");
        let began = Instant::now();
        ask(doors[1]);
        assert_eq!(origin.connections(), 2);
        if closed {
            wait_until("one is closed", || origin.closed() > 0);
            // It would be closed by itself after four seconds.
            assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        } else {
            ask(doors[0]);
            ask(doors[1]);
            assert_eq!((origin.connections(), origin.closed()), (2, 0), "both are kept");
        }
        stop.drain(Duration::ZERO);
        serving.wait();
    }
}
