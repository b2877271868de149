//! Time that stands still until a test moves it, beside real sockets.
//!
//! Tokio's paused clock jumps to the next timer whenever nothing else is to be done, and bytes on
//! their way through a socket do not count as work: time-outs would fire at once. A blocking task
//! keeps it from jumping, and [`hurry`] moves it in small steps between which sockets are polled.

use std::sync::mpsc;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::advance;

/// Holds time still until it is dropped.
pub(crate) struct Still {
    /// Ends the blocking task.
    _hold: mpsc::Sender<()>,
}

impl Still {
    /// To be called in a current-thread runtime.
    pub(crate) fn new() -> Self {
        tokio::time::pause();
        let (hold, held) = mpsc::channel();
        tokio::task::spawn_blocking(move || held.recv());
        Self { _hold: hold }
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        tokio::time::resume();
    }
}

/// One step of [`hurry`].
const STEP: Duration = Duration::from_millis(1);
/// Polls of the sockets between two steps.
const POLLS: usize = 8;

/// Does the work while time goes on, as fast as the machine allows.
pub(crate) async fn hurry<T>(work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = step() => {}
        }
    }
}

async fn step() {
    for _ in 0..POLLS {
        yield_now().await;
    }
    advance(STEP).await;
}
