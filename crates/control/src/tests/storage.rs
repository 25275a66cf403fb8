//! The log and the records against openraft's own conformance tests.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

use crate::machine::Machine;
use crate::store::Store;
use crate::types::Types;

struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

#[derive(Default)]
struct Builder(AtomicU32);

impl StoreBuilder<Types, Store, Machine, Folder> for Builder {
    async fn build(&self) -> Result<(Folder, Store, Machine), StorageError<Types>> {
        let number = self.0.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("dolmen-suite-{number}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let store = Store::open(&folder.join("log")).unwrap();
        let machine = Machine::open(&folder.join("snapshot.json")).unwrap();
        Ok((Folder(folder), store, machine))
    }
}

#[tokio::test]
async fn the_store_does_what_openraft_expects() {
    Suite::test_all(Builder::default()).await.unwrap();
}
