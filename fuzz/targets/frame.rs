//! Any bytes as frames of the link: each is read or refused, and what is read can be sent again.
#![no_main]

use std::sync::LazyLock;

use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().build().expect("a runtime without drivers"));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    RUNTIME.block_on(async {
        let mut rest = bytes;
        while let Ok(message) = link::frame::read::<serde_json::Value>(&mut rest).await {
            let mut again = Vec::new();
            link::frame::write(&mut again, &message).await.expect("memory takes everything");
            let reread: serde_json::Value =
                link::frame::read(&mut again.as_slice()).await.expect("our own frame");
            assert_eq!(reread.to_string(), message.to_string());
        }
    });
});
