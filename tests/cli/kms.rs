//! `dew-provider kms`.

use std::process::Output;

use dew_provider::sim::huawei::{DEMO_ACCESS_KEY, DEMO_SECRET_KEY, Emulator};

use super::emulator;
use crate::support::program::{command, text};

struct Kms {
    emulator: Emulator,
    key: String,
}

impl Kms {
    async fn start() -> Self {
        let mut kms = Self {
            emulator: emulator().await,
            key: String::new(),
        };
        let made = kms.run(&["key", "create", "app"], b"").await;
        assert!(made.status.success(), "{}", text(&made));
        kms.key = String::from_utf8(made.stdout).unwrap().trim().to_owned();
        kms
    }

    async fn run(&self, args: &[&str], input: &[u8]) -> Output {
        use tokio::io::AsyncWriteExt;
        let url = self.emulator.url();
        let mut all = vec!["kms"];
        all.extend(args);
        let mut command = command(&all);
        command.envs([
            ("HUAWEICLOUD_SDK_AK", DEMO_ACCESS_KEY),
            ("HUAWEICLOUD_SDK_SK", DEMO_SECRET_KEY),
            ("DEW_REGION", "cn-north-4"),
            ("DEW_KMS_ENDPOINT", &url),
            ("DEW_IAM_ENDPOINT", &url),
        ]);
        command.stdin(std::process::Stdio::piped());
        command.stdout(std::process::Stdio::piped());
        command.stderr(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A process that does not read its input may have exited already.
        let _ = stdin.write_all(input).await;
        drop(stdin);
        child.wait_with_output().await.unwrap()
    }

    async fn encrypt(&self, args: &[&str], input: &[u8]) -> Output {
        let mut all = vec!["encrypt", "--key-id", &self.key];
        all.extend(args);
        self.run(&all, input).await
    }

    async fn decrypt(&self, args: &[&str], input: &[u8]) -> Output {
        let mut all = vec!["decrypt", "--key-id", &self.key];
        all.extend(args);
        self.run(&all, input).await
    }
}

#[tokio::test]
async fn what_is_encrypted_comes_back_byte_for_byte() {
    let kms = Kms::start().await;
    for input in [
        &b"x"[..],
        "pässwörd".as_bytes(),
        b"-----BEGIN\nof several\r\nlines\n",
        b"data:;base64,AAAA",
        &[0, 255, 10],
        &[b'x'; 4096],
        &[0; 3060],
    ] {
        let sealed = kms.encrypt(&[], input).await;
        assert!(sealed.status.success(), "{}", text(&sealed));
        assert!(sealed.stdout.ends_with(b"\n"));
        assert_eq!(kms.decrypt(&[], &sealed.stdout).await.stdout, input);
        // The cipher text says which key it needs, and may be wrapped.
        let wrapped: Vec<u8> = sealed.stdout.chunks(64).collect::<Vec<_>>().join(&b'\n');
        assert_eq!(kms.run(&["decrypt"], &wrapped).await.stdout, input);
    }
    // From a file, as the console writes it, and bound to something.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tls.key");
    std::fs::write(&file, "a\nb\n").unwrap();
    let file = file.to_str().unwrap();
    let bound = ["--file", file, "--encoding", "base64", "--aad", "shop/app"];
    let sealed = kms.encrypt(&bound, b"").await.stdout;
    let decrypt = async |args: &[&str]| kms.decrypt(args, &sealed).await;
    let aad = ["--aad", "shop/app"];
    assert_eq!(decrypt(&aad).await.stdout, b"YQpiCg==");
    let base64 = ["--aad", "shop/app", "--encoding", "base64"];
    assert_eq!(decrypt(&base64).await.stdout, b"a\nb\n");
    let unbound = decrypt(&[]).await;
    assert_eq!(unbound.status.code(), Some(1));
    let said = text(&unbound);
    assert!(
        said.contains("KMS.2201") && said.contains("additional authenticated data"),
        "{said}"
    );
}

#[tokio::test]
async fn what_kms_does_not_take_is_refused_with_the_way_out() {
    let kms = Kms::start().await;
    let long = "takes 4 KB (4096 bytes)";
    let base64 = ["--encoding", "base64"];
    let plain = ["--encoding", "text"];
    for (args, input, expected) in [
        (
            &[][..],
            &[b'x'; 4097][..],
            &[long, "dew-provider file encrypt"][..],
        ),
        (
            &[],
            &[0; 3064],
            &["3060 bytes", "dew-provider file encrypt"],
        ),
        (
            &base64,
            &[b'x'; 3073],
            &["3072 bytes", "dew-provider file encrypt"],
        ),
        (&plain, &[255], &["not UTF-8 text", "--encoding base64"]),
        (&plain, b"a\nb", &["KMS.2101"]),
        (&[], b"", &["the input is empty"]),
        (
            &["--file", "/nonexistent"],
            b"",
            &["cannot read /nonexistent"],
        ),
        (&["--aad", ""], b"x", &["1 to 128"]),
    ] {
        let output = kms.encrypt(args, input).await;
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        for part in expected {
            assert!(text(&output).contains(part), "{args:?}: {}", text(&output));
        }
        assert!(output.stdout.is_empty());
    }
    let sealed = kms.encrypt(&[], b"some text").await.stdout;
    let other = kms.run(&["key", "create", "other"], b"").await.stdout;
    let other = String::from_utf8(other).unwrap();
    for (args, input, expected) in [
        (
            &["decrypt", "--key-id", other.trim()][..],
            &sealed[..],
            "another key",
        ),
        (
            &["decrypt", "--encoding", "base64"],
            &sealed,
            "--encoding text",
        ),
        (
            &["decrypt"],
            b"not Base64!",
            "the cipher text is not Base64",
        ),
        (
            &["decrypt", "--key-id", "alias/app"],
            &sealed,
            "must have 36 characters",
        ),
    ] {
        let output = kms.run(args, input).await;
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        let said = text(&output);
        assert!(said.contains(expected), "{args:?}: {said}");
        assert!(
            !said.contains("some text") && output.stdout.is_empty(),
            "{said}"
        );
    }
    let as_argument = kms.encrypt(&["the-value"], b"").await;
    assert_eq!(as_argument.status.code(), Some(2));
}

#[tokio::test]
async fn keys_are_created_listed_and_shown() {
    let kms = Kms::start().await;
    let args = [
        "key", "create", "signer", "--spec", "EC_P256", "--format", "json",
    ];
    let made = kms.run(&args, b"").await;
    let made: serde_json::Value = serde_json::from_slice(&made.stdout).unwrap();
    let signer = made["key_id"].as_str().unwrap();
    let list = text(&kms.run(&["key", "list"], b"").await);
    for word in [
        "KEY ID",
        &kms.key,
        signer,
        "enabled",
        "EC_P256",
        "SIGN_VERIFY",
        "AES_256",
    ] {
        assert!(list.contains(word), "{list}");
    }
    let shown = kms
        .run(&["key", "show", signer, "--format", "json"], b"")
        .await;
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(
        (&shown["key_alias"], &shown["key_state"]),
        (&"signer".into(), &"2".into())
    );
    let unknown = "0d0466b0-e727-4d9c-b35d-f84bb474a37f";
    for (args, expected) in [
        (&["key", "show", unknown][..], "KMS.0207"),
        (&["key", "create", "a", "--spec", "SM2"], "key_spec SM2"),
        (&["key", "create", "not an alias"], "key_alias"),
    ] {
        let output = kms.run(args, b"").await;
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(
            text(&output).contains(expected),
            "{args:?}: {}",
            text(&output)
        );
    }
}
