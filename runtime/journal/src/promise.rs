//! A value that another thread will deliver: waited for by blocking, or polled as a future.

use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// The side that delivers. Dropped without delivering, it says so to the other side.
pub(crate) struct Promise<T>(Arc<Shared<T>>);

/// The side that waits. It yields `None` when the value will never come.
pub(crate) struct Awaited<T>(Arc<Shared<T>>);

/// Both sides of one value.
pub(crate) fn promise<T>() -> (Promise<T>, Awaited<T>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State::Open(None)),
        settled: Condvar::new(),
    });
    (Promise(Arc::clone(&shared)), Awaited(shared))
}

struct Shared<T> {
    state: Mutex<State<T>>,
    settled: Condvar,
}

enum State<T> {
    Open(Option<Waker>),
    Settled(Option<T>),
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Settles once; whatever comes later is ignored.
    fn settle(&self, value: Option<T>) {
        let waker = {
            let mut state = self.lock();
            let State::Open(waker) = &mut *state else {
                return;
            };
            let waker = waker.take();
            *state = State::Settled(value);
            waker
        };
        self.settled.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Promise<T> {
    pub(crate) fn deliver(self, value: T) {
        self.0.settle(Some(value));
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        self.0.settle(None);
    }
}

impl<T> Awaited<T> {
    pub(crate) fn wait(self) -> Option<T> {
        let is_open = |state: &mut State<T>| matches!(state, State::Open(_));
        let settled = self.0.settled.wait_while(self.0.lock(), is_open);
        match &mut *settled.unwrap_or_else(PoisonError::into_inner) {
            State::Settled(value) => value.take(),
            State::Open(_) => None,
        }
    }
}

impl<T> Future for Awaited<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<Option<T>> {
        match &mut *self.0.lock() {
            State::Settled(value) => Poll::Ready(value.take()),
            State::Open(waker) => {
                match waker {
                    Some(waker) => waker.clone_from(ctx.waker()),
                    None => *waker = Some(ctx.waker().clone()),
                }
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_pending_future_is_woken_by_the_delivery() {
        let (promise, mut awaited) = promise();
        let wakes = Arc::new(Wakes(AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&wakes));
        let mut ctx = Context::from_waker(&waker);

        assert!(Pin::new(&mut awaited).poll(&mut ctx).is_pending());
        promise.deliver(7);

        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
        assert_eq!(Pin::new(&mut awaited).poll(&mut ctx), Poll::Ready(Some(7)));
    }

    #[test]
    fn a_dropped_promise_ends_the_wait() {
        let (promise, awaited) = promise::<u8>();

        drop(promise);

        assert_eq!(awaited.wait(), None);
    }
}
