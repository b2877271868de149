//! The manual's table of answers, row by row: each answer is produced, and the provider must do what its row
//! says. A row that cannot be produced fails too.

use std::time::Duration;

use dew_provider::cloud::{ApiError, Cloud, CloudConfig, Csms, SecretValue};
use dew_provider::sim::huawei::DEMO_PROJECT;
use dew_provider::telemetry::metrics::CloudMetrics;
use dew_provider::util::clock::Jitter;
use dew_provider::util::env::Env;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::support::cluster::{self, Cluster};
use crate::support::paused_clock::drive;
use crate::support::test_node::{Setup, TestNode, read};
use front::{Failure, Front, Switch};

mod front;

const PAGE: &str = include_str!("../../docs/src/cloud-answers.md");

const SECOND: Duration = Duration::from_secs(1);
/// After this time a new pod needs a confirmation of any version, and idle connections are closed.
const LONG: Duration = Duration::from_secs(3700);
/// The wait between two pods: the second "not found" counts only some seconds after the first.
const SHORT: Duration = Duration::from_secs(6);

/// A row of the page, for one of its answers.
#[derive(Debug)]
struct Row {
    section: &'static str,
    answer: &'static str,
    /// Attempts of a read, and of a write if the answer can be given to one.
    reads: u64,
    writes: Option<u32>,
    code: &'static str,
    last_good: &'static str,
}

/// All rows of one section.
fn rows(section: &str) -> Vec<Row> {
    let mut found = Vec::new();
    let mut current = "";
    for line in PAGE.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            current = title;
        }
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [answers, attempts, code, last_good, _] = cells.as_slice() else {
            continue;
        };
        let Some((reads, writes)) = attempts.split_once(" / ") else {
            continue;
        };
        if current != section {
            continue;
        }
        for answer in answers.split('`').skip(1).step_by(2) {
            found.push(Row {
                section: current,
                answer,
                reads: reads.parse().unwrap(),
                writes: writes.parse().ok(),
                code,
                last_good,
            });
        }
    }
    assert!(found.len() > 2, "{section}: {found:?}");
    found
}

/// How an answer is produced.
#[derive(Debug)]
enum Cause {
    Fault(Value),
    Failure(Failure),
}

/// A response of ShowSecretVersion.
fn version(metadata: Value, rest: Value) -> String {
    let mut version = json!({"version_metadata": metadata});
    for (key, value) in rest.as_object().unwrap() {
        version[key] = value.clone();
    }
    json!({"version": version}).to_string()
}

fn cause(row: &Row) -> Cause {
    let mut words = row.answer.split(' ');
    let first = words.next().unwrap();
    if let Ok(status) = first.parse::<u16>() {
        let rest: Vec<&str> = words.collect();
        return Cause::Fault(match (row.section, rest.as_slice()) {
            ("A proxy or load balancer", []) => json!({"status": status, "garbage": "html"}),
            ("IAM", []) => {
                let error = json!({"code": status, "message": "m", "title": "t"});
                json!({"status": status, "body": json!({"error": error}).to_string()})
            }
            ("The metadata service", text) => json!({"status": status, "message": text.join(" ")}),
            (_, [code]) => json!({"status": status, "code": code}),
            (_, [code, text @ ..]) => {
                json!({"status": status, "code": code, "message": text.join(" ")})
            }
            _ => panic!("{row:?}"),
        });
    }
    let v1 = json!({"id": "v1", "create_time": 1});
    let text = json!({"secret_string": "other"});
    let body = |text: String| json!({ "body": text });
    let fault = match row.answer {
        "clock off by 20 min" => json!({"clock_skew_seconds": 1200}),
        "expired temporary keys" => json!({"expire_tokens": true}),
        "no response" => json!({"delay_ms": 60_000}),
        "connection reset" => json!({"reset": true}),
        "connection closed inside the body" => json!({"truncate": 20}),
        "connection closed before the body" => json!({"truncate": 0}),
        "body too slow" => json!({"slow_body": {"chunk_bytes": 1, "delay_ms": 500}}),
        "Content-Length too small" => json!({"wrong_content_length": true}),
        "not JSON" => json!({"garbage": "json"}),
        "HTML" => json!({"garbage": "html"}),
        "empty body" => body(String::new()),
        "empty object" => body("{}".to_owned()),
        "null" => body("null".to_owned()),
        "error with status 200" => {
            body(json!({"error_code": "CSMS.0106", "error_msg": "none"}).to_string())
        }
        "more than 1 MiB" => body(version(v1, json!({"secret_string": "x".repeat(1_100_000)}))),
        "no value" => body(version(v1, json!({}))),
        "two values" => {
            let both = json!({"secret_string": "other", "secret_binary": "AAAA"});
            body(version(v1, both))
        }
        "not Base64" => body(version(v1, json!({"secret_binary": "?"}))),
        "another secret's name" => {
            let other = json!({"id": "v1", "create_time": 1, "secret_name": "other"});
            body(version(other, text))
        }
        "another version" => body(version(json!({"id": "v2", "create_time": 1}), text)),
        "an invalid version ID" => body(version(json!({"id": "1", "create_time": 1}), text)),
        "no creation time" => body(version(json!({"id": "v1"}), text)),
        "empty list" => body(json!({"version_metadatas": [], "page_info": {}}).to_string()),
        "list null" => body(json!({"version_metadatas": null}).to_string()),
        "list of another secret" => {
            let other = json!({"id": "v1", "create_time": 1, "secret_name": "other"});
            body(json!({"version_metadatas": [other]}).to_string())
        }
        "no project" => body(json!({"projects": []}).to_string()),
        "two projects" => body(json!({"projects": [{"id": "p1"}, {"id": "p2"}]}).to_string()),
        "an invalid project ID" => body(json!({"projects": [{"id": "../x"}]}).to_string()),
        "expired keys" => {
            let keys = json!({"access": "a", "secret": "s", "securitytoken": "t",
                "expires_at": "2020-01-08T03:16:01.599000Z"});
            body(json!({ "credential": keys }).to_string())
        }
        other => {
            return Cause::Failure(match other {
                "connection refused" => Failure::Refused,
                "unknown host name" => Failure::UnknownName,
                "no connection within 3 s" => Failure::NoConnection,
                "TLS handshake failure" => Failure::Handshake,
                "untrusted certificate" => Failure::Untrusted,
                "not HTTP" => Failure::NotHttp,
                "tunnel refused with 403" => Failure::Tunnel(403),
                "tunnel refused with 407" => Failure::Tunnel(407),
                "tunnel refused with 502" => Failure::Tunnel(502),
                _ => panic!("no way to produce {row:?}"),
            });
        }
    };
    Cause::Fault(fault)
}

/// A node, and what makes it fail.
struct Stage {
    node: TestNode,
    switch: Switch,
    /// Where the provider reaches CSMS, for a client that writes.
    config: CloudConfig,
    env: Vec<(&'static str, String)>,
    _front: Option<Front>,
    _snapshot: Option<TempDir>,
}

impl Stage {
    async fn new(row: &Row) -> Self {
        let switch = Switch::default();
        let mut setup = Setup {
            dial: Some(front::dial(switch.clone())),
            ..Setup::default()
        };
        if row.answer == "expired temporary keys" || row.section == "The metadata service" {
            setup.env.clear();
        }
        let needs_front = matches!(
            cause(row),
            Cause::Failure(
                Failure::Handshake | Failure::Untrusted | Failure::NotHttp | Failure::Tunnel(_)
            )
        );
        let front = match needs_front {
            true => Some(Front::start(switch.clone()).await),
            false => None,
        };
        if let Some(front) = &front {
            setup.csms_endpoint = Some(front.endpoint.clone());
            setup.ca_bundle = Some(front.ca());
            if matches!(cause(row), Cause::Failure(Failure::Tunnel(_))) {
                setup.env.push(("HTTPS_PROXY", front.proxy.clone()));
            }
        }
        let mut snapshot = None;
        if ["IAM", "The metadata service"].contains(&row.section) {
            let dir = tempfile::tempdir_in("/dev/shm").unwrap();
            setup.store_dir = Some(dir.path().to_owned());
            snapshot = Some(dir);
        } else {
            // Otherwise IAM is asked for it first.
            setup.project = Some(DEMO_PROJECT);
        }
        let env = setup.env.clone();
        let node = TestNode::with(setup).await;
        if let Some(front) = &front {
            front.set_backend(&node.emulator.url());
        }
        let version = match row.answer {
            "another version" => "v1",
            _ => "latest",
        };
        let objects = format!("- {{objectName: a, objectType: csms, objectVersion: {version}}}");
        node.create("a", "the value").await;
        node.create("written", "x").await;
        node.apply_for("app", &objects, &["a"]).await;
        Self {
            config: node.launch.config.cloud.clone(),
            switch,
            env,
            node,
            _front: front,
            _snapshot: snapshot,
        }
    }

    /// Lets the calls of these operations fail, and no others.
    async fn fail(&self, cause: &Cause, operations: &[&str]) {
        self.recover().await;
        match cause {
            Cause::Failure(failure) => *self.switch.lock().unwrap() = Some(*failure),
            Cause::Fault(fault) => {
                for operation in operations {
                    let rule = json!({"match": {"operation": operation}, "fault": fault});
                    self.node.fault(rule).await;
                }
            }
        }
    }

    /// Ends the failure, and waits until the provider no longer remembers a rejection.
    async fn recover(&self) {
        *self.switch.lock().unwrap() = None;
        self.node.clear_faults().await;
        self.node.pass(60 * SECOND).await;
    }

    /// Attempts of an operation so far.
    async fn attempts(&self, operation: &str) -> u64 {
        let label = format!("dew_provider_cloud_calls_total{{operation=\"{operation}\",");
        let metrics = self.node.metrics().await;
        let lines = metrics.lines().filter(|line| line.starts_with(&label));
        lines
            .map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap())
            .sum()
    }

    /// The gRPC code of a new pod's Mount: `OK` if it gets the value.
    async fn mount(&self, uid: &str) -> String {
        let pod = self.node.pod("app", uid);
        match self.node.publish(&pod).await {
            Ok(()) => {
                assert_eq!(read(&pod, "a"), "the value");
                "OK".to_owned()
            }
            Err(status) => format!("{:?}", status.code()),
        }
    }

    /// Writes a version with a client of its own.
    async fn write(&self) -> Result<(), ApiError> {
        let cloud = Cloud::with_dial(
            self.config.clone(),
            &Env::from_pairs(self.env.clone()),
            self.node.launch.dependencies.clock.clone(),
            Jitter::seeded(3),
            CloudMetrics::default(),
            front::dial(self.switch.clone()),
        )
        .unwrap();
        let value = SecretValue::Text("y".to_owned().into());
        let deadline = Instant::now() + 45 * SECOND;
        let (csms, caller) = (Csms::new(cloud), &self.node.owner.caller);
        let call = csms.create_secret_version(caller, "written", value, &[], deadline);
        drive(call).await.map(drop)
    }
}

/// Whether CSMS or something between gives the answer to a read or a write: what a Mount, a write and later
/// Mounts do.
async fn walk(row: &Row) {
    let context = format!("{row:?}");
    let stage = Stage::new(row).await;
    let cause = cause(row);
    let operations = ["ShowSecretVersion", "CreateSecretVersion"];
    // Without a value from earlier.
    stage.fail(&cause, &operations).await;
    assert_eq!(stage.mount("1").await, row.code, "{context}");
    let attempts = stage.attempts("ShowSecretVersion").await;
    assert_eq!(attempts, row.reads, "{context}");
    if let Some(writes) = row.writes {
        let error = stage.write().await.expect_err(&context);
        assert_eq!(error.attempts, writes, "{context}: {error}");
    }
    // With one.
    stage.recover().await;
    assert_eq!(stage.mount("2").await, "OK", "{context}");
    stage.node.pass(LONG).await;
    stage.fail(&cause, &operations).await;
    let with_value = stage.mount("3").await;
    let outage = Cause::Fault(json!({"status": 502}));
    if row.last_good == "kept" {
        assert_eq!(with_value, "OK", "{context}");
        stage.fail(&outage, &operations).await;
        assert_eq!(stage.mount("4").await, "OK", "{context}");
        return;
    }
    assert_eq!(with_value, row.code, "{context}");
    if row.last_good == "ended by the second" {
        stage.fail(&outage, &operations).await;
        assert_eq!(stage.mount("5").await, "OK", "{context}: after the first");
        stage.node.pass(11 * SECOND).await;
        for uid in ["6", "7"] {
            stage.fail(&cause, &operations).await;
            assert_eq!(stage.mount(uid).await, row.code, "{context}");
            stage.node.pass(SHORT).await;
        }
    } else {
        assert_eq!(row.last_good, "ended", "{context}");
    }
    stage.node.pass(60 * SECOND).await;
    stage.fail(&outage, &operations).await;
    assert_eq!(stage.mount("8").await, "Internal", "{context}");
}

/// A service that is asked before CSMS: its answer fails a new provider, which has a snapshot.
async fn walk_before_csms(row: &Row, operation: &str) {
    let context = format!("{row:?}");
    let stage = Stage::new(row).await;
    let cause = cause(row);
    stage.fail(&cause, &[operation]).await;
    assert_eq!(stage.mount("1").await, row.code, "{context}");
    assert_eq!(stage.attempts(operation).await, row.reads, "{context}");
    if row.last_good == "–" {
        return;
    }
    assert_eq!(row.last_good, "kept", "{context}");
    stage.recover().await;
    stage.node.pass(LONG).await;
    assert_eq!(stage.mount("2").await, "OK", "{context}");
    drive(tokio::time::sleep(SHORT)).await;
    stage.fail(&cause, &[operation]).await;
    let node = stage.node.restart_provider(|_| {}).await;
    let stage = Stage { node, ..stage };
    assert_eq!(stage.mount("3").await, "OK", "{context}");
}

#[tokio::test]
async fn csms_does_what_its_rows_say() {
    for row in rows("CSMS") {
        walk(&row).await;
    }
}

#[tokio::test]
async fn the_gateway_does_what_its_rows_say() {
    for row in rows("The API gateway") {
        walk(&row).await;
    }
}

#[tokio::test]
async fn a_proxy_does_what_its_rows_say() {
    for row in rows("A proxy or load balancer") {
        walk(&row).await;
    }
}

#[tokio::test]
async fn no_answer_does_what_its_rows_say() {
    for row in rows("No answer") {
        walk(&row).await;
    }
}

#[tokio::test]
async fn a_wrong_answer_does_what_its_rows_say() {
    for row in rows("An answer with status 200 that is wrong") {
        walk(&row).await;
    }
}

#[tokio::test]
async fn iam_does_what_its_rows_say() {
    for row in rows("IAM") {
        walk_before_csms(&row, "KeystoneListProjects").await;
    }
}

#[tokio::test]
async fn the_metadata_service_does_what_its_rows_say() {
    for mut row in rows("The metadata service") {
        let (operation, answer) = row.answer.split_once(": ").unwrap();
        row.answer = answer;
        walk_before_csms(&row, operation).await;
    }
}

/// The leader polls lists. What its rows say is seen on an optional file, which goes only with its value.
#[tokio::test]
async fn a_list_of_the_leader_does_what_its_rows_say() {
    for row in rows("A list of versions that is wrong") {
        let Cause::Fault(fault) = cause(&row) else {
            panic!("{row:?}");
        };
        let cluster = Cluster::of(1).await;
        cluster.create("a", "the value").await;
        let objects = "- {objectName: a, objectType: csms, objectVersion: latest, optional: true}";
        cluster.apply("app", &[("objects", objects)], &["a"]);
        let pod = cluster.pod(0, "app", "1").await;
        cluster.live(2 * cluster::INTERVAL).await;
        let before = cluster.emulator.answers("ListSecretVersions").len();
        let rule = json!({"match": {"operation": "ListSecretVersions"}, "times": row.reads, "fault": fault});
        cluster.fault(rule).await;
        cluster.live(cluster::INTERVAL).await;
        let attempts = cluster.emulator.answers("ListSecretVersions").len() - before;
        assert_eq!(attempts as u64, row.reads, "{row:?}");
        let rule = json!({"match": {"operation": "ListSecretVersions"}, "fault": fault});
        cluster.fault(rule).await;
        cluster.live(3 * cluster::INTERVAL).await;
        let ready = &cluster.revision("a").unwrap()["status"]["conditions"][0];
        assert_eq!(ready["reason"], "Malformed", "{row:?}");
        cluster.fault(json!({"fault": {"status": 502}})).await;
        cluster.publish(0, &pod).await.unwrap();
        let new = cluster.pod(0, "app", "2").await;
        for pod in [&pod, &new] {
            assert_eq!(row.last_good, "kept");
            assert_eq!(cluster::read(pod, "a"), "the value", "{row:?}");
        }
    }
}

/// The leader and the nodes get the answers too, in the background, and must come to the same end.
#[tokio::test]
async fn rotation_keeps_and_ends_values_as_the_rows_say() {
    let sections = ["CSMS", "The API gateway", "A proxy or load balancer"];
    let rows = sections.into_iter().flat_map(rows);
    let rows = rows.filter(|row| row.answer.starts_with(char::is_numeric));
    let rows: Vec<(String, Row)> = rows
        .enumerate()
        .map(|(index, row)| (format!("secret-{index}"), row))
        .collect();
    let cluster = Cluster::of(1).await;
    for (name, _) in &rows {
        cluster.create(name, "the value").await;
        cluster.apply_one(name, name, "objectVersion: latest");
        cluster.pod(0, name, &format!("{name}-1")).await;
    }
    cluster.live(2 * cluster::INTERVAL).await;
    for (name, row) in &rows {
        let Cause::Fault(fault) = cause(row) else {
            panic!("{row:?}");
        };
        let rule = json!({"match": {"secret": name}, "fault": fault});
        cluster.fault(rule).await;
    }
    cluster.live(4 * cluster::INTERVAL).await;
    cluster.clear_faults().await;
    cluster.fault(json!({"fault": {"status": 502}})).await;
    cluster.live(20 * SECOND).await;
    for (name, row) in &rows {
        let pod = cluster.scheduled(0, name, &format!("{name}-2"));
        let result = cluster.publish(0, &pod).await;
        assert_eq!(
            result.is_ok(),
            row.last_good == "kept",
            "{row:?}: {result:?}"
        );
    }
}

/// Every code of the error texts' page has a row.
#[test]
fn every_code_of_the_error_page_has_a_row() {
    let errors = include_str!("../../docs/src/errors.md");
    let codes = errors.split("HTTP ").skip(1);
    let mut seen = 0;
    for text in codes {
        let mut words = text.split([' ', '`', ';', ',']);
        let (status, code) = (words.next().unwrap(), words.next().unwrap_or_default());
        if status.parse::<u16>().is_ok() && code.contains('.') {
            seen += 1;
            let answer = format!("`{status} {code}");
            assert!(PAGE.contains(&answer), "{answer} has no row");
        }
    }
    assert!(seen > 5, "{seen}");
}
