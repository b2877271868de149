//! The AWS Encryption SDK opens our messages, and we open its.

use std::path::Path;

use dew_provider::envelope::{DEFAULT_FRAME, Header};
use serde_json::json;
use tokio::process::Command;

use super::keys::StaticKeys;
use super::{opened, sealed, text};
use crate::sdk::venv;

/// A message: name, length of its text, frames' length, context.
type Case = (String, usize, u32, Vec<(&'static str, &'static str)>);

fn cases() -> Vec<Case> {
    let frame = DEFAULT_FRAME as usize;
    let lengths = [0, 1, frame - 1, frame, frame + 1, 10 * 1024 * 1024];
    let mut cases: Vec<Case> = lengths
        .map(|length| {
            (
                format!("length-{length}"),
                length,
                DEFAULT_FRAME,
                vec![("a", "b")],
            )
        })
        .into();
    let contexts = [
        vec![],
        vec![
            ("ключ", "値-😀"),
            ("purpose", "tls"),
            ("ａ", "fullwidth"),
            ("😀", "beyond the BMP"),
        ],
        vec![("", "an empty key is theirs alone"), ("empty", "")],
    ];
    for (number, context) in contexts.into_iter().enumerate() {
        cases.push((format!("context-{number}"), 100, 128, context));
    }
    cases
}

async fn python(what: &str, folder: &Path) -> bool {
    let Some(python) = venv::aws() else {
        return false;
    };
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/envelope/interoperable.py"
    );
    let output = Command::new(python)
        .args([script, what])
        .arg(folder)
        .output()
        .await
        .unwrap();
    let (out, err) = (&output.stdout, &output.stderr);
    let all = [out.as_slice(), err].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&all));
    true
}

fn write_cases(folder: &Path, cases: &[Case]) {
    let cases: Vec<_> = cases
        .iter()
        .map(|(name, length, frame, context)| {
            let context: serde_json::Map<_, _> = context
                .iter()
                .map(|(key, value)| ((*key).to_owned(), json!(value)))
                .collect();
            json!({"name": name, "length": length, "frame": frame, "context": context})
        })
        .collect();
    std::fs::write(folder.join("cases.json"), json!(cases).to_string()).unwrap();
}

#[tokio::test]
async fn the_aws_encryption_sdk_opens_our_messages() {
    let folder = tempfile::tempdir().unwrap();
    let mut cases = cases();
    // We do not write empty keys.
    cases.retain(|(.., context)| context.iter().all(|(key, _)| !key.is_empty()));
    write_cases(folder.path(), &cases);
    for (name, length, frame, context) in &cases {
        let context = super::context(context);
        let message = sealed(&StaticKeys::two(), context, *frame, &text(*length)).await;
        std::fs::write(folder.path().join(format!("{name}.sealed")), message).unwrap();
    }
    python("open", folder.path()).await;
}

#[tokio::test]
async fn we_open_messages_of_the_aws_encryption_sdk() {
    let folder = tempfile::tempdir().unwrap();
    let mut cases = cases();
    let frames_of_theirs = 4096;
    cases.push((
        "its-own-frames".to_owned(),
        100_000,
        frames_of_theirs,
        vec![],
    ));
    write_cases(folder.path(), &cases);
    if !python("seal", folder.path()).await {
        return;
    }
    for (name, length, frame, context) in &cases {
        let message = std::fs::read(folder.path().join(format!("{name}.sealed"))).unwrap();
        let header = Header::read(&mut &*message).unwrap();
        assert_eq!(header.frame_length, *frame);
        let mut expected = context.clone();
        expected.sort_unstable();
        assert!(header.context.iter().eq(expected), "{name}");
        for key in StaticKeys::two().0 {
            let one = StaticKeys(vec![key]);
            assert!(
                opened(&one, &message).await.unwrap() == text(*length),
                "{name}"
            );
        }
        // A part is read without the rest.
        let whole = super::part(&StaticKeys::two(), &message, 1, 70)
            .await
            .unwrap_or_default();
        let end = (*length).min(70);
        assert!(whole == text(*length)[end.min(1)..end], "{name}");
    }
}
