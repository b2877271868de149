//! Measures the latency and the CPU time of calls to the provider and the echo, in turn.

use std::time::Instant;

use dew_provider::node::socket;
use dew_provider::proto::MountRequest;
use futures::future::join_all;
use std::path::Path;

use super::node::{Class, Node};
use super::process::Process;

/// The figures of provider and echo.
pub(crate) struct Pair {
    pub(crate) provider: f64,
    pub(crate) echo: f64,
    /// Median of the rounds' ratios: if the machine slows down, it slows both.
    pub(crate) ratio: f64,
}

impl Pair {
    /// The latency of a Mount for one caller, p50 in milliseconds.
    pub(crate) async fn latency(
        node: &Node,
        class: &Class,
        echo: &Process,
        rounds: usize,
        calls: usize,
    ) -> Self {
        let mut all = Vec::with_capacity(rounds);
        for _ in 0..rounds {
            let provider = one_caller(&node.provider.socket, &class.request, calls).await;
            let echo = one_caller(&echo.socket, &class.request, calls).await;
            all.push((median(provider), median(echo)));
        }
        Self::of(&all)
    }

    /// Mounts per second of the process's CPU time.
    pub(crate) async fn per_cpu_second(
        node: &Node,
        class: &Class,
        echo: &Process,
        callers: usize,
        calls: usize,
    ) -> Self {
        let mut all = Vec::new();
        for _ in 0..5 {
            let provider = busy(&node.provider, &class.request, callers, calls / 5).await;
            let echo = busy(echo, &class.request, callers, calls / 5).await;
            all.push((provider, echo));
        }
        Self::of(&all)
    }

    /// Medians over the rounds, each with the figures of provider and echo.
    fn of(rounds: &[(f64, f64)]) -> Self {
        let median_of =
            |figure: fn(&(f64, f64)) -> f64| median(rounds.iter().map(figure).collect());
        Self {
            provider: median_of(|(provider, _)| *provider),
            echo: median_of(|(_, echo)| *echo),
            ratio: median_of(|(provider, echo)| provider / echo),
        }
    }
}

async fn one_caller(socket: &Path, request: &MountRequest, calls: usize) -> Vec<f64> {
    let mut client = socket::client(socket);
    client.mount(request.clone()).await.unwrap();
    let mut times = Vec::with_capacity(calls);
    for _ in 0..calls {
        let started = Instant::now();
        client.mount(request.clone()).await.unwrap();
        times.push(started.elapsed().as_secs_f64() * 1e3);
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
