//! Paused time that works with real sockets.
//!
//! Tokio's paused clock jumps to the next timer whenever the runtime is idle, and bytes in transit
//! through a socket do not count as work, so timeouts would fire at once. A blocking task keeps the
//! clock from jumping, and [`drive`] advances it in small steps between which sockets are polled.

use std::sync::mpsc;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::advance;

/// Keeps time paused until it is dropped.
pub(crate) struct PausedClock {
    /// Dropping it ends the blocking task.
    _hold: mpsc::Sender<()>,
}

impl PausedClock {
    /// Pauses time. Must be called in a current-thread runtime.
    pub(crate) fn new() -> Self {
        tokio::time::pause();
        let (hold, held) = mpsc::channel();
        tokio::task::spawn_blocking(move || held.recv());
        Self { _hold: hold }
    }
}

impl Drop for PausedClock {
    fn drop(&mut self) {
        tokio::time::resume();
    }
}

/// One step of [`drive`].
const STEP: Duration = Duration::from_millis(1);
/// How often sockets are polled between two steps.
const POLLS: usize = 8;

/// Runs `work` while time advances, as fast as the machine allows.
pub(crate) async fn drive<T>(work: impl Future<Output = T>) -> T {
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
