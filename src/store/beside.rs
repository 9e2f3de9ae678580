//! Work that blocks on the disk, beside the workers.

use tokio::task::JoinHandle;

/// Runs what blocks on the disk where it holds up nobody.
pub(crate) fn beside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    #[cfg(test)]
    if let Some(delay) = simulated::draw_delay() {
        return tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            work()
        });
    }
    tokio::task::spawn_blocking(work)
}

#[cfg(test)]
pub(crate) mod simulated {
    //! How long such work takes on a simulated machine, which has no threads: each thread simulates its own.

    use std::cell::RefCell;
    use std::time::Duration;

    type Delay = Box<dyn FnMut() -> Duration>;

    thread_local! {
        static DELAY: RefCell<Option<Delay>> = const { RefCell::new(None) };
    }

    pub(crate) fn set_delay(delay: Option<Delay>) {
        DELAY.set(delay);
    }

    pub(super) fn draw_delay() -> Option<Duration> {
        DELAY.with_borrow_mut(|delay| delay.as_mut().map(|draw| draw()))
    }
}
