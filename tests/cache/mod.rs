//! The cache on its own: eviction, logging, and the snapshot file.

mod file;

use std::time::Duration;

use dew_provider::cache::{CacheKey, SecretCache};
use dew_provider::cloud::{
    AccessKeys, Caller, Cloud, CloudConfig, Credentials, Turn, VersionSelector,
};
use dew_provider::sim::huawei::{DEMO_ACCESS_KEY, DEMO_PROJECT, DEMO_REGION, DEMO_SECRET_KEY};
use dew_provider::telemetry::metrics::Metrics;
use dew_provider::util::clock::{Clock, Jitter};
use dew_provider::util::env::Env;
use tokio::time::Instant;

use crate::support::logs::Logs;
use crate::support::paused_clock::drive;
use crate::support::test_node::TestNode;

/// A cache with room for three values of 1000 bytes and their overhead.
struct SmallCache {
    node: TestNode,
    cache: SecretCache,
}

impl SmallCache {
    async fn new() -> Self {
        let node = TestNode::new().await;
        let metrics = Metrics::new();
        let config = CloudConfig::emulated(&node.emulator.url());
        let clock = Clock::from_tokio("2026-01-02T03:04:05Z".parse().unwrap());
        let (env, jitter) = (Env::default(), Jitter::seeded(1));
        let cloud = Cloud::new(config, &env, clock, jitter, metrics.cloud.clone()).unwrap();
        let cache = SecretCache::with_max_bytes(cloud, &metrics, Duration::ZERO, 5_000);
        Self { node, cache }
    }

    fn caller(namespace: &str) -> Caller {
        let keys = AccessKeys::new(DEMO_ACCESS_KEY, DEMO_SECRET_KEY, None, None);
        Caller {
            region: DEMO_REGION.parse().unwrap(),
            project: Some(DEMO_PROJECT.into()),
            credentials: Credentials::fixed(keys, "test"),
            turn: Turn::of(namespace),
        }
    }

    /// Whether it holds a secret, which is a use of it for the namespace.
    fn has(&self, namespace: &str, secret: &str) -> bool {
        let (caller, latest) = (Self::caller(namespace), VersionSelector::Latest);
        let key = CacheKey::new(&caller, &caller.credentials.identity(), secret, &latest);
        self.cache.peek(&caller, &key, None).is_some()
    }

    /// Fetches a new secret of 1000 bytes for a namespace.
    async fn fetch(&self, namespace: &str, secret: &str) {
        self.node.create(secret, "x".repeat(1000)).await;
        self.node.pass(Duration::from_secs(1)).await;
        let (caller, latest) = (Self::caller(namespace), VersionSelector::Latest);
        let key = CacheKey::new(&caller, &caller.credentials.identity(), secret, &latest);
        let deadline = Instant::now() + Duration::from_secs(45);
        drive(self.cache.get(&caller, key, None, deadline))
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn the_least_recently_used_version_is_evicted() {
    let cache = SmallCache::new().await;
    for secret in ["s0", "s1", "s2"] {
        cache.fetch("team", secret).await;
    }
    assert!(
        cache.has("team", "s0"),
        "this use protects it from eviction"
    );
    cache.fetch("team", "s3").await;
    let cached = ["s0", "s1", "s2", "s3"].map(|secret| cache.has("team", secret));
    assert_eq!(cached, [true, false, true, true]);
}

#[tokio::test]
async fn a_namespace_evicts_its_own_versions_before_those_of_others() {
    let cache = SmallCache::new().await;
    cache.fetch("honest", "own").await;
    cache.fetch("greedy", "shared").await;
    assert!(
        cache.has("honest", "shared"),
        "whoever fetched it, it is in use here too"
    );
    for i in 0..10 {
        cache.fetch("greedy", &format!("g{i}")).await;
    }
    assert!(cache.has("honest", "own"));
    assert!(cache.has("honest", "shared"));
    assert!(cache.has("greedy", "g9"));
    assert!(!cache.has("greedy", "g8"));
}

#[tokio::test]
async fn a_fetched_version_is_logged_with_its_request_id() {
    let node = TestNode::new().await;
    node.create("a", "one").await;
    node.apply_for(
        "app",
        "- {objectName: a, objectType: csms, objectVersion: latest}",
        &["a"],
    )
    .await;
    let logs = Logs::capture();
    node.publish(&node.pod("app", "1")).await.unwrap();
    let text = logs.text();
    let line = text
        .lines()
        .find(|line| line.contains("INFO") && line.contains(" fetched "))
        .unwrap();
    assert!(
        line.contains("secret=\"a\"") && line.contains("version=\"v1\""),
        "{line}"
    );
    let id = line
        .split("request_id=\"")
        .nth(1)
        .unwrap()
        .split('"')
        .next()
        .unwrap();
    let calls = node.control(http::Method::GET, "calls", "").await.json();
    let calls = calls["calls"].as_array().unwrap();
    assert!(
        calls.iter().any(|call| call["request_id"] == id),
        "{line} {calls:?}"
    );
}
