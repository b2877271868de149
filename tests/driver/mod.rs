//! The simulated CSI driver behaves like the real one (Secrets Store CSI Driver v1.6.0).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dew_provider::node::socket;
use dew_provider::proto::csi_driver_provider_server::{CsiDriverProvider, CsiDriverProviderServer};
use dew_provider::proto::{Error, File, MountRequest, MountResponse, ObjectVersion};
use dew_provider::proto::{VersionRequest, VersionResponse};
use dew_provider::sim::csi_driver::{Driver, DriverConfig, PodVolume};
use dew_provider::util::clock::Clock;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};

use crate::support::paused_clock::{PausedClock, drive};
use crate::support::test_node::{files, read};

type MountResult = Result<MountResponse, Status>;

/// A provider that returns a preset result and records requests.
#[derive(Clone)]
struct FakeProvider(Arc<Mutex<(MountResult, Vec<MountRequest>)>>);

#[tonic::async_trait]
impl CsiDriverProvider for FakeProvider {
    async fn version(
        &self,
        _: Request<VersionRequest>,
    ) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(VersionResponse::default()))
    }

    async fn mount(
        &self,
        request: Request<MountRequest>,
    ) -> Result<Response<MountResponse>, Status> {
        let mut state = self.0.lock().unwrap();
        state.1.push(request.into_inner());
        state.0.clone().map(Response::new)
    }
}

struct Node {
    provider: FakeProvider,
    driver: Driver,
    folder: tempfile::TempDir,
    _paused: PausedClock,
}

fn response(files: &[(&str, &[u8])]) -> MountResponse {
    MountResponse {
        object_version: vec![ObjectVersion {
            id: "o".into(),
            version: "v1".into(),
        }],
        error: None,
        files: files
            .iter()
            .map(|(path, contents)| File {
                path: (*path).into(),
                mode: 0o644,
                contents: Bytes::copy_from_slice(contents),
            })
            .collect(),
    }
}

impl Node {
    fn new(rotation: bool) -> Self {
        let paused = PausedClock::new();
        let folder = tempfile::tempdir().unwrap();
        let provider = FakeProvider(Arc::new(Mutex::new((
            Ok(response(&[("a", b"one")])),
            Vec::new(),
        ))));
        let incoming = socket::bind(&folder.path().join("cce.sock"))
            .unwrap()
            .incoming();
        let service =
            CsiDriverProviderServer::new(provider.clone()).max_encoding_message_size(usize::MAX);
        tokio::spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming),
        );
        let config = DriverConfig {
            rotation,
            ..DriverConfig::new(folder.path())
        };
        let driver = Driver::new(
            config,
            Clock::from_tokio("2026-01-02T03:04:05Z".parse().unwrap()),
        );
        let parameters = [("objects", "x"), ("region", "r1")];
        let parameters = parameters.map(|(k, v)| (k.to_owned(), v.to_owned()));
        driver.apply("ns", "class", "cce", parameters.into());
        Self {
            provider,
            driver,
            folder,
            _paused: paused,
        }
    }

    fn pod(&self) -> PodVolume {
        PodVolume {
            namespace: "ns".into(),
            pod: "p".into(),
            uid: "u".into(),
            service_account: "sa".into(),
            class: "class".into(),
            attributes: BTreeMap::new(),
            secrets: None,
            target_path: self.folder.path().join("mount"),
        }
    }

    /// Sets the result of the following requests.
    fn respond(&self, result: MountResult) {
        self.provider.0.lock().unwrap().0 = result;
    }

    /// The requests so far.
    fn requests(&self) -> Vec<MountRequest> {
        self.provider.0.lock().unwrap().1.clone()
    }

    async fn publish(&self, pod: &PodVolume) -> Result<(), Status> {
        drive(self.driver.publish_as_kubelet(pod)).await
    }
}

/// Advances time.
async fn pass(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

#[tokio::test]
async fn a_request_has_the_fields_of_the_real_driver() {
    let node = Node::new(true);
    let mut pod = node.pod();
    pod.attributes.insert("region".into(), "of the pod".into());
    node.publish(&pod).await.unwrap();
    let request = node.requests().remove(0);
    let attributes: BTreeMap<String, String> = serde_json::from_str(&request.attributes).unwrap();
    let expected = [
        ("csi.storage.k8s.io/ephemeral", "true"),
        ("csi.storage.k8s.io/pod.name", "p"),
        ("csi.storage.k8s.io/pod.namespace", "ns"),
        ("csi.storage.k8s.io/pod.uid", "u"),
        ("csi.storage.k8s.io/serviceAccount.name", "sa"),
        ("objects", "x"),
        ("region", "of the pod"),
        ("secretProviderClass", "class"),
    ];
    assert_eq!(
        attributes,
        expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    );
    assert_eq!(
        (request.secrets.as_str(), request.permission.as_str()),
        ("null", "420")
    );
    assert_eq!(request.target_path, pod.target_path.to_str().unwrap());
    assert!(request.current_object_version.is_empty());
}

#[tokio::test]
async fn files_are_replaced_atomically() {
    let node = Node::new(true);
    let pod = node.pod();
    node.respond(Ok(response(&[
        ("a", b"one"),
        ("d/b", b"two"),
        ("d/c", b"three"),
    ])));
    node.publish(&pod).await.unwrap();
    let data = |pod: &PodVolume| std::fs::read_link(pod.target_path.join("..data")).unwrap();
    let first = data(&pod);
    assert_eq!(
        std::fs::read_link(pod.target_path.join("d")).unwrap(),
        Path::new("..data/d")
    );
    pass(121).await;
    // Unchanged contents are not written, even if the mode differs.
    let mut same = response(&[("a", b"one"), ("d/b", b"two"), ("d/c", b"three")]);
    same.files[0].mode = 0o600;
    node.respond(Ok(same));
    node.publish(&pod).await.unwrap();
    assert_eq!((data(&pod), node.requests().len()), (first.clone(), 2));
    // The last write is older than the interval, so the driver does not skip the volume.
    node.respond(Ok(response(&[("a", b"two"), ("e", b"new")])));
    node.publish(&pod).await.unwrap();
    assert_ne!(data(&pod), first);
    assert!(
        !pod.target_path.join(first).exists(),
        "the old files are gone"
    );
    let paths: Vec<_> = files(&pod.target_path)
        .into_iter()
        .map(|(path, ..)| path)
        .collect();
    assert_eq!(paths, ["a", "e"]);
}

#[tokio::test]
async fn only_a_recently_written_volume_is_skipped() {
    let node = Node::new(true);
    let pod = node.pod();
    node.publish(&pod).await.unwrap();
    pass(119).await;
    node.publish(&pod).await.unwrap();
    assert_eq!(node.requests().len(), 1);
    pass(2).await;
    for expected in [2, 3, 4] {
        node.publish(&pod).await.unwrap();
        assert_eq!(node.requests().len(), expected);
    }
}

#[tokio::test]
async fn without_rotation_a_mounted_volume_is_not_remounted() {
    let node = Node::new(false);
    node.publish(&node.pod()).await.unwrap();
    pass(1000).await;
    node.publish(&node.pod()).await.unwrap();
    assert_eq!(node.requests().len(), 1);
}

#[tokio::test]
async fn a_failed_remount_is_hidden_from_kubelet() {
    let node = Node::new(true);
    let pod = node.pod();
    node.publish(&pod).await.unwrap();
    pass(121).await;
    node.respond(Err(Status::permission_denied("no")));
    node.publish(&pod).await.unwrap();
    assert_eq!((read(&pod, "a"), node.requests().len()), ("one".into(), 2));
    // A missing class is reported nevertheless.
    let mut other = pod.clone();
    other.class = "gone".into();
    assert!(node.publish(&other).await.is_err());
}

#[tokio::test]
async fn kubelet_gets_the_providers_code_and_message() {
    let node = Node::new(true);
    node.respond(Err(Status::not_found("no such secret")));
    let error = node.publish(&node.pod()).await.expect_err("failed");
    assert_eq!(error.code(), Code::NotFound);
    assert_eq!(
        error.message(),
        "failed to mount secrets store objects for pod ns/p, err: rpc error: code = NotFound desc = no such secret"
    );
    assert!(
        !node.pod().target_path.exists(),
        "kubelet removes the directory after a final code"
    );
    let code = Error {
        code: "Oops".into(),
    };
    node.respond(Ok(MountResponse {
        error: Some(code),
        ..response(&[])
    }));
    let error = node.publish(&node.pod()).await.expect_err("failed");
    assert!(
        error.message().contains("provider error code Oops"),
        "{error}"
    );
}

#[tokio::test]
async fn after_a_non_final_code_the_pod_starts_with_an_empty_directory() {
    for code in [
        Code::ResourceExhausted,
        Code::Aborted,
        Code::Cancelled,
        Code::DeadlineExceeded,
        Code::Unavailable,
    ] {
        let node = Node::new(true);
        let pod = node.pod();
        node.respond(Err(Status::new(code, "not final")));
        assert!(node.publish(&pod).await.is_err());
        assert_eq!(
            node.requests().len(),
            if code == Code::Unavailable { 3 } else { 1 }
        );
        // kubelet retries, and the driver skips the directory because it is too recent.
        node.respond(Ok(response(&[("a", b"one")])));
        node.publish(&pod).await.unwrap();
        assert!(files(&pod.target_path).is_empty(), "files after {code:?}");
    }
}

#[tokio::test]
async fn a_response_without_versions_fails_and_one_without_files_keeps_the_old_files() {
    let node = Node::new(true);
    let pod = node.pod();
    node.respond(Ok(MountResponse {
        object_version: Vec::new(),
        ..response(&[("a", b"x")])
    }));
    let error = node.publish(&pod).await.expect_err("no versions");
    assert!(
        error.message().contains("missing object versions"),
        "{error}"
    );
    node.respond(Ok(response(&[("a", b"one")])));
    node.publish(&pod).await.unwrap();
    pass(121).await;
    node.respond(Ok(response(&[])));
    node.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "one");
}

#[tokio::test]
async fn an_invalid_path_fails_the_mount() {
    let node = Node::new(true);
    let long = "x".repeat(256);
    for path in [
        "", "/a", "../a", "a/../b", "./a", "a//b", "a/", "..a", "a/..", &long,
    ] {
        node.respond(Ok(response(&[(path, b"x")])));
        let error = node.publish(&node.pod()).await.expect_err(path);
        assert!(error.message().contains("invalid path"), "{path}: {error}");
    }
}

#[tokio::test]
async fn a_response_over_four_mebibytes_fails() {
    let node = Node::new(true);
    let most = vec![b'x'; 4 * 1024 * 1024 - 1024];
    node.respond(Ok(response(&[("a", &most)])));
    node.publish(&node.pod()).await.unwrap();
    let over = vec![b'x'; 4 * 1024 * 1024 + 1];
    node.respond(Ok(response(&[("a", &over)])));
    let mut pod = node.pod();
    pod.target_path.set_extension("other");
    let error = node.publish(&pod).await.expect_err("too large");
    assert_eq!(error.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn the_driver_waits_for_a_provider_only_if_it_was_there_before() {
    let node = Node::new(true);
    let parameters = [("objects".to_owned(), "x".to_owned())];
    node.driver
        .apply("ns", "class", "other", parameters.clone().into());
    let error = node.publish(&node.pod()).await.expect_err("no socket");
    assert!(
        error
            .message()
            .contains("provider not found: provider \"other\""),
        "{error}"
    );
    node.driver.apply("ns", "class", "cce", parameters.into());
    node.publish(&node.pod()).await.unwrap();
    // The socket disappears: the driver waits until kubelet's deadline.
    std::fs::remove_file(node.folder.path().join("cce.sock")).unwrap();
    let mut pod = node.pod();
    pod.target_path.set_extension("other");
    let error = node.publish(&pod).await.expect_err("no socket any more");
    assert_eq!(error.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn unpublish_removes_the_volume_and_can_be_repeated() {
    let node = Node::new(true);
    let pod = node.pod();
    node.publish(&pod).await.unwrap();
    assert!(node.driver.status(&pod.target_path).unwrap().mounted);
    node.driver.node_unpublish_volume(&pod.target_path).unwrap();
    assert!(!pod.target_path.exists() && node.driver.status(&pod.target_path).is_none());
    node.driver.node_unpublish_volume(&pod.target_path).unwrap();
}
