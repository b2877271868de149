//! `dew-provider file`, with the KMS of two regions.

use std::path::Path;
use std::process::Output;
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::routing::post;
use data_encoding::HEXLOWER_PERMISSIVE as HEX;
use dew_provider::cloud::{
    AccessKeys, Caller, Cloud, CloudConfig, Credentials, Kms as KmsClient, NewKey, Turn,
};
use dew_provider::sim::huawei::{Config, DEMO_ACCESS_KEY, DEMO_PROJECT, DEMO_SECRET_KEY, Emulator};
use dew_provider::telemetry::metrics::CloudMetrics;
use dew_provider::util::clock::{Clock, Jitter};
use dew_provider::util::env::Env;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::text;
use crate::support::program;

const HERE: &str = "cn-north-4";
const THERE: &str = "ap-southeast-1";
const KEY_HERE: &str = "4d3dc44e-9269-4da8-99b2-7b913957226a";
const KEY_THERE: &str = "313d3bc8-4cef-42f3-b6d7-9f0791e19c33";

/// The KMS of one region, with one key. It wraps as the service does: bound to the additional authenticated data.
#[derive(Clone)]
struct Kms {
    url: String,
    key_id: &'static str,
    state: Arc<Mutex<KmsState>>,
}

#[derive(Default)]
struct KmsState {
    disabled: bool,
    /// The operations that were called.
    calls: Vec<String>,
}

impl Kms {
    async fn start(key_id: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let kms = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            key_id,
            state: Arc::default(),
        };
        let app = axum::Router::new()
            .route("/v1.0/{project}/kms/{operation}", post(Self::answer))
            .with_state(kms.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        kms
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().calls)
    }

    fn disable(&self) {
        self.state.lock().unwrap().disabled = true;
    }

    async fn answer(
        State(kms): State<Self>,
        UrlPath((_, operation)): UrlPath<(String, String)>,
        body: String,
    ) -> (StatusCode, Json<Value>) {
        let body: Value = serde_json::from_str(&body).unwrap();
        let refuse = |code, why| {
            let error = json!({"error": {"error_code": code, "error_msg": why}});
            (StatusCode::FORBIDDEN, Json(error))
        };
        let mut state = kms.state.lock().unwrap();
        state.calls.push(operation.clone());
        if state.disabled {
            return refuse("KMS.1101", "The key is disabled");
        }
        assert_eq!(body["key_id"], kms.key_id);
        let master = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[3; 32]).unwrap());
        let nonce = || Nonce::assume_unique_for_key([0; 12]);
        let aad = body["additional_authenticated_data"].as_str().unwrap();
        let aad = [aad.as_bytes(), kms.key_id.as_bytes()].concat();
        let bytes = |field: &str| {
            HEX.decode(body[field].as_str().unwrap().as_bytes())
                .unwrap()
        };
        let hex = |bytes: &[u8]| data_encoding::HEXUPPER.encode(bytes);
        let answer = match operation.as_str() {
            "decrypt-datakey" => {
                let mut sealed = bytes("cipher_text");
                let Ok(key) = master.open_in_place(nonce(), Aad::from(aad), &mut sealed) else {
                    return refuse("KMS.1401", "Failed to decrypt the data key");
                };
                let checked = hex(digest(&SHA256, key).as_ref());
                json!({"data_key": hex(key), "datakey_length": "32", "datakey_dgst": checked})
            }
            operation => {
                let plain = match operation {
                    "create-datakey" => vec![9; 32],
                    _ => bytes("plain_text")[..32].to_vec(),
                };
                let mut sealed = plain.clone();
                master
                    .seal_in_place_append_tag(nonce(), Aad::from(aad), &mut sealed)
                    .unwrap();
                json!({"key_id": kms.key_id, "plain_text": hex(&plain), "cipher_text": hex(&sealed), "datakey_length": "32"})
            }
        };
        (StatusCode::OK, Json(answer))
    }
}

/// Two regions, and a folder for files.
struct World {
    here: Kms,
    there: Kms,
    folder: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        Self {
            here: Kms::start(KEY_HERE).await,
            there: Kms::start(KEY_THERE).await,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), bytes).unwrap();
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    /// Runs `file` in the folder with `input` as standard input. `{here}` and `{there}` stand for the keys.
    async fn run_with(&self, line: &str, input: &str) -> Output {
        use tokio::io::AsyncWriteExt;
        let key = |region, id| format!("{region}/0123456789abcdef0123456789abcdef/{id}");
        let args = line
            .replace("{here}", &key(HERE, KEY_HERE))
            .replace("{there}", &key(THERE, KEY_THERE));
        let args: Vec<&str> = args.split(' ').collect();
        let piped = std::process::Stdio::piped;
        let mut child = program::command(&["file"])
            .args(args)
            .current_dir(self.folder.path())
            .env("HUAWEICLOUD_SDK_AK", "ak")
            .env("HUAWEICLOUD_SDK_SK", "sk")
            .env("HUAWEICLOUD_SDK_REGION_KMS_CN_NORTH_4", &self.here.url)
            .env("HUAWEICLOUD_SDK_REGION_KMS_AP_SOUTHEAST_1", &self.there.url)
            .stdin(piped())
            .stdout(piped())
            .stderr(piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let _ = stdin.write_all(input.as_bytes()).await;
        drop(stdin);
        child.wait_with_output().await.unwrap()
    }

    async fn run(&self, line: &str) -> Output {
        self.run_with(line, "").await
    }

    async fn succeed(&self, line: &str) -> String {
        let output = self.run(line).await;
        let shown = program::text(&output);
        assert!(output.status.success(), "{line}: {shown}");
        shown
    }

    async fn fail(&self, line: &str) -> String {
        let output = self.run(line).await;
        let shown = program::text(&output);
        assert_eq!(output.status.code(), Some(1), "{line}: {shown}");
        shown
    }

    /// Names in the folder; none may be of a temporary file.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[tokio::test]
async fn a_file_for_two_regions_opens_with_either_down() {
    let world = World::new().await;
    let plain = text(200_000);
    world.write("plain", &plain);
    world
        .succeed("encrypt plain sealed --key {here} --key {there} --context purpose=tls")
        .await;
    assert_eq!(world.here.calls(), ["create-datakey"]);
    assert_eq!(world.there.calls(), ["encrypt-datakey"]);
    let both = "--key {here} --key {there} --context purpose=tls";
    // The region of this machine is asked first, and one answer is enough.
    world
        .succeed(&format!("decrypt sealed opened {both} --region {THERE}"))
        .await;
    assert_eq!(world.read("opened"), plain);
    assert!(world.here.calls().is_empty());
    assert_eq!(world.there.calls(), ["decrypt-datakey"]);
    world.there.disable();
    world
        .succeed(&format!("decrypt sealed opened2 {both} --region {THERE}"))
        .await;
    assert_eq!(world.read("opened2"), plain);
    assert_eq!(world.there.calls(), ["decrypt-datakey"]);
    world.here.disable();
    let error = world.fail(&format!("decrypt sealed opened3 {both}")).await;
    for part in [HERE, THERE, "KMS.1101"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(world.names(), ["opened", "opened2", "plain", "sealed"]);
}

#[tokio::test]
async fn a_region_that_is_down_is_left_out_only_on_request() {
    let world = World::new().await;
    world.write("plain", b"text");
    world.here.disable();
    let both = "encrypt plain sealed --key {here} --key {there}";
    let error = world.fail(both).await;
    assert!(
        error.contains("2 of 2 keys") && error.contains(KEY_HERE),
        "{error}"
    );
    assert_eq!(world.names(), ["plain"]);
    let said = world.succeed(&format!("{both} --regions-needed 1")).await;
    assert!(
        said.contains("left out") && said.contains(KEY_HERE),
        "{said}"
    );
    let shown = world.succeed("inspect sealed").await;
    assert!(
        shown.contains(KEY_THERE) && !shown.contains(KEY_HERE),
        "{shown}"
    );
    world
        .succeed("decrypt sealed opened --key {here} --key {there}")
        .await;
    assert_eq!(world.read("opened"), b"text");
    let error = world.fail(&format!("{both} --regions-needed 3")).await;
    assert!(error.contains("3 keys are needed, 2 are given"), "{error}");
    world.there.disable();
    let error = world.fail(&format!("{both} --regions-needed 1")).await;
    assert!(
        error.contains(KEY_HERE) && error.contains(KEY_THERE),
        "{error}"
    );
}

#[tokio::test]
async fn only_a_key_that_was_given_is_called() {
    let world = World::new().await;
    world.write("plain", b"text");
    world.succeed("encrypt plain sealed --key {here}").await;
    world.here.calls();
    let error = world.fail("decrypt sealed opened --key {there}").await;
    assert!(
        error.contains("none of the given keys") && error.contains(KEY_HERE),
        "{error}"
    );
    assert!(world.here.calls().is_empty() && world.there.calls().is_empty());
}

#[tokio::test]
async fn another_context_is_refused_before_any_call_and_by_kms() {
    let world = World::new().await;
    world.write("plain", b"text");
    world
        .succeed("encrypt plain sealed --key {here} --context a=b")
        .await;
    world.here.calls();
    for wrong in ["a=c", "b=b"] {
        let line = format!("decrypt sealed opened --key {{here}} --context {wrong}");
        let error = world.fail(&line).await;
        assert!(error.contains("encryption context"), "{error}");
    }
    assert!(world.here.calls().is_empty());
    // A changed context in the header: KMS does not unwrap the key.
    let mut changed = world.read("sealed");
    let at = changed
        .windows(2)
        .position(|pair| pair == b"\x01a")
        .unwrap();
    changed[at + 1] = b'z';
    world.write("changed", &changed);
    let error = world.fail("decrypt changed opened --key {here}").await;
    assert!(error.contains("KMS.1401"), "{error}");
    assert_eq!(world.names(), ["changed", "plain", "sealed"]);
}

#[tokio::test]
async fn nothing_is_written_unless_all_of_the_message_is_authentic() {
    let world = World::new().await;
    world.write("plain", &text(300_000));
    world.succeed("encrypt plain sealed --key {here}").await;
    let sealed = world.read("sealed");
    let mut last = sealed.clone();
    *last.last_mut().unwrap() ^= 1;
    for changed in [
        last,
        sealed[..200_000].to_vec(),
        [sealed.as_slice(), b"x"].concat(),
    ] {
        world.write("changed", &changed);
        world.write("opened", b"before");
        world.fail("decrypt changed opened --key {here}").await;
        assert_eq!(world.read("opened"), b"before");
        assert_eq!(world.names(), ["changed", "opened", "plain", "sealed"]);
    }
}

#[tokio::test]
async fn pipes_folders_and_parts() {
    let world = World::new().await;
    let output = world
        .run_with("encrypt - sealed --key {here}", "from a pipe")
        .await;
    assert!(output.status.success(), "{}", program::text(&output));
    let output = world.run("decrypt sealed - --key {here}").await;
    assert_eq!(output.stdout, b"from a pipe");
    let warning = String::from_utf8(output.stderr).unwrap();
    assert!(
        warning.contains("discard it if this command fails"),
        "{warning}"
    );
    world
        .succeed("decrypt sealed part --key {here} --range 5..6")
        .await;
    assert_eq!(world.read("part"), b"a");
    world
        .succeed("decrypt sealed part --key {here} --range 7..")
        .await;
    assert_eq!(world.read("part"), b"pipe");
    let error = world
        .fail("decrypt sealed part --key {here} --range 12..")
        .await;
    assert!(error.contains("the text has 11 bytes"), "{error}");
    let error = world.fail("decrypt plain-text part --key {here}").await;
    assert!(error.contains("plain-text"), "{error}");

    world.write("tree/a", b"one");
    world.write("tree/below/b", &text(70_000));
    std::os::unix::fs::symlink("/etc/hostname", world.path("tree/link")).unwrap();
    let said = world
        .succeed("encrypt tree tree.enc --recursive --key {here}")
        .await;
    assert!(said.contains("tree/link"), "{said}");
    world
        .succeed("decrypt tree.enc tree.out --recursive --key {here}")
        .await;
    assert_eq!(world.read("tree.out/a"), b"one");
    assert_eq!(world.read("tree.out/below/b"), text(70_000));
    assert!(!world.path("tree.out/link").exists());
    let error = world.fail("encrypt tree tree2 --key {here}").await;
    assert!(error.contains("use --recursive"), "{error}");
}

#[tokio::test]
async fn inspect_shows_a_message_without_a_call() {
    let world = World::new().await;
    let vector =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/native-0478-2regions-frame64.bin");
    world.write("sealed", &std::fs::read(&vector).unwrap());
    let shown = world.succeed("inspect sealed --output json").await;
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["context"], json!({"purpose": "tls", "ключ": "値-😀"}));
    assert_eq!(shown["keys"][0]["info"], format!("{HERE}/{KEY_HERE}"));
    assert_eq!(shown["keys"][1]["info"], format!("{THERE}/{KEY_THERE}"));
    assert_eq!(
        (&shown["frames"], &shown["text_length"]),
        (&json!(2), &json!(120))
    );
    assert_eq!(shown["authenticated"], false);
    let shown = world.succeed("inspect sealed").await;
    assert!(
        shown.contains("2 of up to 64 bytes") && shown.contains("120 bytes"),
        "{shown}"
    );
    world.write("cut", &world.read("sealed")[..600]);
    let error = world.fail("inspect cut").await;
    assert!(
        error.contains("cut: the message was cut: it ends in frame 2"),
        "{error}"
    );
    world.write("sops", b"age-encryption.org/v1");
    let error = world.fail("inspect sops").await;
    assert!(error.contains("not an encrypted message"), "{error}");
    assert!(world.here.calls().is_empty() && world.there.calls().is_empty());
}

/// The emulator checks signatures, keys and additional data as the service does.
#[tokio::test]
async fn keys_of_the_emulated_kms_open_a_file() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let emulator = Emulator::start(listener, Config::default(), Clock::system()).unwrap();
    let url = emulator.url();
    let config = CloudConfig {
        csms_endpoint: Some(url.clone()),
        ..CloudConfig::default()
    };
    let (env, jitter) = (Env::from_pairs::<String, String>([]), Jitter::from_system());
    let cloud = Cloud::new(
        config,
        &env,
        Clock::system(),
        jitter,
        CloudMetrics::default(),
    )
    .unwrap();
    let keys = AccessKeys::new(DEMO_ACCESS_KEY, DEMO_SECRET_KEY, None, None);
    let caller = Caller {
        region: HERE.parse().unwrap(),
        project: Some(DEMO_PROJECT.to_owned()),
        credentials: Credentials::fixed(keys, "test"),
        turn: Turn::default(),
    };
    let kms = KmsClient::new(cloud);
    let deadline = || tokio::time::Instant::now() + std::time::Duration::from_secs(60);
    let mut given = Vec::new();
    for alias in ["one", "two"] {
        let new = NewKey {
            alias: alias.to_owned(),
            ..NewKey::default()
        };
        let id = kms.create_key(&caller, &new, deadline()).await.unwrap();
        given.push(format!("{HERE}/{DEMO_PROJECT}/{id}"));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(path("plain"), text(100_000)).unwrap();
    let env = [
        ("HUAWEICLOUD_SDK_AK", DEMO_ACCESS_KEY),
        ("HUAWEICLOUD_SDK_SK", DEMO_SECRET_KEY),
        ("DEW_CSMS_ENDPOINT", &url),
    ];
    let file = async |what, from: &str, to: &str, keys: &[String]| {
        let (from, to) = (path(from), path(to));
        let mut args = vec!["file", what, &from, &to];
        args.extend(keys.iter().flat_map(|key| ["--key", key]));
        let output = program::run(&args, &env, "").await;
        (output.status.success(), program::text(&output))
    };
    let (good, shown) = file("encrypt", "plain", "sealed", &given).await;
    assert!(good, "{shown}");
    kms.disable_key(&caller, given[0].rsplit('/').next().unwrap(), deadline())
        .await
        .unwrap();
    let (good, shown) = file("decrypt", "sealed", "opened", &given).await;
    assert!(good, "{shown}");
    assert_eq!(std::fs::read(path("opened")).unwrap(), text(100_000));
    let (good, shown) = file("decrypt", "sealed", "opened", &given[..1]).await;
    assert!(!good && shown.contains("KMS."), "{shown}");
}
