//! Postgres started again in place, under clients that connect all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use link::report::State;
use tokio_postgres::error::SqlState;

use super::kill;
use super::site::{Running, Site, until};

/// How often postgres is killed.
const KILLS: usize = 3;

const CLIENTS: usize = 4;

#[test]
fn whoever_comes_while_postgres_is_started_again_in_place_is_held() {
    let site: &'static Site = Box::leak(Box::new(Site::new("in-place", 181, "")));
    let servers = ["database-1", "gate-1"].map(|server| site.start(server));
    site.healthy("database-1");
    site.wait("gate-1", |report| report.state == State::Healthy);
    let (go, served) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (go, served) = (Arc::clone(&go), Arc::clone(&served));
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(come_and_go(site, &go, &served))
            })
        })
        .collect();
    for _ in 0..KILLS {
        let (epoch, before) = (site.group().epoch, served.load(Ordering::Relaxed));
        kill(site.postmaster("database-1"));
        until("a new epoch is open", || site.group().epoch > epoch && site.group().is_open());
        until("clients are served", || served.load(Ordering::Relaxed) > before + CLIENTS);
    }
    go.store(false, Ordering::Relaxed);
    let refused: Vec<String> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    assert!(refused.is_empty(), "{refused:?}");
    servers.into_iter().for_each(Running::stop);
    site.remove();
}

/// One connection after another; what each was told that it could not have now. To lose one is no refusal.
async fn come_and_go(site: &Site, go: &AtomicBool, served: &AtomicUsize) -> Vec<String> {
    let mut refused = Vec::new();
    while go.load(Ordering::Relaxed) {
        match site.client("gate-1", "read-write").await {
            Ok(client) if client.number("SELECT count(*) FROM pg_class").await.is_ok() => {
                served.fetch_add(1, Ordering::Relaxed);
            }
            Ok(_) => {}
            Err(error) if error.code() == Some(&SqlState::CANNOT_CONNECT_NOW) => {
                refused.push(format!("{error:?}"))
            }
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    refused
}
