//! The guestbook: a small real application behind the example site.
//!
//! One process is one worker: one thread, a few database connections, no state of its own, so any number of
//! them may run on any number of machines and be killed at any moment. It learns everything from its
//! environment and knows nothing of Dolmen: any program in any language can stand in its place.

mod settings;
mod server;
mod page;
mod api;
mod health;
mod hops;
mod entry;
mod failure;
mod store;
mod pool;
mod schema;
#[cfg(test)]
mod tests;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::health::Health;
use crate::server::Guestbook;
use crate::settings::Settings;
use crate::store::Store;

/// How long requests under way may take to end after we are asked to stop.
const DRAIN_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
enum Fatal {
    #[error(transparent)]
    Settings(#[from] settings::SettingsError),
    #[error("cannot listen on {host}:{port}: {error}")]
    Listen { host: String, port: u16, error: std::io::Error },
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(fatal) => {
            eprintln!("guestbook: {fatal}");
            ExitCode::from(if matches!(fatal, Fatal::Settings(_)) { 2 } else { 1 })
        }
    }
}

async fn run() -> Result<(), Fatal> {
    let settings = Settings::from_environment(|name| std::env::var(name).ok())?;
    let guestbook = Arc::new(Guestbook {
        store: Store::new(&settings.primary, settings.replica.as_ref()),
        health: Health::starting(),
        server: settings.server,
    });
    let listener = listen(&settings.host, settings.port).await?;
    println!("guestbook: listening on {}, pid {}", listener.local_addr()?, std::process::id());
    tokio::spawn(schema::keep_trying(guestbook.clone()));
    serve(listener, guestbook).await
}

async fn listen(host: &str, port: u16) -> Result<TcpListener, Fatal> {
    let failed = |error| Fatal::Listen { host: host.to_owned(), port, error };
    TcpListener::bind((host, port)).await.map_err(failed)
}

/// Serves until SIGTERM or SIGINT, then lets the requests under way end.
async fn serve(listener: TcpListener, guestbook: Arc<Guestbook>) -> Result<(), Fatal> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (stop, stopping) = tokio::sync::oneshot::channel::<()>();
    let asked = async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        println!("guestbook: asked to stop; requests under way have {} s", DRAIN_WITHIN.as_secs());
        drop(stop);
    };
    let serving = axum::serve(listener, server::routes(guestbook)).with_graceful_shutdown(asked);
    let late = async {
        let _ = stopping.await;
        tokio::time::sleep(DRAIN_WITHIN).await;
    };
    tokio::select! {
        ended = serving.into_future() => Ok(ended?),
        () = late => {
            eprintln!("guestbook: some requests did not end in time; leaving");
            Ok(())
        }
    }
}
