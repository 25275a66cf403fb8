//! Settings that are replaced as a whole while requests are served.
//!
//! A request works with one value from its beginning to its end, however long that is; the next one on the same
//! thread sees the new value. Between two changes a look costs one atomic read and nothing that threads share.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::watch;

/// One thread's view of such a value. Made on the thread that uses it.
#[derive(Debug)]
pub struct Current<T> {
    newest: RefCell<watch::Receiver<Arc<T>>>,
    /// Counted by this thread alone, so that requests of several threads do not write to one counter.
    #[allow(
        clippy::redundant_allocation,
        reason = "the outer count is this thread's, the inner one is shared"
    )]
    known: RefCell<Rc<Arc<T>>>,
}

impl<T> Current<T> {
    pub fn new(mut newest: watch::Receiver<Arc<T>>) -> Self {
        let known = Rc::new(Arc::clone(&newest.borrow_and_update()));
        Self { newest: RefCell::new(newest), known: RefCell::new(known) }
    }

    #[allow(clippy::redundant_allocation, reason = "as above")]
    pub fn get(&self) -> Rc<Arc<T>> {
        // An error means that there will be no other value.
        if self.newest.borrow().has_changed().unwrap_or(false) {
            let newest = Arc::clone(&self.newest.borrow_mut().borrow_and_update());
            self.known.replace(Rc::new(newest));
        }
        Rc::clone(&self.known.borrow())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_a_value_keeps_it_and_the_next_look_sees_the_new_one() {
        let (sender, receiver) = watch::channel(Arc::new(1));
        let current = Current::new(receiver);
        let first = current.get();
        sender.send_replace(Arc::new(2));
        assert_eq!((**first, **current.get()), (1, 2));
        drop(sender);
        assert_eq!(**current.get(), 2);
    }
}
