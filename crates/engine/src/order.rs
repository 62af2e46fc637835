//! Order among workers: what they finish in any order comes out in order, and nobody runs far ahead.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Puts what several workers finish in any order back into order. Nobody runs further ahead than a few items.
#[derive(Debug)]
pub(crate) struct Order<T> {
    state: Mutex<OrderState<T>>,
    changed: Condvar,
    window: u64,
}

#[derive(Debug)]
struct OrderState<T> {
    next: u64,
    waiting: BTreeMap<u64, T>,
    complete: bool,
    aborted: bool,
}

impl<T> Order<T> {
    /// `window`: how many items may wait at most, at least 1.
    pub(crate) fn new(window: usize) -> Self {
        let state = OrderState { next: 0, waiting: BTreeMap::new(), complete: false, aborted: false };
        Self { state: Mutex::new(state), changed: Condvar::new(), window: window.max(1) as u64 }
    }

    fn lock(&self) -> MutexGuard<'_, OrderState<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, OrderState<T>>) -> MutexGuard<'a, OrderState<T>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a item; waits while it is too far ahead. False when nobody wants it any more.
    pub(crate) fn put(&self, index: u64, item: T) -> bool {
        let mut state = self.lock();
        while !state.aborted && index >= state.next + self.window {
            state = self.wait(state);
        }
        if state.aborted {
            return false;
        }
        state.waiting.insert(index, item);
        drop(state);
        self.changed.notify_all();
        true
    }

    /// The next item in order; waits for it. `None` at the end.
    pub(crate) fn next(&self) -> Option<T> {
        let mut state = self.lock();
        loop {
            if state.aborted {
                return None;
            }
            let next = state.next;
            if let Some(item) = state.waiting.remove(&next) {
                state.next += 1;
                drop(state);
                self.changed.notify_all();
                return Some(item);
            }
            if state.complete {
                return None;
            }
            state = self.wait(state);
        }
    }

    /// Says that nothing more comes.
    pub(crate) fn complete(&self) {
        self.lock().complete = true;
        self.changed.notify_all();
    }

    /// Says that nothing of it is wanted: everybody who waits goes on at once.
    pub(crate) fn abort(&self) {
        self.lock().aborted = true;
        self.changed.notify_all();
    }

    /// Whether it was given up.
    pub(crate) fn is_aborted(&self) -> bool {
        self.lock().aborted
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_comes_in_any_order_goes_out_in_order() {
        let order = Arc::new(Order::new(3));
        let writers: Vec<_> = (0..4_u64)
            .map(|writer| {
                let order = Arc::clone(&order);
                std::thread::spawn(move || (0..25_u64).all(|n| order.put(n * 4 + writer, n * 4 + writer)))
            })
            .collect();
        let seen: Vec<u64> = (0..100).map(|_| order.next().unwrap()).collect();
        assert!(writers.into_iter().all(|writer| writer.join().unwrap()));
        order.complete();
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
        assert_eq!(order.next(), None);
    }

    #[test]
    fn who_waits_goes_on_when_it_is_given_up() {
        let order = Arc::new(Order::new(1));
        let ahead = {
            let order = Arc::clone(&order);
            std::thread::spawn(move || order.put(5, ()))
        };
        order.abort();
        assert!(!ahead.join().unwrap());
        assert_eq!(order.next(), None);
    }
}
