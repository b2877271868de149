//! What thousands of nodes ask of the cloud, and what one of them takes of memory. `cargo bench
//! --bench scale` prints the table that stands in the README.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]
#![allow(clippy::disallowed_methods)] // real time is told too

mod simulate;

use simulate::{INTERVAL, Simulation};

/// As many as kubelet runs on a node by default.
const PODS: usize = 110;

fn main() {
    let leads = std::env::args().any(|arg| arg == "--leader");
    let given = std::env::args().filter_map(|arg| arg.parse().ok());
    let mut nodes: Vec<usize> = given.collect();
    if nodes.is_empty() {
        nodes = vec![10, 100, 1_000, 5_000];
    }
    if leads {
        runtime().block_on(leader(nodes[0]));
        return;
    }
    println!(
        "| nodes | questions an interval | value calls an interval | value calls after one change | \
         most in a second | until the last node | memory a node |\n|---|---|---|---|---|---|---|"
    );
    for nodes in nodes {
        // A runtime each, so that all that the one before had is gone.
        runtime().block_on(measure(nodes));
        // A process of its own, because memory once used is not given back.
        let this = std::env::current_exe().unwrap();
        let nodes = nodes.to_string();
        let mut child = std::process::Command::new(this);
        assert!(child.args(["--leader", &nodes]).status().unwrap().success());
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
}

/// What one provider takes that leads so many nodes: it counts the records of all their pods.
async fn leader(nodes: usize) {
    let mut before = 0.0;
    let cluster = Simulation::among(1, PODS, nodes, || before = resident()).await;
    cluster.settle().await;
    let memory = resident() - before;
    println!("| the leader of {nodes} | | | | | | {memory:.1} MiB |");
}

async fn measure(nodes: usize) {
    let before = resident();
    let cluster = Simulation::start(nodes, PODS).await;
    cluster.settle().await;
    let (mut questions, mut values) = (0, 0);
    const INTERVALS: usize = 2;
    for _ in 0..INTERVALS {
        let calls = cluster.calls_within(INTERVAL).await;
        questions += calls.questions;
        values += calls.values;
    }
    let memory = (resident() - before) / nodes as f64;
    let change = cluster.change_one().await;
    println!(
        "| {nodes} | {} | {} | {} | {} | {} s | {memory:.1} MiB |",
        questions / INTERVALS,
        values / INTERVALS,
        change.values,
        change.most_in_a_second,
        change.took.as_secs()
    );
}

/// Resident memory of this process, in MiB: all nodes, the cloud and the API server.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib: f64 = line
        .unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    kib / 1024.0
}
