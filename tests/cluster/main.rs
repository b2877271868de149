//! Cases on a real Kubernetes: `tests/cluster/test` brings one up and runs this program inside.
//!
//! With `DRIVER_BIN` in the environment the real CSI driver serves kubelet, else the stand-in.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]
#![allow(clippy::disallowed_methods)] // real time passes in a cluster

use std::time::Instant;

use anyhow::Result;

#[path = "../mount/cases.rs"]
mod cases;
mod csi;
#[path = "../support/http.rs"]
#[allow(dead_code)] // what other tests use of it
mod http;
mod install;
mod kubernetes;
mod life;
mod mounts;
mod node;
mod rotation;

use node::Node;

type Case = fn(&mut Node) -> Result<()>;

/// In this order: the first ones install what the others use, the last one removes it.
const CASES: &[(&str, Case)] = &[
    (
        "a pod waits for the provider and starts with it",
        install::provider_after_driver,
    ),
    ("the release is as its chart says", install::release),
    ("every mount case, each by what a pod reads", mounts::table),
    (
        "two classes in one pod, and the same names in two namespaces",
        mounts::classes_and_namespaces,
    ),
    (
        "a class in another namespace is refused",
        mounts::foreign_class,
    ),
    (
        "a missing secret is told, and its creation starts the pod",
        mounts::created_later,
    ),
    ("the examples of manifests/", mounts::examples),
    (
        "a synced Secret as an environment variable",
        mounts::synced_secret,
    ),
    ("30 pods at once", life::thirty_pods),
    (
        "the provider is killed while pods come and go",
        life::killed,
    ),
    ("the driver restarts", life::driver_restarts),
    (
        "another user than root cannot make a socket",
        install::another_user,
    ),
    ("helm test", install::helm_test),
    ("helm upgrade with pods running", install::upgrade),
    ("a new version reaches a running pod", life::rotation),
    (
        "20 pods get a new version, for one value call",
        rotation::twenty_pods,
    ),
    ("an edited class reaches 20 pods", rotation::edits),
    (
        "the provider restarts while the cloud is away",
        rotation::restart_in_outage,
    ),
    (
        "API server and leader restart",
        rotation::everything_restarts,
    ),
    (
        "200 pods come and go under nudges",
        rotation::comings_and_goings,
    ),
    ("all manifests pass the API server", install::dry_run),
    ("a pod starts while the cloud is away", life::outage),
    (
        "uninstalling leaves running pods their files",
        install::uninstall,
    ),
];

fn main() {
    // Blocks this thread only: driver and registrar are served by the others.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let (mut passed, mut failed) = (0, 0);
    let mut node = match runtime.block_on(Node::start()) {
        Ok(node) => node,
        Err(error) => {
            println!("the node could not be set up: {error:#}");
            std::process::exit(1);
        }
    };
    let _entered = runtime.enter();
    for (name, case) in CASES {
        let begun = Instant::now();
        let result = case(&mut node);
        let seconds = begun.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                passed += 1;
                println!("cluster: {name} ... ok ({seconds:.1} s)");
            }
            Err(error) => {
                failed += 1;
                println!("cluster: {name} ... FAILED ({seconds:.1} s): {error:#}");
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    std::process::exit(i32::from(failed > 0));
}
