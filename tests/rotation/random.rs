//! Random sequences of what may happen: whatever it is, a pod's files are one whole state that its
//! class allowed, never an older class than it had, and in the end the newest.
//!
//! `DEW_SEEDS=50 cargo test rotation::random` tries more of them.

use std::collections::BTreeMap;
use std::time::Duration;

use dew_provider::driver::PodVolume;
use fastrand::Rng;
use serde_json::json;

use super::super::support::api_server::LEASES;
use super::super::support::cluster::{Cluster, INTERVAL, SECOND, Setup};
use super::super::support::world::files;

const SECRETS: [&str; 2] = ["a", "b"];
const STEPS: usize = 30;
const CLASS: &str = "app";

/// What a class says: secrets, each pinned to v1 or not.
type Spec = BTreeMap<&'static str, bool>;

/// What is true, as the test knows it.
struct Truth {
    rng: Rng,
    /// Values of each secret: all ever, those that were v1, and the newest.
    values: BTreeMap<&'static str, Values>,
    /// All that the class ever said.
    specs: Vec<Spec>,
    /// Pods with their node, and the oldest class that their files may be of.
    pods: Vec<(usize, PodVolume, usize)>,
    count: usize,
}

#[derive(Default)]
struct Values {
    all: Vec<String>,
    first: Vec<String>,
    newest: String,
}

#[tokio::test]
async fn files_are_whole_allowed_and_in_the_end_the_newest() {
    let seeds = std::env::var("DEW_SEEDS").map_or(3, |text| text.parse().unwrap());
    for seed in 0..seeds {
        let cluster = Cluster::with(Setup {
            nodes: 2,
            seed,
            ..Setup::default()
        })
        .await;
        let mut truth = Truth {
            rng: Rng::with_seed(seed),
            values: BTreeMap::new(),
            specs: Vec::new(),
            pods: Vec::new(),
            count: 0,
        };
        truth.run(cluster, seed).await;
    }
}

impl Truth {
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
        // All is well again, and kubelet looks after every volume, as it always does.
        cluster.clear_faults().await;
        cluster.api.set_broken(None);
        for _ in 0..4 {
            cluster.live(INTERVAL).await;
            for (node, pod, _) in &self.pods {
                // A class that was wrong for a while may still be told as such.
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
                format!("{secret} anew")
            }
            9..=10 => {
                for operation in ["ListSecretVersions", "ShowSecretVersion"] {
                    let rule = json!({"match": {"operation": operation}, "fault": {"status": 502}});
                    cluster.fault(rule).await;
                }
                "outage".into()
            }
            11..=12 => {
                cluster.clear_faults().await;
                "outage over".into()
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
                "the API server was away".into()
            }
            17..=18 => {
                self.count += 1;
                let pod = cluster.scheduled(node, CLASS, &self.count.to_string());
                // In an outage it may not start; then kubelet would try again.
                if cluster.publish(node, &pod).await.is_ok() {
                    self.pods.push((node, pod, 0));
                }
                "a pod".into()
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

    /// A value that is like no other, known before it is put: a pod may have it a moment later.
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
        // Noted first, as the values are.
        self.specs.push(spec.clone());
        cluster.apply(CLASS, &[("objects", &objects)], &SECRETS);
        format!("class {spec:?}")
    }

    /// Every volume is of one class, not older than the one that it was of.
    fn check(&mut self, seed: u64, log: &[String]) {
        for (_, pod, oldest) in &mut self.pods {
            let found: BTreeMap<String, String> = files(&pod.target_path)
                .into_iter()
                .map(|(path, _, contents)| (path, String::from_utf8(contents).unwrap()))
                .collect();
            let fits = |spec: &Spec| {
                spec.len() == found.len()
                    && spec.iter().all(|(secret, pinned)| {
                        let values = &self.values[secret];
                        let allowed = if *pinned { &values.first } else { &values.all };
                        found
                            .get(*secret)
                            .is_some_and(|value| allowed.contains(value))
                    })
            };
            let of = (*oldest..self.specs.len()).find(|index| fits(&self.specs[*index]));
            let Some(of) = of else {
                panic!("seed {seed}: {} has {found:?} after {log:#?}", pod.pod);
            };
            *oldest = of;
        }
    }

    fn check_newest(&self, seed: u64, log: &[String]) {
        let spec = self.specs.last().unwrap();
        for (_, pod, _) in &self.pods {
            for (path, _, contents) in files(&pod.target_path) {
                let value = String::from_utf8(contents).unwrap();
                let values = &self.values[path.as_str()];
                let right = match spec.get(path.as_str()) {
                    None => false,
                    Some(true) => values.first.contains(&value),
                    Some(false) => value == values.newest,
                };
                assert!(
                    right,
                    "seed {seed}: {} has {path} {value} after {log:#?}",
                    pod.pod
                );
            }
        }
    }
}
