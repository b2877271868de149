//! Tests on a real Kubernetes cluster: `tests/cluster/test` starts one and runs this program inside it.
//!
//! If `DRIVER_BIN` is set, kubelet uses the real CSI driver, otherwise the simulated one. Arguments select the
//! cases whose name contains one of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]
#![allow(clippy::disallowed_methods)] // real time passes in a cluster

use std::time::Instant;

use anyhow::Result;

#[path = "../mount/cases.rs"]
mod cases;
mod cce;
mod csi;
#[path = "../support/http.rs"]
#[allow(dead_code)] // other tests use the rest
mod http;
mod install;
mod kubernetes;
mod lifecycle;
mod mounts;
mod node;
mod rotation;
mod stand_ins;

use node::Node;

type Case = fn(&mut Node) -> Result<()>;

/// Run in this order: the first cases install the provider, the last one uninstalls it.
const CASES: &[(&str, Case)] = &[
    (
        "a pod waits for the provider and starts once it runs",
        install::provider_after_driver,
    ),
    ("the release matches its chart", install::release),
    ("a pod reads what each mount case expects", mounts::table),
    (
        "two classes in one pod, and equal names in two namespaces",
        mounts::classes_and_namespaces,
    ),
    (
        "a pod cannot use a class of another namespace",
        mounts::foreign_class,
    ),
    (
        "a missing secret is reported, and the pod starts once it exists",
        mounts::created_later,
    ),
    ("the examples in manifests/ work", mounts::examples),
    (
        "a synced Secret becomes an environment variable",
        mounts::synced_secret,
    ),
    ("30 pods start at once", lifecycle::thirty_pods),
    (
        "the provider is killed while pods start and stop",
        lifecycle::killed,
    ),
    ("the driver restarts", lifecycle::driver_restarts),
    ("only root can create a socket", install::only_root),
    ("helm test passes", install::helm_test),
    ("helm upgrade keeps running pods working", install::upgrade),
    ("a new version reaches a running pod", lifecycle::rotation),
    (
        "20 pods get a new version with one value call",
        rotation::twenty_pods,
    ),
    ("an edited class reaches 20 pods", rotation::edits),
    (
        "the provider restarts while the cloud is unreachable",
        rotation::restart_in_outage,
    ),
    (
        "the API server and the leader restart",
        rotation::everything_restarts,
    ),
    (
        "200 pods start and stop during nudges",
        rotation::pods_under_nudges,
    ),
    ("the API server accepts all manifests", install::dry_run),
    (
        "the driver in a container, with kubelet's root behind a link as on CCE",
        cce::kubelet_root,
    ),
    (
        "a pod starts while the cloud is unreachable",
        lifecycle::outage,
    ),
    (
        "running pods keep their files after an uninstall",
        install::uninstall,
    ),
];

fn main() {
    // The cases block this thread; driver and registrar run on the workers.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("stand-in", rest)) = arguments.split_first().map(|(f, r)| (f.as_str(), r)) {
        if let Err(error) = runtime.block_on(stand_ins::run(rest)) {
            println!("{error:#}");
            std::process::exit(1);
        }
        return;
    }
    let is_wanted = |name: &str| {
        arguments.is_empty() || arguments.iter().any(|text| name.contains(text.as_str()))
    };
    let (mut passed, mut failed) = (0, 0);
    let mut node = match runtime.block_on(Node::start()) {
        Ok(node) => node,
        Err(error) => {
            println!("cannot set up the node: {error:#}");
            std::process::exit(1);
        }
    };
    let _entered = runtime.enter();
    for (name, case) in CASES.iter().filter(|(name, _)| is_wanted(name)) {
        let started = Instant::now();
        let result = case(&mut node);
        let seconds = started.elapsed().as_secs_f64();
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
