//! Measures the cloud calls of thousands of nodes and the memory of one. `cargo bench --bench scale`
//! prints the table of docs/src/performance.md.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

mod simulate;

use simulate::{INTERVAL, Simulation};

/// kubelet's default limit for a node.
const PODS: usize = 110;

fn main() {
    let leader_only = std::env::args().any(|arg| arg == "--leader");
    let given = std::env::args().filter_map(|arg| arg.parse().ok());
    let mut nodes: Vec<usize> = given.collect();
    if nodes.is_empty() {
        nodes = vec![10, 100, 1_000, 5_000];
    }
    if leader_only {
        runtime().block_on(measure_leader(nodes[0]));
        return;
    }
    println!(
        "| nodes | polls per interval | value calls per interval | value calls after one change | \
         most calls in one second | last node fetched after | memory per node |\n\
         |---|---|---|---|---|---|---|"
    );
    for nodes in nodes {
        // A new runtime, so that all tasks of the previous cluster are gone.
        runtime().block_on(measure(nodes));
        // A separate process, because freed memory is not returned to the system.
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

/// Measures the memory of the leader of a cluster: it counts the records of the pods of all `nodes`.
async fn measure_leader(nodes: usize) {
    let mut before = 0.0;
    let cluster = Simulation::start_with_records(1, PODS, nodes, || before = resident()).await;
    cluster.settle().await;
    let memory = resident() - before;
    println!("| the leader of {nodes} nodes | | | | | | {memory:.1} MiB |");
}

async fn measure(nodes: usize) {
    let before = resident();
    let cluster = Simulation::start(nodes, PODS).await;
    cluster.settle().await;
    let (mut polls, mut values) = (0, 0);
    const INTERVALS: usize = 2;
    for _ in 0..INTERVALS {
        let calls = cluster.calls_within(INTERVAL).await;
        polls += calls.polls;
        values += calls.values;
    }
    let memory = (resident() - before) / nodes as f64;
    let change = cluster.change_one().await;
    println!(
        "| {nodes} | {} | {} | {} | {} | {} s | {memory:.1} MiB |",
        polls / INTERVALS,
        values / INTERVALS,
        change.values,
        change.most_in_a_second,
        change.took.as_secs()
    );
}

/// Resident memory of this process in MiB, including the simulated cloud and API server.
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
