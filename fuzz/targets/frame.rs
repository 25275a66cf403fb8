//! Any bytes as frames of the link: each is read or refused, and what is read can be sent again.
#![no_main]

use std::sync::LazyLock;

use link::frame::{self, LIMIT};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().build().expect("a runtime without drivers"));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    RUNTIME.block_on(async {
        let mut rest = bytes;
        while let Ok(message) = frame::read::<Value>(&mut rest, LIMIT).await {
            let mut again = Vec::new();
            frame::write(&mut again, &message).await.expect("memory takes everything");
            let reread: Value = frame::read(&mut again.as_slice(), LIMIT).await.expect("our own frame");
            assert_eq!(whole(reread), whole(message));
        }
    });
});

/// Without fractions: those are read to the nearest but one, which is near enough for counts and times.
fn whole(value: Value) -> Value {
    match value {
        Value::Number(number) if number.is_f64() => Value::Null,
        Value::Array(list) => list.into_iter().map(whole).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, value)| (name, whole(value))).collect(),
        other => other,
    }
}
