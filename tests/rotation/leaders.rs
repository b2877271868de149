//! Leaders that stop, crash, lose the Lease, or are cut off from the API server or the cloud.

use dew_provider::sim::csi_driver::PodVolume;
use serde_json::json;

use crate::support::api_server::{LEASES, REVISIONS};
use crate::support::cluster::{Cluster, INTERVAL, SECOND, read};

/// A cluster with a pod on each node, after two intervals.
async fn cluster(nodes: usize) -> (Cluster, Vec<PodVolume>) {
    let cluster = Cluster::of(nodes).await;
    cluster.create("a", "one").await;
    cluster.apply_one("app", "a", "objectVersion: latest");
    let mut pods = Vec::new();
    for node in 0..nodes {
        pods.push(cluster.pod(node, "app", &node.to_string()).await);
    }
    cluster.live(2 * INTERVAL).await;
    (cluster, pods)
}

/// The index of the leader's node.
fn index(leader: &str) -> usize {
    leader.strip_prefix("node-").unwrap().parse().unwrap()
}

/// The number of nodes that report to be the leader.
async fn leaders(cluster: &Cluster) -> usize {
    let mut count = 0.0;
    for node in 0..cluster.nodes.len() {
        count += cluster.metric(node, "dew_provider_rotation_leader").await;
    }
    count as usize
}

#[tokio::test]
async fn there_is_one_leader_and_a_stopped_one_is_replaced_at_once() {
    let (mut cluster, pods) = cluster(3).await;
    assert_eq!(leaders(&cluster).await, 1);
    let first = cluster.leader();
    cluster.restart(index(&first)).await;
    cluster.live(10 * SECOND).await;
    assert_eq!(leaders(&cluster).await, 1);
    // A restarted provider learns about a volume from kubelet's next call.
    let first = index(&first);
    cluster.publish(first, &pods[first]).await.unwrap();
    cluster.put("a", "two", &[]).await;
    cluster
        .until(INTERVAL + 6 * SECOND, || {
            pods.iter().all(|pod| read(pod, "a") == "two")
        })
        .await;
}

#[tokio::test]
async fn a_leader_that_lost_the_lease_stops_polling_at_its_next_renewal() {
    let (cluster, _pods) = cluster(2).await;
    let mut lease = cluster.api.0.list(LEASES).remove(0);
    lease["spec"]["holderIdentity"] = json!("node-9_thief");
    cluster.api.0.put(LEASES, lease);
    cluster.live(15 * SECOND).await;
    assert_eq!(leaders(&cluster).await, 0);
    cluster.clear_calls().await;
    // The thief never renews.
    cluster.live(20 * SECOND).await;
    assert_eq!(cluster.calls("ListSecretVersions").await, 0);
    cluster.live(15 * SECOND).await;
    assert_eq!(leaders(&cluster).await, 1);
    let lease = cluster.api.0.list(LEASES).remove(0);
    assert_eq!(lease["spec"]["leaseTransitions"], 1);
}

#[tokio::test]
async fn a_leader_that_cannot_renew_steps_down_before_the_lease_expires() {
    let (cluster, pods) = cluster(2).await;
    cluster.api.set_broken(Some(500));
    cluster.live(35 * SECOND).await;
    assert_eq!(leaders(&cluster).await, 0);
    // In a long outage of the API server, each node polls on its own.
    cluster.put("a", "two", &[]).await;
    cluster.live(3 * INTERVAL).await;
    // Delivery is checked once the API server is back.
    cluster.api.set_broken(None);
    cluster.live(INTERVAL).await;
    assert_eq!(leaders(&cluster).await, 1);
    assert!(pods.iter().all(|pod| read(pod, "a") == "two"));
}

#[tokio::test]
async fn a_crashed_leader_is_replaced_within_two_intervals() {
    let (mut cluster, pods) = cluster(3).await;
    let first = index(&cluster.leader());
    // A crash does not release the Lease.
    let lease = cluster.api.0.list(LEASES).remove(0);
    drop(cluster.nodes.remove(first));
    cluster.live(SECOND).await;
    cluster.api.0.put(LEASES, lease);
    cluster.put("a", "two", &[]).await;
    let mut others = pods.clone();
    others.remove(first);
    cluster
        .until(2 * INTERVAL, || {
            others.iter().all(|pod| read(pod, "a") == "two")
        })
        .await;
}

#[tokio::test]
async fn ended_watches_are_restarted() {
    let (cluster, pods) = cluster(2).await;
    for value in ["two", "three"] {
        cluster.api.0.end_watches();
        cluster.put("a", value, &[]).await;
        cluster
            .until(INTERVAL + 20 * SECOND, || {
                pods.iter().all(|pod| read(pod, "a") == value)
            })
            .await;
    }
}

#[tokio::test]
async fn a_leader_that_cannot_reach_the_cloud_is_replaced() {
    let (cluster, pods) = cluster(2).await;
    let first = cluster.leader();
    // Only the leader is cut off from the cloud.
    cluster.nodes[index(&first)].cut(true);
    cluster.live(5 * INTERVAL).await;
    assert_ne!(cluster.leader(), first);
    cluster.put("a", "two", &[]).await;
    let other = &pods[1 - index(&first)];
    cluster
        .until(2 * INTERVAL, || read(other, "a") == "two")
        .await;
    assert_eq!(leaders(&cluster).await, 1);
}

#[tokio::test]
async fn a_deleted_secret_revision_is_recreated() {
    let (cluster, pods) = cluster(2).await;
    let revision = cluster.revision("a").unwrap();
    let name = revision["metadata"]["name"].as_str().unwrap();
    cluster.api.0.remove(REVISIONS, "", name);
    cluster.live(2 * SECOND).await;
    assert_eq!(cluster.revision("a").unwrap()["status"]["version"], "v1");
    cluster.put("a", "two", &[]).await;
    cluster
        .until(INTERVAL + 6 * SECOND, || {
            pods.iter().all(|pod| read(pod, "a") == "two")
        })
        .await;
}

#[tokio::test]
async fn rotation_survives_a_deleted_lease_and_expired_watches() {
    let (cluster, pods) = cluster(2).await;
    cluster.api.0.remove(LEASES, "kube-system", "dew-provider");
    cluster.api.0.forget_changes();
    cluster.live(2 * INTERVAL).await;
    assert_eq!(leaders(&cluster).await, 1);
    cluster.put("a", "two", &[]).await;
    cluster
        .until(2 * INTERVAL, || {
            pods.iter().all(|pod| read(pod, "a") == "two")
        })
        .await;
}

/// In the interval after a change of leaders, a secret is polled at most three times.
#[tokio::test]
async fn a_change_of_leaders_causes_few_extra_polls() {
    let (mut cluster, _pods) = cluster(3).await;
    for _ in 0..3 {
        cluster.clear_calls().await;
        let leader = index(&cluster.leader());
        cluster.restart(leader).await;
        cluster.live(INTERVAL).await;
        let calls = cluster.calls("ListSecretVersions").await;
        assert!((1..=3).contains(&calls), "{calls}");
    }
}

#[tokio::test]
async fn a_leader_that_may_not_list_service_accounts_resigns() {
    let mut cluster = Cluster::of(2).await;
    cluster.create("a", "one").await;
    cluster.apply_one("app", "a", "objectVersion: latest");
    cluster.pod(0, "app", "1").await;
    cluster.live(2 * INTERVAL).await;
    cluster.api.0.fail_resource("serviceaccounts", Some(403));
    let leader = usize::from(cluster.leader() != "node-0");
    cluster.restart(leader).await;
    let before = cluster.leader();
    let mut leaders = vec![before];
    for _ in 0..20 {
        cluster.live(INTERVAL / 4).await;
        leaders.push(cluster.leader());
    }
    leaders.dedup();
    assert!(leaders.len() > 2, "{leaders:?}");
}

#[tokio::test]
async fn a_leader_that_had_nothing_to_poll_does_not_resign_at_the_next_poll() {
    let cluster = Cluster::of(2).await;
    cluster.create("a", "one").await;
    cluster.create("b", "one").await;
    cluster.apply_one("app", "a", "objectVersion: latest");
    cluster.apply_one("other", "b", "objectVersion: latest");
    let pod = cluster.pod(0, "app", "1").await;
    cluster.live(2 * INTERVAL).await;
    let fault =
        serde_json::json!({"match": {"operation": "ListSecretVersions"}, "fault": {"status": 502}});
    cluster.fault(fault).await;
    cluster.live(INTERVAL + 10 * SECOND).await;
    cluster.end_pod(0, &pod);
    cluster.live(2 * SECOND).await;
    cluster.clear_faults().await;
    cluster.live(20 * INTERVAL).await;
    let leader = cluster.leader();
    cluster.pod(1, "other", "2").await;
    cluster.live(10 * SECOND).await;
    assert_eq!(cluster.leader(), leader);
    assert!(cluster.revision("b").is_some());
}
