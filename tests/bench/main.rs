//! The cost of a Mount, compared with a bare tonic server that returns the same bytes in the same run.
//!
//! `cargo bench --bench mount` prints the table in docs/src/performance.md. The provider and the echo are
//! separate processes; the emulated cloud and the callers run in this one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]
#![allow(clippy::disallowed_methods)] // measures real time

mod echo;
mod measure;
mod node;
mod process;

use std::path::Path;

use measure::{Pair, median};
use node::Node;

/// Rounds, in which provider and echo are measured in turn, and Mounts of one caller per round.
const ROUNDS: usize = 20;
const CALLS: usize = 100;
/// Mounts over which CPU time is measured.
const BUSY_CALLS: usize = 60_000;
const CALLERS: usize = 8;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    match args.iter().position(|arg| arg == "--echo") {
        Some(at) => runtime.block_on(echo::serve(Path::new(&args[at + 1]))),
        None => runtime.block_on(measure_all()),
    }
}

async fn measure_all() {
    println!("{}\n", machine());
    println!("| what | provider | bare echo | ratio |\n|---|---|---|---|");
    let node = Node::start().await;
    println!(
        "| start to ready | {:.0} ms | {:.0} ms | |",
        ms(node.provider.ready),
        ms(node.idle_echo.ready)
    );
    println!(
        "| resident memory, idle | {:.1} MiB | {:.1} MiB | |",
        mib(node.provider.resident()),
        mib(node.idle_echo.resident())
    );
    for objects in [1, 10, 20] {
        let class = node
            .class(&format!("warm{objects}"), objects, "latest")
            .await;
        let echo = node.echo(&class).await;
        let pair = Pair::latency(&node, &class, &echo, ROUNDS, CALLS).await;
        let noun = if objects == 1 { "object" } else { "objects" };
        println!(
            "| warm Mount of {objects} {noun}, one caller, p50 | {:.3} ms | {:.3} ms | {:.2} |",
            pair.provider, pair.echo, pair.ratio
        );
        let pair = Pair::per_cpu_second(&node, &class, &echo, CALLERS, BUSY_CALLS).await;
        println!(
            "| warm Mounts of {objects} {noun} per CPU-second, {CALLERS} callers | {:.0} | {:.0} | {:.2} |",
            pair.provider, pair.echo, pair.ratio
        );
    }
    let (one, twenty) = node.cold().await;
    let (one, twenty) = (median(one), median(twenty));
    println!(
        "| cold Mount, cloud answers in 50 ms: 1 object; 20 objects | {one:.1} ms; {twenty:.1} ms | | {:.2} |",
        twenty / one
    );
    let (calls, seconds) = node.at_once(1000).await;
    println!(
        "| 1,000 pods request the same 10 secrets at once | {calls} cloud calls, {seconds:.2} s | | |"
    );
    drop(node);
    let node = Node::start().await;
    node.fill(110, 20).await;
    println!(
        "| resident memory with 110 pods × 20 secrets mounted | {:.1} MiB | | |",
        mib(node.provider.resident())
    );
}

fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let cores = std::thread::available_parallelism().unwrap();
    format!(
        "{} × {}, Linux, shared with others",
        cores,
        model.unwrap_or("unknown processor")
    )
}

fn ms(time: std::time::Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1024.0 / 1024.0
}
