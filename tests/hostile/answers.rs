//! Random answers of the cloud and of the API server, made from valid ones.

use fastrand::Rng;
use serde_json::{Map, Value, json};

use super::cases;
use super::expressions::random_json;
use super::properties::answers;

/// What the services answer if nothing is wrong.
fn valid() -> [Value; 6] {
    let metadata = json!({
        "id": "v1", "secret_name": "name", "create_time": 1, "kms_key_id": "k", "version_stages": ["SYSCURRENT"],
    });
    [
        json!({"version": {"version_metadata": metadata, "secret_string": "value"}}),
        json!({"version_metadatas": [metadata], "page_info": {"next_marker": null}}),
        json!({"stage": {"name": "STAGE", "version_id": "v1", "update_time": 1, "secret_name": "name"}}),
        json!({"projects": [{"id": "0123456789abcdef0123456789abcdef", "name": "cn-north-4"}]}),
        json!({"credential": {
            "access": "a", "secret": "s", "securitytoken": "t", "expires_at": "2026-01-03T03:04:05.000000Z",
        }}),
        json!({"error_code": "CSMS.0301", "error_msg": "no such secret", "error": {"code": "x", "message": "y"}}),
    ]
}

/// A list of one class.
fn class_list() -> Value {
    json!({
        "kind": "SecretProviderClassList", "apiVersion": "secrets-store.csi.x-k8s.io/v1",
        "metadata": {"resourceVersion": "5", "continue": ""},
        "items": [{
            "kind": "SecretProviderClass", "apiVersion": "secrets-store.csi.x-k8s.io/v1",
            "metadata": {"name": "n", "namespace": "s", "uid": "u", "resourceVersion": "4"},
            "spec": {"provider": "cce", "parameters": {"objects": "- {}", "region": "cn-north-4"}},
        }],
    })
}

/// Replaces, removes, repeats or adds something somewhere.
fn change(rng: &mut Rng, value: &mut Value) {
    match value {
        Value::Object(fields) if !fields.is_empty() && rng.u8(..8) != 0 => {
            let at = rng.usize(..fields.len());
            let key = fields.keys().nth(at).unwrap().clone();
            match rng.u8(..8) {
                0 => drop(fields.remove(&key)),
                1 => drop(fields.insert("more".into(), random_json(rng, 3))),
                _ => change(rng, &mut fields[&key]),
            }
        }
        Value::Array(items) if !items.is_empty() && rng.u8(..8) != 0 => {
            let at = rng.usize(..items.len());
            match rng.u8(..8) {
                0 => drop(items.remove(at)),
                1 => items.push(items[at].clone()),
                _ => change(rng, &mut items[at]),
            }
        }
        other => {
            *other = match rng.u8(..8) {
                0 => json!("x".repeat(rng.usize(..100_000))),
                1 => json!("\u{1b}[31m\r\n\u{0}"),
                2 => Value::Object(Map::new()),
                3 => json!(i64::MAX),
                _ => random_json(rng, 3),
            };
        }
    }
}

/// An answer as bytes, which may be cut off or contain any byte.
fn bytes(rng: &mut Rng, mut answer: Value) -> Vec<u8> {
    for _ in 0..rng.usize(..4) {
        change(rng, &mut answer);
    }
    let mut bytes = answer.to_string().into_bytes();
    match rng.u8(..10) {
        0 => bytes.truncate(rng.usize(..=bytes.len())),
        1 if !bytes.is_empty() => {
            let at = rng.usize(..bytes.len());
            bytes[at] = rng.u8(..);
        }
        _ => {}
    }
    bytes
}

/// `DEW_CASES=100000 cargo test hostile::answers` tries more.
#[test]
fn no_answer_of_the_cloud_does_harm() {
    let mut rng = Rng::with_seed(6);
    for _ in 0..cases(300) {
        let answer = rng.choice(valid()).unwrap();
        let mut data = vec![rng.u8(..)];
        data.extend(bytes(&mut rng, answer));
        answers::csms(&data);
        answers::iam(&data);
        answers::metadata(&data);
    }
}

#[test]
fn no_list_of_classes_does_harm() {
    let mut rng = Rng::with_seed(7);
    for _ in 0..cases(1_000) {
        let mut data = bytes(&mut rng, class_list());
        if rng.bool() {
            // The events of a watch.
            let class = class_list()["items"][0].take();
            let event = json!({"type": "MODIFIED", "object": class});
            data = [bytes(&mut rng, event), b"\n".to_vec(), data].concat();
        }
        answers::classes(&data);
    }
}
