//! Random sequences of puts, edits, deletions, outages and restarts: at any time a pod's files match
//! one state of its class, never an older one than before, and in the end the newest.
//!
//! `DEW_SEEDS=50 cargo test rotation::random` tries more sequences.

use std::collections::BTreeMap;
use std::time::Duration;

use dew_provider::sim::csi_driver::PodVolume;
use fastrand::Rng;
use serde_json::json;

use crate::support::api_server::LEASES;
use crate::support::cluster::{Cluster, INTERVAL, SECOND, Setup};
use crate::support::test_node::files;

const SECRETS: [&str; 2] = ["a", "b"];
const STEPS: usize = 30;
const CLASS: &str = "app";

/// A class: its secrets, and whether each is pinned to v1.
type Spec = BTreeMap<&'static str, bool>;

/// The state that the test expects.
struct Model {
    rng: Rng,
    values: BTreeMap<&'static str, Values>,
    /// All states of the class, oldest first.
    specs: Vec<Spec>,
    /// Pods with their node, and the index of the oldest spec that their files may match.
    pods: Vec<(usize, PodVolume, usize)>,
    count: usize,
}

/// The values of a secret.
#[derive(Default)]
struct Values {
    all: Vec<String>,
    /// Those that were v1: a recreated secret starts at v1 again.
    first: Vec<String>,
    newest: String,
}

#[tokio::test]
async fn files_are_always_consistent_and_finally_the_newest() {
    let seeds = std::env::var("DEW_SEEDS").map_or(3, |text| text.parse().unwrap());
    for seed in 0..seeds {
        let cluster = Cluster::with(Setup {
            nodes: 2,
            seed,
            ..Setup::default()
        })
        .await;
        let mut model = Model {
            rng: Rng::with_seed(seed),
            values: BTreeMap::new(),
            specs: Vec::new(),
            pods: Vec::new(),
            count: 0,
        };
        model.run(cluster, seed).await;
    }
}

impl Model {
    async fn run(&mut self, mut cluster: Cluster, seed: u64) {
        for secret in SECRETS {
            self.create(&cluster, secret).await;
        }
        self.edit(&cluster);
        let mut log = Vec::new();
        for _ in 0..STEPS {
            log.push(self.step(&mut cluster).await);
            for _ in 0..self.rng.usize(1..20) {
                cluster.live(SECOND).await;
                self.check(seed, &log);
            }
        }
        // All outages end, and kubelet calls for every volume, as it does periodically.
        cluster.clear_faults().await;
        cluster.api.set_broken(None);
        for _ in 0..4 {
            cluster.live(INTERVAL).await;
            for (node, pod, _) in &self.pods {
                // The first calls may still fail with an earlier error.
                let _ = cluster.publish(*node, pod).await;
            }
        }
        cluster.live(12 * SECOND).await;
        self.check(seed, &log);
        self.check_newest(seed, &log);
    }

    async fn step(&mut self, cluster: &mut Cluster) -> String {
        let secret = SECRETS[self.rng.usize(..SECRETS.len())];
        let node = self.rng.usize(..cluster.nodes.len());
        match self.rng.u8(..20) {
            0..=4 => {
                let value = self.value(secret);
                let id = cluster.put(secret, value.as_str(), &[]).await;
                self.values.get_mut(secret).unwrap().newest = value;
                format!("{secret} is {id}")
            }
            5..=7 => self.edit(cluster),
            8 => {
                cluster.delete(secret).await;
                self.create(cluster, secret).await;
                format!("{secret} is recreated")
            }
            9..=10 => {
                for operation in ["ListSecretVersions", "ShowSecretVersion"] {
                    let rule = json!({"match": {"operation": operation}, "fault": {"status": 502}});
                    cluster.fault(rule).await;
                }
                "the cloud fails".into()
            }
            11..=12 => {
                cluster.clear_faults().await;
                "the cloud recovers".into()
            }
            13 => {
                cluster.api.set_broken(None);
                cluster.restart(node).await;
                format!("node {node} restarts")
            }
            14 => {
                cluster.api.0.end_watches();
                "watches end".into()
            }
            15 => {
                if let Some(mut lease) = cluster.api.0.list(LEASES).pop() {
                    lease["spec"]["holderIdentity"] = json!("thief");
                    cluster.api.0.put(LEASES, lease);
                }
                "the Lease is stolen".into()
            }
            16 => {
                cluster.api.set_broken(Some(500));
                cluster.live(Duration::from_secs(self.rng.u64(1..40))).await;
                cluster.api.set_broken(None);
                "the API server was down".into()
            }
            17..=18 => {
                self.count += 1;
                let pod = cluster.scheduled(node, CLASS, &self.count.to_string());
                // In an outage the pod may fail to start; kubelet would retry.
                if cluster.publish(node, &pod).await.is_ok() {
                    self.pods.push((node, pod, 0));
                }
                "a pod starts".into()
            }
            _ => {
                if !self.pods.is_empty() {
                    let at = self.rng.usize(..self.pods.len());
                    let (node, pod, _) = self.pods.remove(at);
                    cluster.end_pod(node, &pod);
                }
                "a pod ends".into()
            }
        }
    }

    async fn create(&mut self, cluster: &Cluster, secret: &'static str) {
        let value = self.value(secret);
        cluster.create(secret, value.as_str()).await;
        let values = self.values.get_mut(secret).unwrap();
        values.first.push(value.clone());
        values.newest = value;
    }

    /// A unique value, recorded before it is put, because a pod may read it a moment later.
    fn value(&mut self, secret: &'static str) -> String {
        self.count += 1;
        let value = format!("{secret}#{}", self.count);
        let values = self.values.entry(secret).or_default();
        values.all.push(value.clone());
        value
    }

    fn edit(&mut self, cluster: &Cluster) -> String {
        let mut spec = Spec::new();
        while spec.is_empty() {
            for secret in SECRETS {
                if self.rng.bool() {
                    spec.insert(secret, self.rng.u8(..3) == 0);
                }
            }
        }
        let objects: String = spec
            .iter()
            .map(|(secret, pinned)| {
                let version = if *pinned { "v1" } else { "latest" };
                format!("- {{objectName: {secret}, objectType: csms, objectVersion: {version}}}\n")
            })
            .collect();
        // Recorded before it is applied, as values are.
        self.specs.push(spec.clone());
        cluster.apply(CLASS, &[("objects", &objects)], &SECRETS);
        format!("class {spec:?}")
    }

    /// Every volume matches one state of the class, not older than the one it matched before.
    fn check(&mut self, seed: u64, log: &[String]) {
        for (_, pod, oldest) in &mut self.pods {
            let found: BTreeMap<String, String> = files(&pod.target_path)
                .into_iter()
                .map(|(path, _, contents)| (path, String::from_utf8(contents).unwrap()))
                .collect();
            let matches = |spec: &Spec| {
                spec.len() == found.len()
                    && spec.iter().all(|(secret, pinned)| {
                        let values = &self.values[secret];
                        let allowed = if *pinned { &values.first } else { &values.all };
                        found
                            .get(*secret)
                            .is_some_and(|value| allowed.contains(value))
                    })
            };
            let index = (*oldest..self.specs.len()).find(|index| matches(&self.specs[*index]));
            let Some(index) = index else {
                panic!("seed {seed}: {} has {found:?} after {log:#?}", pod.pod);
            };
            *oldest = index;
        }
    }

    /// Every file has the newest value that the class selects.
    fn check_newest(&self, seed: u64, log: &[String]) {
        let spec = self.specs.last().unwrap();
        for (_, pod, _) in &self.pods {
            let files = files(&pod.target_path);
            assert_eq!(files.len(), spec.len(), "seed {seed}: {}", pod.pod);
            for (path, _, contents) in files {
                let value = String::from_utf8(contents).unwrap();
                let values = &self.values[path.as_str()];
                let is_newest = match spec.get(path.as_str()) {
                    None => false,
                    Some(true) => values.first.contains(&value),
                    Some(false) => value == values.newest,
                };
                assert!(
                    is_newest,
                    "seed {seed}: {} has {path} {value} after {log:#?}",
                    pod.pod
                );
            }
        }
    }
}
