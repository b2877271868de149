//! Times and processor time of calls, the provider's and the echo's in turn.

use std::time::Instant;

use dew_provider::proto::MountRequest;
use dew_provider::socket;
use futures::future::join_all;
use std::path::Path;

use super::node::{Class, Node};
use super::process::Process;

/// Provider and echo side by side.
pub(crate) struct Pair {
    pub(crate) ours: f64,
    pub(crate) echo: f64,
    /// Median of the ratios of the rounds: a machine that slows down slows both.
    pub(crate) ratio: f64,
}

impl Pair {
    /// Milliseconds of a Mount, p50 of one caller.
    pub(crate) async fn latency(
        node: &Node,
        class: &Class,
        echo: &Process,
        rounds: usize,
        calls: usize,
    ) -> Self {
        let mut all = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let ours = one_caller(&node.provider.socket, &class.request, calls).await;
            let theirs = one_caller(&echo.socket, &class.request, calls).await;
            all.push((median(ours), median(theirs)));
        }
        Self::of(&all)
    }

    /// Mounts per second of the process's processor time.
    pub(crate) async fn per_cpu_second(
        node: &Node,
        class: &Class,
        echo: &Process,
        callers: usize,
        calls: usize,
    ) -> Self {
        let mut all = Vec::new();
        for _ in 0..5 {
            let ours = busy(&node.provider, &class.request, callers, calls / 5).await;
            let theirs = busy(echo, &class.request, callers, calls / 5).await;
            all.push((ours, theirs));
        }
        Self::of(&all)
    }

    /// Medians over the rounds, each ours and the echo's.
    fn of(rounds: &[(f64, f64)]) -> Self {
        let median_of =
            |figure: fn(&(f64, f64)) -> f64| median(rounds.iter().map(figure).collect());
        Self {
            ours: median_of(|(ours, _)| *ours),
            echo: median_of(|(_, echo)| *echo),
            ratio: median_of(|(ours, echo)| ours / echo),
        }
    }
}

async fn one_caller(socket: &Path, request: &MountRequest, calls: usize) -> Vec<f64> {
    let mut client = socket::client(socket);
    client.mount(request.clone()).await.unwrap();
    let mut times = Vec::with_capacity(calls);
    for _ in 0..calls {
        let begun = Instant::now();
        client.mount(request.clone()).await.unwrap();
        times.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    times
}

async fn busy(process: &Process, request: &MountRequest, callers: usize, calls: usize) -> f64 {
    let client = socket::client(&process.socket);
    let before = process.cpu();
    join_all((0..callers).map(|_| {
        let (mut client, request) = (client.clone(), request.clone());
        async move {
            for _ in 0..calls / callers {
                client.mount(request.clone()).await.unwrap();
            }
        }
    }))
    .await;
    calls as f64 / (process.cpu() - before).as_secs_f64()
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
