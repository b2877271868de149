//! A hostile namespace that does what it can, at random, beside honest ones: the honest lose nothing.
//!
//! `DEW_HOURS=168 cargo test hostile::tenants::soak` simulates a week; `DEW_CASES=50 cargo test
//! hostile::tenants::random` tries more sequences of edits.

use std::time::Duration;

use dew_provider::sim::csi_driver::PodVolume;
use fastrand::Rng;
use serde_json::json;
use tokio::time::Instant;

use super::cases;
use super::expressions::random_json;
use crate::support::api_server::{CLASSES, RECORDS};
use crate::support::cluster::{Cluster, INTERVAL, Setup, read};
use crate::support::http;

/// Honest namespaces. Each has a class, a ServiceAccount and a secret, all of its name, and a pod on each node.
const HONEST: usize = 10;
const HOSTILE: &str = "hostile";

/// What the test knows of the honest namespaces.
struct Honest {
    name: String,
    value: String,
    pods: Vec<PodVolume>,
}

fn object(secret: &str) -> String {
    format!("- {{objectName: {secret}, objectType: csms, objectVersion: latest}}\n")
}

fn put_class(cluster: &Cluster, namespace: &str, name: &str, objects: &str) {
    let parameters = [("objects".to_owned(), objects.to_owned())].into();
    cluster.api.put_class(namespace, name, &parameters);
}

async fn settle(cluster: &Cluster, count: usize) -> Vec<Honest> {
    let mut all = Vec::new();
    for index in 0..count {
        let name = format!("honest-{index}");
        let value = format!("{name} 0");
        cluster.create(&name, value.as_str()).await;
        put_class(cluster, &name, &name, &object(&name));
        let list = json!([name]).to_string();
        cluster.api.put_account(&name, &name, Some(&list));
        let mut pods = Vec::new();
        for node in 0..cluster.nodes.len() {
            let pod = PodVolume {
                namespace: name.clone(),
                ..cluster.scheduled(node, &name, &format!("{name}-{node}"))
            };
            cluster.put_pod(node, &pod, json!({}));
            cluster.publish(node, &pod).await.unwrap();
            pods.push(pod);
        }
        all.push(Honest { name, value, pods });
    }
    all
}

/// Any list of objects: valid ones, invalid ones, and text that is none.
fn random_objects(rng: &mut Rng) -> String {
    match rng.u8(..8) {
        0..=2 => (0..rng.usize(..30))
            .map(|_| object(&format!("h{}", rng.u8(..40))))
            .collect(),
        3 => object(&format!("honest-{}", rng.usize(..HONEST))),
        4 => random_json(rng, 4).to_string(),
        5 => format!("- {}", random_json(rng, 3)),
        6 => format!(
            "- {{objectName: h1, {}}}",
            (0..200).map(|i| format!("f{i}: 1,")).collect::<String>()
        ),
        _ => "- ".repeat(rng.usize(..2_000)),
    }
}

/// One thing that a tenant may do in the own namespace.
async fn attack(rng: &mut Rng, cluster: &Cluster) -> String {
    let name = format!("h{}", rng.u8(..20));
    let metadata = json!({"namespace": HOSTILE, "name": name, "uid": format!("{HOSTILE}/{name}")});
    match rng.u8(..10) {
        0..=2 => {
            put_class(cluster, HOSTILE, &name, &random_objects(rng));
            format!("class {name}")
        }
        3 => {
            let spec = random_json(rng, 4);
            let object = json!({
                "apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClass",
                "metadata": metadata, "spec": spec,
            });
            cluster.api.0.put(CLASSES, object);
            format!("class {name}: {spec}")
        }
        4 => {
            let list: Vec<String> = (0..40).map(|i| format!("h{i}")).collect();
            let list = match rng.u8(..3) {
                0 => random_json(rng, 2).to_string(),
                _ => json!(list).to_string(),
            };
            cluster.api.put_account(HOSTILE, &name, Some(&list));
            format!("account {name}: {list}")
        }
        5 => {
            let record = json!({
                "apiVersion": "secrets-store.csi.x-k8s.io/v1", "kind": "SecretProviderClassPodStatus",
                "metadata": metadata,
                "status": {"secretProviderClassName": format!("c{}", rng.u32(..)), "more": random_json(rng, 2)},
            });
            cluster.api.0.put(RECORDS, record);
            format!("record {name}")
        }
        6..=8 => {
            let uid = format!("{HOSTILE}-{}", rng.u8(..30));
            let node = rng.usize(..cluster.nodes.len());
            let pod = PodVolume {
                namespace: HOSTILE.into(),
                ..cluster.scheduled(node, &name, &uid)
            };
            cluster.put_pod(node, &pod, json!({}));
            let result = cluster.publish(node, &pod).await;
            if let Err(error) = &result {
                assert!(error.message().len() <= 12_000, "{}", error.message().len());
            }
            format!("pod {uid} of {name}: {}", result.is_ok())
        }
        _ => {
            for resource in [CLASSES, RECORDS, "serviceaccounts"] {
                cluster.api.0.remove(resource, HOSTILE, &name);
            }
            format!("{name} is deleted")
        }
    }
}

async fn is_ready(cluster: &Cluster, node: usize) -> bool {
    let address = cluster.nodes[node].provider.as_ref().unwrap().admin_address;
    let url = format!("http://{}/readyz", address.unwrap());
    crate::support::paused_clock::drive(http::get(&url))
        .await
        .status
        == 200
}

#[tokio::test]
async fn random_edits_of_a_tenant_do_others_no_harm() {
    for seed in 0..cases(2) as u64 {
        let mut rng = Rng::with_seed(seed);
        let cluster = Cluster::with(Setup {
            nodes: 2,
            seed,
            ..Setup::default()
        })
        .await;
        let mut honest = settle(&cluster, 3).await;
        let mut log: Vec<String> = Vec::new();
        for round in 0..4 {
            for _ in 0..25 {
                log.push(attack(&mut rng, &cluster).await);
                cluster.live(Duration::from_millis(rng.u64(..500))).await;
            }
            for node in 0..2 {
                assert!(is_ready(&cluster, node).await, "seed {seed}: {log:#?}");
            }
            // A new pod starts at once.
            let first = &honest[0];
            let pod = PodVolume {
                namespace: first.name.clone(),
                ..cluster.scheduled(0, &first.name, &format!("new-{round}"))
            };
            let began = Instant::now();
            cluster.publish(0, &pod).await.unwrap();
            assert!(
                began.elapsed() < Duration::from_secs(2),
                "seed {seed}: {log:#?}"
            );
            assert_eq!(read(&pod, &first.name), first.value);
        }
        // New versions arrive, and nothing tells of what the tenant did.
        for tenant in &mut honest {
            tenant.value = format!("{} new", tenant.name);
            cluster.put(&tenant.name, tenant.value.as_str(), &[]).await;
        }
        let arrived = || {
            let mut pods = honest
                .iter()
                .flat_map(|tenant| tenant.pods.iter().map(move |pod| (tenant, pod)));
            pods.all(|(tenant, pod)| read(pod, &tenant.name) == tenant.value)
        };
        cluster.until(3 * INTERVAL, arrived).await;
        for event in cluster.api.events() {
            let namespace = event["regarding"]["namespace"].as_str().unwrap_or_default();
            let note = event["note"].as_str().unwrap_or_default();
            assert!(note.len() <= 1024, "{event}");
            let is_failure = event["type"] == "Warning" && namespace != HOSTILE;
            assert!(!is_failure, "seed {seed}: {event}");
        }
    }
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = status.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Hours of a cluster; after the first one, nothing grows, and no new version is lost.
#[tokio::test]
async fn soak() {
    let hours = std::env::var("DEW_HOURS").map_or(2, |text| text.parse::<u64>().unwrap());
    let mut rng = Rng::with_seed(8);
    let cluster = Cluster::with(Setup {
        nodes: 1,
        ..Setup::default()
    })
    .await;
    let mut honest = settle(&cluster, HONEST).await;
    let mut after_the_first = 0;
    for hour in 0..hours {
        for quarter in 0..4 {
            for _ in 0..30 {
                attack(&mut rng, &cluster).await;
            }
            let changed = rng.usize(..honest.len());
            let tenant = &mut honest[changed];
            // A secret has at most 20 versions.
            if hour % 4 == 0 && quarter == 0 {
                cluster.delete(&tenant.name).await;
                tenant.value = format!("{} again {hour}", tenant.name);
                cluster.create(&tenant.name, tenant.value.as_str()).await;
            } else {
                tenant.value = format!("{} {hour}.{quarter}", tenant.name);
                cluster.put(&tenant.name, tenant.value.as_str(), &[]).await;
            }
            cluster.skip(Duration::from_secs(15 * 60)).await;
            let tenant = &honest[changed];
            for pod in &tenant.pods {
                assert_eq!(read(pod, &tenant.name), tenant.value, "hour {hour}");
            }
        }
        cluster.emulator.clear_calls();
        for event in cluster.api.events() {
            let name = event["metadata"]["name"].as_str().unwrap();
            let namespace = event["metadata"]["namespace"].as_str().unwrap_or_default();
            cluster
                .api
                .0
                .remove("events.events.k8s.io", namespace, name);
        }
        // The server keeps some changes for watches, and every provider has to list all again.
        cluster.api.0.forget_changes();
        cluster.skip(Duration::from_secs(60)).await;
        if hour == 0 {
            after_the_first = resident();
        }
    }
    // Besides the nodes, this process holds the cloud and the API server.
    let growth = resident().saturating_sub(after_the_first);
    assert!(
        growth <= after_the_first / 10,
        "{after_the_first} bytes after the first hour, then {growth} more"
    );
}
