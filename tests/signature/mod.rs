//! Detached signatures, made with OpenSSL.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use data_encoding::HEXLOWER;
use dew_provider::cloud::SigningAlgorithm;
use dew_provider::signature::{
    DetachedSignature, MAX_OFFLINE, PublicKey, PublicKeyKind, SignatureError, file_digest,
    verify_offline,
};
use proptest::prelude::*;
use serde_json::Value;

const TEXT: &[u8] = b"apiVersion: v1\nkind: Secret\n";

/// A folder with a file and keys of each kind.
struct Keys {
    dir: tempfile::TempDir,
}

impl Keys {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), TEXT).unwrap();
        let keys = Self { dir };
        for (name, algorithm, option) in [
            ("rsa", "RSA", "rsa_keygen_bits:2048"),
            ("rsa2", "RSA", "rsa_keygen_bits:3072"),
            ("p256", "EC", "ec_paramgen_curve:P-256"),
            ("p384", "EC", "ec_paramgen_curve:P-384"),
            ("p521", "EC", "ec_paramgen_curve:P-521"),
        ] {
            let key = keys.path(name);
            openssl(
                &["genpkey", "-algorithm", algorithm, "-pkeyopt", option],
                &["-out"],
                &key,
            );
            let public = keys.path(&format!("{name}.pub"));
            let args = ["pkey", "-pubout", "-in", key.to_str().unwrap()];
            openssl(&args, &["-out"], &public);
        }
        keys
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn public(&self, name: &str) -> PublicKey {
        let pem = fs::read(self.path(&format!("{name}.pub"))).unwrap();
        PublicKey::from_pem(&pem).unwrap()
    }

    /// Signs the file as KMS does.
    fn sign(&self, key: &str, algorithm: SigningAlgorithm, options: &[&str]) -> DetachedSignature {
        let hash = format!("-sha{}", algorithm.digest_len() * 8);
        let (key_file, out) = (self.path(key), self.path("signature"));
        let mut args = vec!["dgst", &hash, "-sign", key_file.to_str().unwrap()];
        for option in options {
            args.extend(["-sigopt", option]);
        }
        let file = self.path("file");
        args.push("-out");
        args.push(out.to_str().unwrap());
        openssl(&args, &[], &file);
        DetachedSignature {
            algorithm,
            key: format!("cn-north-4/{key}"),
            digest: file_digest(algorithm, TEXT).unwrap(),
            signature: fs::read(out).unwrap(),
            time: "2026-01-02T03:04:05Z".parse().unwrap(),
        }
    }
}

fn openssl(args: &[&str], last: &[&str], path: &Path) {
    let output = Command::new("openssl")
        .args(args)
        .args(last)
        .arg(path)
        .output();
    let output = output.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {args:?}: {errors}");
}

const PSS: [&str; 2] = ["rsa_padding_mode:pss", "rsa_pss_saltlen:digest"];

/// Each algorithm that is verified offline, with a key and the options for OpenSSL.
fn offline() -> Vec<(SigningAlgorithm, &'static str, &'static [&'static str])> {
    use SigningAlgorithm::*;
    vec![
        (RsaPssSha256, "rsa", &PSS),
        (RsaPssSha384, "rsa", &PSS),
        (RsaPssSha512, "rsa2", &PSS),
        (RsaPkcs1Sha256, "rsa", &[]),
        (RsaPkcs1Sha384, "rsa2", &[]),
        (RsaPkcs1Sha512, "rsa", &[]),
        (EcdsaSha256, "p256", &[]),
        (EcdsaSha256, "p384", &[]),
        (EcdsaSha384, "p256", &[]),
        (EcdsaSha384, "p384", &[]),
    ]
}

#[test]
fn signatures_hold_for_the_signed_file_key_and_algorithm_only() {
    let keys = Keys::new();
    for (algorithm, key, options) in offline() {
        let signature = keys.sign(key, algorithm, options);
        let public = keys.public(key);
        verify_offline(&signature, &public, TEXT).unwrap();

        for changed in [&TEXT[1..], b"", &[TEXT, b"\n"].concat()] {
            let error = verify_offline(&signature, &public, changed).unwrap_err();
            let text = error.to_string();
            assert!(
                matches!(error, SignatureError::FileChanged { .. }),
                "{text}"
            );
            assert!(text.contains(&HEXLOWER.encode(&signature.digest)), "{text}");
        }
        for at in 0..signature.signature.len() {
            let mut changed = signature.clone();
            changed.signature[at] ^= 1;
            let error = verify_offline(&changed, &public, TEXT).unwrap_err();
            assert!(matches!(error, SignatureError::Mismatch { .. }), "{error}");
        }
        // A digest that was changed to that of another file does not help.
        let mut forged = signature.clone();
        forged.digest = file_digest(algorithm, &b"other"[..]).unwrap();
        let error = verify_offline(&forged, &public, &b"other"[..]).unwrap_err();
        assert!(matches!(error, SignatureError::Mismatch { .. }), "{error}");

        for other in ["rsa", "rsa2", "p256", "p384"] {
            if other == key {
                continue;
            }
            let error = verify_offline(&signature, &keys.public(other), TEXT).unwrap_err();
            let is_named = matches!(
                error,
                SignatureError::Mismatch { .. } | SignatureError::OtherKind { .. }
            );
            assert!(is_named, "{error}");
        }
        for other in SigningAlgorithm::ALL {
            if other == algorithm || other == SigningAlgorithm::Sm2Sm3 {
                continue;
            }
            let changed = DetachedSignature {
                algorithm: other,
                digest: file_digest(other, TEXT).unwrap(),
                ..signature.clone()
            };
            verify_offline(&changed, &public, TEXT).unwrap_err();
        }
    }
}

#[test]
fn what_cannot_be_verified_offline_names_kms() {
    let keys = Keys::new();
    let signature = keys.sign("p256", SigningAlgorithm::EcdsaSha512, &[]);
    let error = verify_offline(&signature, &keys.public("p256"), TEXT).unwrap_err();
    assert!(error.to_string().contains("verify with KMS"), "{error}");
    let pem = fs::read(keys.path("p521.pub")).unwrap();
    let error = PublicKey::from_pem(&pem).unwrap_err();
    assert!(error.to_string().contains("verify with KMS"), "{error}");
    let salt = ["rsa_padding_mode:pss", "rsa_pss_saltlen:20"];
    let signature = keys.sign("rsa", SigningAlgorithm::RsaPssSha256, &salt);
    let error = verify_offline(&signature, &keys.public("rsa"), TEXT).unwrap_err();
    assert!(error.to_string().contains("only by KMS"), "{error}");

    let signature = keys.sign("rsa", SigningAlgorithm::RsaPkcs1Sha256, &[]);
    let long = io::repeat(0).take(MAX_OFFLINE + 1);
    let error = verify_offline(&signature, &keys.public("rsa"), long).unwrap_err();
    assert!(error.to_string().contains("256 MiB"), "{error}");
    let error = file_digest(SigningAlgorithm::Sm2Sm3, TEXT).unwrap_err();
    assert!(error.to_string().contains("SM3"), "{error}");
}

#[test]
fn public_keys_are_parsed_strictly() {
    let keys = Keys::new();
    for (name, kind) in [
        ("rsa", PublicKeyKind::Rsa),
        ("p256", PublicKeyKind::P256),
        ("p384", PublicKeyKind::P384),
    ] {
        assert_eq!(keys.public(name).kind(), kind);
        let private = fs::read(keys.path(name)).unwrap();
        let error = PublicKey::from_pem(&private).unwrap_err();
        assert!(error.to_string().contains("BEGIN PUBLIC KEY"), "{error}");
    }
}

#[test]
fn signature_files_round_trip_and_name_the_wrong_field() {
    let keys = Keys::new();
    let signature = keys.sign("p384", SigningAlgorithm::EcdsaSha384, &[]);
    let json = signature.to_json().unwrap();
    assert_eq!(
        DetachedSignature::parse(json.as_bytes()).unwrap(),
        signature
    );
    let value: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["algorithm"], "ECDSA_SHA_384");
    assert_eq!(value["key"], "cn-north-4/p384");
    assert_eq!(value["time"], "2026-01-02T03:04:05Z");

    for (field, wrong) in [
        ("version", Value::from(2)),
        ("algorithm", "MD5".into()),
        ("digest", "00".into()),
        ("digest", HEXLOWER.encode(&[0; 32]).into()),
        ("signature", "***".into()),
        ("signature", "".into()),
        ("time", "yesterday".into()),
    ] {
        let mut value = value.clone();
        value[field] = wrong;
        let error = DetachedSignature::parse(value.to_string().as_bytes()).unwrap_err();
        assert!(error.to_string().contains(field), "{error}");
    }
    for wrong in [
        "",
        "[]",
        "{}",
        &json.replace("\"key\"", "\"kee\""),
        &json[..json.len() - 3],
        &" ".repeat(20_000),
    ] {
        let error = DetachedSignature::parse(wrong.as_bytes()).unwrap_err();
        assert!(matches!(error, SignatureError::SignatureFile(_)), "{error}");
    }
}

proptest! {
    #[test]
    fn random_keys_and_signature_files_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(DetachedSignature::parse(&bytes).is_err());
        let pem = format!(
            "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
            data_encoding::BASE64.encode(&bytes)
        );
        prop_assert!(PublicKey::from_pem(pem.as_bytes()).is_err());
    }
}
