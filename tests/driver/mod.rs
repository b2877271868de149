//! The stand-in driver, held to what the real one does (Secrets Store CSI Driver v1.6.0).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use dew_provider::clock::Clock;
use dew_provider::driver::{Driver, DriverConfig, PodVolume};
use dew_provider::proto::csi_driver_provider_server::{CsiDriverProvider, CsiDriverProviderServer};
use dew_provider::proto::{Error, File, MountRequest, MountResponse, ObjectVersion};
use dew_provider::proto::{VersionRequest, VersionResponse};
use dew_provider::socket;
use tonic::transport::Server;
use tonic::{Code, Request, Response, Status};

use super::support::still::{Still, hurry};
use super::support::world::{files, read};

type Answer = Result<MountResponse, Status>;

/// A provider that answers what it is told, and notes what it is asked.
#[derive(Clone)]
struct Scripted(Arc<Mutex<(Answer, Vec<MountRequest>)>>);

#[tonic::async_trait]
impl CsiDriverProvider for Scripted {
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
        let mut script = self.0.lock().unwrap();
        script.1.push(request.into_inner());
        script.0.clone().map(Response::new)
    }
}

struct Node {
    provider: Scripted,
    driver: Driver,
    folder: tempfile::TempDir,
    _still: Still,
}

fn answer(files: &[(&str, &[u8])]) -> MountResponse {
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
        let still = Still::new();
        let folder = tempfile::tempdir().unwrap();
        let provider = Scripted(Arc::new(Mutex::new((
            Ok(answer(&[("a", b"one")])),
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
            _still: still,
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

    fn answers(&self, answer: Answer) {
        self.provider.0.lock().unwrap().0 = answer;
    }

    fn asked(&self) -> Vec<MountRequest> {
        self.provider.0.lock().unwrap().1.clone()
    }

    async fn publish(&self, pod: &PodVolume) -> Result<(), Status> {
        hurry(self.driver.publish_as_kubelet(pod)).await
    }
}

async fn pass(seconds: u64) {
    tokio::time::advance(Duration::from_secs(seconds)).await;
}

#[tokio::test]
async fn a_request_is_filled_as_the_driver_fills_it() {
    let node = Node::new(true);
    let mut pod = node.pod();
    pod.attributes.insert("region".into(), "of the pod".into());
    node.publish(&pod).await.unwrap();
    let request = node.asked().remove(0);
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
async fn files_are_swapped_as_one() {
    let node = Node::new(true);
    let pod = node.pod();
    node.answers(Ok(answer(&[
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
    // Equal contents are not written, whatever their mode.
    let mut same = answer(&[("a", b"one"), ("d/b", b"two"), ("d/c", b"three")]);
    same.files[0].mode = 0o600;
    node.answers(Ok(same));
    node.publish(&pod).await.unwrap();
    assert_eq!((data(&pod), node.asked().len()), (first.clone(), 2));
    // A folder that is as old as the last change does not hold the driver back.
    node.answers(Ok(answer(&[("a", b"two"), ("e", b"new")])));
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
async fn a_young_volume_is_skipped_and_an_unchanged_one_never_is() {
    let node = Node::new(true);
    let pod = node.pod();
    node.publish(&pod).await.unwrap();
    pass(119).await;
    node.publish(&pod).await.unwrap();
    assert_eq!(node.asked().len(), 1);
    pass(2).await;
    for expected in [2, 3, 4] {
        node.publish(&pod).await.unwrap();
        assert_eq!(node.asked().len(), expected);
    }
}

#[tokio::test]
async fn without_rotation_a_mounted_volume_is_left_alone() {
    let node = Node::new(false);
    node.publish(&node.pod()).await.unwrap();
    pass(1000).await;
    node.publish(&node.pod()).await.unwrap();
    assert_eq!(node.asked().len(), 1);
}

#[tokio::test]
async fn failures_of_a_repeated_mount_are_masked() {
    let node = Node::new(true);
    let pod = node.pod();
    node.publish(&pod).await.unwrap();
    pass(121).await;
    node.answers(Err(Status::permission_denied("no")));
    node.publish(&pod).await.unwrap();
    assert_eq!((read(&pod, "a"), node.asked().len()), ("one".into(), 2));
    // Except where the class itself is gone.
    let mut other = pod.clone();
    other.class = "gone".into();
    assert!(node.publish(&other).await.is_err());
}

#[tokio::test]
async fn the_providers_code_and_text_reach_kubelet() {
    let node = Node::new(true);
    node.answers(Err(Status::not_found("no such secret")));
    let error = node.publish(&node.pod()).await.expect_err("failed");
    assert_eq!(error.code(), Code::NotFound);
    assert_eq!(
        error.message(),
        "failed to mount secrets store objects for pod ns/p, err: rpc error: code = NotFound desc = no such secret"
    );
    assert!(
        !node.pod().target_path.exists(),
        "a final code: kubelet removes the folder"
    );
    let code = Error {
        code: "Oops".into(),
    };
    node.answers(Ok(MountResponse {
        error: Some(code),
        ..answer(&[])
    }));
    let error = node.publish(&node.pod()).await.expect_err("failed");
    assert!(
        error.message().contains("provider error code Oops"),
        "{error}"
    );
}

#[tokio::test]
async fn after_a_code_that_is_not_final_the_pod_starts_with_an_empty_folder() {
    for code in [
        Code::ResourceExhausted,
        Code::Aborted,
        Code::Cancelled,
        Code::DeadlineExceeded,
        Code::Unavailable,
    ] {
        let node = Node::new(true);
        let pod = node.pod();
        node.answers(Err(Status::new(code, "hm")));
        assert!(node.publish(&pod).await.is_err());
        assert_eq!(
            node.asked().len(),
            if code == Code::Unavailable { 3 } else { 1 }
        );
        // kubelet tries again, and the driver finds a folder too young to be looked at.
        node.answers(Ok(answer(&[("a", b"one")])));
        node.publish(&pod).await.unwrap();
        assert!(
            files(&pod.target_path).is_empty(),
            "the hazard, after {code:?}"
        );
    }
}

#[tokio::test]
async fn answers_without_versions_fail_and_without_files_keep_the_old_ones() {
    let node = Node::new(true);
    let pod = node.pod();
    node.answers(Ok(MountResponse {
        object_version: Vec::new(),
        ..answer(&[("a", b"x")])
    }));
    let error = node.publish(&pod).await.expect_err("no versions");
    assert!(
        error.message().contains("missing object versions"),
        "{error}"
    );
    node.answers(Ok(answer(&[("a", b"one")])));
    node.publish(&pod).await.unwrap();
    pass(121).await;
    node.answers(Ok(answer(&[])));
    node.publish(&pod).await.unwrap();
    assert_eq!(read(&pod, "a"), "one");
}

#[tokio::test]
async fn paths_outside_of_the_rules_fail_the_mount() {
    let node = Node::new(true);
    let long = "x".repeat(256);
    for path in [
        "", "/a", "../a", "a/../b", "./a", "a//b", "a/", "..a", "a/..", &long,
    ] {
        node.answers(Ok(answer(&[(path, b"x")])));
        let error = node.publish(&node.pod()).await.expect_err(path);
        assert!(error.message().contains("invalid path"), "{path}: {error}");
    }
}

#[tokio::test]
async fn four_mebibytes_are_the_limit() {
    let node = Node::new(true);
    let most = vec![b'x'; 4 * 1024 * 1024 - 1024];
    node.answers(Ok(answer(&[("a", &most)])));
    node.publish(&node.pod()).await.unwrap();
    let over = vec![b'x'; 4 * 1024 * 1024 + 1];
    node.answers(Ok(answer(&[("a", &over)])));
    let mut pod = node.pod();
    pod.target_path.set_extension("other");
    let error = node.publish(&pod).await.expect_err("too large");
    assert_eq!(error.code(), Code::ResourceExhausted);
}

#[tokio::test]
async fn a_provider_that_was_never_there_is_not_waited_for_and_one_that_is_away_is() {
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
    // Its socket goes away: the driver waits until kubelet's deadline.
    std::fs::remove_file(node.folder.path().join("cce.sock")).unwrap();
    let mut pod = node.pod();
    pod.target_path.set_extension("other");
    let error = node.publish(&pod).await.expect_err("away");
    assert_eq!(error.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn unpublishing_removes_everything() {
    let node = Node::new(true);
    let pod = node.pod();
    node.publish(&pod).await.unwrap();
    assert!(node.driver.status(&pod.target_path).unwrap().mounted);
    node.driver.node_unpublish_volume(&pod.target_path).unwrap();
    assert!(!pod.target_path.exists() && node.driver.status(&pod.target_path).is_none());
    node.driver.node_unpublish_volume(&pod.target_path).unwrap();
}
