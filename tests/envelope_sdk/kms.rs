//! Data keys of KMS in several regions: which calls are made, and where.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use data_encoding::HEXLOWER;
use dew_provider::cloud::{
    AccessKeys, Caller, Cloud, CloudConfig, Credentials, Dial, Kms, Socket, Turn,
};
use dew_provider::envelope_sdk::{
    DataKeys, SdkAlgorithm, SdkContext, SdkDataKey, SdkKmsKey, SdkKmsKeys, SdkReader, SdkSealer,
};
use dew_provider::telemetry::metrics::CloudMetrics;
use dew_provider::util::clock::{Clock, Jitter};
use dew_provider::util::env::Env;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::{Vectors, entries, hex, open, text};

const REGIONS: [&str; 3] = ["cn-north-4", "ap-southeast-1", "eu-west-101"];

/// KMS as the vectors' stand-in was: `HK1`, 01, key id, IV, AES-256-GCM of the data key.
#[derive(Clone)]
struct StandIn(Arc<State>);

struct State {
    /// Key id and master key; the number is that of the region.
    keys: Vec<(String, Vec<u8>)>,
    down: Mutex<HashSet<&'static str>>,
    /// Region and operation of each call.
    calls: Mutex<Vec<String>>,
}

impl StandIn {
    /// The keys of the vectors, one in each region.
    fn of(vectors: &Vectors) -> Self {
        let vector = vectors.named("mem-kms3-a256-c3-2100");
        let keys = vector["wrapped_by"].as_array().unwrap().iter();
        let keys = keys.map(|key| (text(&key["key_id"]).to_owned(), hex(&key["master_hex"])));
        Self(Arc::new(State {
            keys: keys.collect(),
            down: Mutex::default(),
            calls: Mutex::default(),
        }))
    }

    /// Takes what was called since the last time, without retries.
    fn calls(&self) -> Vec<String> {
        let mut calls = std::mem::take(&mut *self.0.calls.lock().unwrap());
        calls.dedup();
        calls
    }

    fn set_down(&self, regions: &[&'static str]) {
        *self.0.down.lock().unwrap() = regions.iter().copied().collect();
    }

    fn dial(&self) -> Dial {
        let this = self.clone();
        Arc::new(move |uri| {
            let host = uri.host().unwrap().to_owned();
            let region = REGIONS.iter().find(|region| host.contains(**region));
            // A host that is none of ours is one that a message named.
            let region = *region.unwrap_or_else(|| panic!("called {host}"));
            let (client, server) = tokio::io::duplex(64 * 1024);
            let this = this.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| this.clone().answer(region, request));
                let http = hyper::server::conn::http1::Builder::new();
                drop(http.serve_connection(TokioIo::new(server), service).await);
            });
            Box::pin(async { Ok(Socket::new(client)) })
        })
    }

    async fn answer(
        self,
        region: &'static str,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, hyper::Error> {
        let operation = request.uri().path().rsplit('/').next().unwrap().to_owned();
        let body = request.into_body().collect().await?.to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert!(body.get("additional_authenticated_data").is_none());
        let is_down = self.0.down.lock().unwrap().contains(region);
        let called = if is_down { "down" } else { &operation };
        let calls = &self.0.calls;
        calls.lock().unwrap().push(format!("{region} {called}"));
        let number = REGIONS.iter().position(|one| *one == region).unwrap();
        let (key_id, master) = &self.0.keys[number];
        let answer = if is_down {
            Err((503, "KMS.0001"))
        } else if body["key_id"] != **key_id {
            Err((404, "KMS.0207"))
        } else {
            match operation.as_str() {
                "create-datakey" => {
                    let bytes = body["datakey_length"].as_str().unwrap();
                    let dek = vec![9; bytes.parse::<usize>().unwrap() / 8];
                    Ok(json!({
                        "plain_text": HEXLOWER.encode(&dek),
                        "cipher_text": HEXLOWER.encode(&wrap(master, key_id, &dek)),
                    }))
                }
                "encrypt-datakey" => {
                    let given = hex(&body["plain_text"]);
                    let (dek, sum) = given.split_at(given.len() - 32);
                    assert_eq!(digest(&SHA256, dek).as_ref(), sum);
                    let wrapped = wrap(master, key_id, dek);
                    Ok(json!({"cipher_text": HEXLOWER.encode(&wrapped), "datakey_length": "32"}))
                }
                "decrypt-datakey" => match unwrap(master, &hex(&body["cipher_text"])) {
                    Some(dek) => Ok(json!({"data_key": HEXLOWER.encode(&dek)})),
                    None => Err((400, "KMS.0308")),
                },
                _ => Err((404, "APIG.0101")),
            }
        };
        let (status, body) = match answer {
            Ok(mut body) => {
                body["key_id"] = json!(key_id);
                (200, body)
            }
            Err((status, code)) => (
                status,
                json!({"error": {"error_code": code, "error_msg": "refused"}}),
            ),
        };
        let response = Response::builder().status(status);
        Ok(response.body(body.to_string().into()).unwrap())
    }
}

fn cipher(master: &[u8]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, master).unwrap())
}

/// 01 and the key id's bytes: the AAD.
fn key_bytes(key_id: &str) -> Vec<u8> {
    let id = HEXLOWER.decode(key_id.replace('-', "").as_bytes()).unwrap();
    [&[1], id.as_slice()].concat()
}

fn wrap(master: &[u8], key_id: &str, dek: &[u8]) -> Vec<u8> {
    let key = key_bytes(key_id);
    let mut sealed = dek.to_vec();
    let nonce = Nonce::assume_unique_for_key([5; 12]);
    let cipher = cipher(master);
    cipher
        .seal_in_place_append_tag(nonce, Aad::from(&key), &mut sealed)
        .unwrap();
    [b"HK1".as_slice(), &key, &[5; 12], &sealed].concat()
}

fn unwrap(master: &[u8], wrapped: &[u8]) -> Option<Vec<u8>> {
    let rest = wrapped.strip_prefix(b"HK1")?;
    let (key, rest) = rest.split_at_checked(17)?;
    let (iv, sealed) = rest.split_first_chunk::<12>()?;
    let mut sealed = sealed.to_vec();
    let nonce = Nonce::assume_unique_for_key(*iv);
    let cipher = cipher(master);
    let dek = cipher.open_in_place(nonce, Aad::from(key), &mut sealed);
    dek.ok().map(|dek| dek.to_vec())
}

fn keys(kms: &StandIn, regions: &[usize]) -> SdkKmsKeys {
    let config = CloudConfig {
        kms_endpoint: Some("http://kms.{region}.test".to_owned()),
        ..CloudConfig::emulated("http://unused.test")
    };
    let clock = Clock::from_tokio("2026-01-02T03:04:05Z".parse().unwrap());
    let (env, metrics) = (Env::default(), CloudMetrics::default());
    let cloud = Cloud::with_dial(config, &env, clock, Jitter::seeded(1), metrics, kms.dial());
    let key = |region: &usize| SdkKmsKey {
        caller: Caller {
            region: REGIONS[*region].parse().unwrap(),
            project: Some("p1".to_owned()),
            credentials: Credentials::fixed(AccessKeys::new("AK", "SK", None, None), "test"),
            turn: Turn::default(),
        },
        key_id: kms.0.keys[*region].0.clone(),
    };
    let keys = regions.iter().map(key).collect();
    SdkKmsKeys::new(Kms::new(cloud.unwrap()), keys, Duration::from_secs(10))
}

#[tokio::test(start_paused = true)]
async fn messages_of_the_official_sdk_are_opened_with_kms() {
    let vectors = Vectors::load();
    let kms = StandIn::of(&vectors);
    for vector in vectors.list("vectors") {
        let message = vectors.message(vector);
        let reader = SdkReader::read(message.as_slice()).unwrap();
        let dek = keys(&kms, &[0, 1, 2]).unwrap(reader.header()).await;
        if vector["keyring"] == "AES" {
            let error = dek.unwrap_err().to_string();
            assert!(error.contains("needs a local key"), "{error}");
            continue;
        }
        assert_eq!(dek.unwrap().expose(), hex(&vector["dek_hex"]));
        let calls = kms.calls();
        // The endpoint of a message with discovery was 127.0.0.1: the stand-in panics when it is called.
        assert!(
            calls
                .iter()
                .all(|call| call == "cn-north-4 decrypt-datakey")
        );
    }
}

/// The SDK makes five calls when the first region is down, and nine when two of three are.
#[tokio::test(start_paused = true)]
async fn a_region_that_is_down_costs_one_call() {
    let vectors = Vectors::load();
    let kms = StandIn::of(&vectors);
    let message = vectors.message(vectors.named("file-kms3-a256-c3-2100"));
    let reader = SdkReader::read(message.as_slice()).unwrap();
    kms.set_down(&[REGIONS[0], REGIONS[1]]);
    let all = keys(&kms, &[0, 1, 2]);
    all.unwrap(reader.header()).await.unwrap();
    assert_eq!(
        kms.calls(),
        [
            "cn-north-4 down",
            "ap-southeast-1 down",
            "eu-west-101 decrypt-datakey"
        ]
    );
    kms.set_down(&REGIONS);
    let error = all.unwrap(reader.header()).await.unwrap_err().to_string();
    for region in REGIONS {
        assert!(error.contains(region), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn messages_are_written_for_all_regions_or_as_many_as_are_needed() {
    let vectors = Vectors::load();
    let kms = StandIn::of(&vectors);
    let all = keys(&kms, &[0, 1, 2]);
    let context = SdkContext::new(entries(&[("a", "b")])).unwrap();
    let seal = |key: SdkDataKey| {
        let sealer = SdkSealer::new(SdkAlgorithm::Aes256Gcm, context.clone(), key);
        sealer.unwrap().seal(b"text").unwrap()
    };
    let key = all.wrap(SdkAlgorithm::Aes256Gcm, &context).await.unwrap();
    assert_eq!((key.wrapped.len(), key.left_out.len()), (3, 0));
    let calls = kms.calls();
    assert_eq!(calls[0], "cn-north-4 create-datakey");
    assert_eq!(calls.len(), 4, "{calls:?}");
    let message = seal(key);
    // The last region alone opens it, with one call.
    let reader = SdkReader::read(message.as_slice()).unwrap();
    let dek = keys(&kms, &[2]).unwrap(reader.header()).await.unwrap();
    assert_eq!(kms.calls(), ["eu-west-101 decrypt-datakey"]);
    assert_eq!(open(&message, &dek).unwrap().0, b"text");

    for down in [0, 1, 2] {
        kms.set_down(&[REGIONS[down]]);
        let error = all.wrap(SdkAlgorithm::Aes256Gcm, &context).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains(REGIONS[down]), "{error}");
        let two = all.clone().with_needed(2);
        let key = two.wrap(SdkAlgorithm::Aes128Gcm, &context).await.unwrap();
        assert_eq!((key.dek.len(), key.wrapped.len()), (16, 2));
        assert!(
            key.left_out[0].contains(REGIONS[down]),
            "{:?}",
            key.left_out
        );
    }
}

/// A stranger's header may list many wrapped keys: calls are bounded, and a key that it does not name is not
/// tried.
#[tokio::test(start_paused = true)]
async fn calls_for_a_foreign_header_are_bounded() {
    let vectors = Vectors::load();
    let kms = StandIn::of(&vectors);
    let first = keys(&kms, &[0]);
    let context = SdkContext::default();
    let mut key = first.wrap(SdkAlgorithm::Aes256Gcm, &context).await.unwrap();
    let named = key.wrapped.remove(0);
    let unknown = dew_provider::envelope_sdk::WrappedDek {
        info: dew_provider::envelope_sdk::SdkKeyInfo::Unnamed,
        wrapped: vec![0; 80],
        ..named.clone()
    };
    let seal = |wrapped: Vec<_>| {
        let key = SdkDataKey {
            dek: key.dek.clone(),
            wrapped,
            left_out: Vec::new(),
        };
        let sealer = SdkSealer::new(SdkAlgorithm::Aes256Gcm, context.clone(), key).unwrap();
        sealer.seal(b"text").unwrap()
    };
    kms.calls();
    let message = seal(vec![unknown; 127]);
    let reader = SdkReader::read(message.as_slice()).unwrap();
    let error = first.unwrap(reader.header()).await.unwrap_err().to_string();
    assert!(error.contains("16 calls"), "{error}");
    let made = std::mem::take(&mut *kms.0.calls.lock().unwrap()).len();
    assert_eq!(made, 16);

    let message = seal(vec![named]);
    let reader = SdkReader::read(message.as_slice()).unwrap();
    let error = keys(&kms, &[1]).unwrap(reader.header()).await.unwrap_err();
    assert!(error.to_string().contains("names other keys"), "{error}");
    assert_eq!(kms.calls(), Vec::<String>::new());
}
