//! Other programs open what is written: a reader in Python that was made from the layout, and the official Java
//! SDK where it is there.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use data_encoding::HEXLOWER;
use dew_provider::envelope_sdk::{
    DataKeys, Declaration, LocalKeys, SdkAlgorithm, SdkContext, SdkForm, SdkReader, SdkSealer,
};
use dew_provider::util::secret_bytes::SecretBytes;
use serde_json::{Value, json};

use super::{Vectors, entries, open, text};
use crate::sdk::venv;

/// Asks the reader in Python.
fn ask(python: &Path, questions: &[Value]) -> Vec<Value> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/envelope_sdk/reader.py");
    let mut process = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = process.stdin.take().unwrap();
    for question in questions {
        writeln!(stdin, "{question}").unwrap();
    }
    drop(stdin);
    let output = process.wait_with_output().unwrap();
    assert!(output.status.success());
    let lines = output.stdout.split(|byte| *byte == b'\n');
    let lines = lines.filter(|line| !line.is_empty());
    let answers: Vec<Value> = lines
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    assert_eq!(answers.len(), questions.len());
    answers
}

/// The reader is right: it opens the official SDK's messages and refuses tampered ones.
#[test]
fn the_independent_reader_agrees_with_the_official_sdk() {
    let Some(python) = venv::python() else { return };
    let vectors = Vectors::load();
    let list = vectors.list("vectors");
    let questions = list.iter().map(|vector| {
        let path = vectors.dir.join(text(&vector["file"]));
        json!({"path": path, "dek": vector["dek_hex"]})
    });
    let questions: Vec<Value> = questions.collect();
    for (vector, answer) in list.iter().zip(ask(&python, &questions)) {
        let dek = SecretBytes::new(super::hex(&vector["dek_hex"]));
        let (plain, _) = open(&vectors.message(vector), &dek).unwrap();
        let expected = json!({
            "form": vector["form"],
            "context": vector["context_in_header"],
            "text": HEXLOWER.encode(&plain),
        });
        assert_eq!(answer, expected, "{}", vector["name"]);
    }
    let tampered = vectors.list("tampered");
    let questions = tampered.iter().map(|tampered| {
        let of = vectors.named(text(&tampered["of"]));
        let path = vectors.dir.join(text(&tampered["file"]));
        json!({"path": path, "dek": of["dek_hex"]})
    });
    let questions: Vec<Value> = questions.collect();
    for (tampered, answer) in tampered.iter().zip(ask(&python, &questions)) {
        let is_refused = text(&tampered["strict_reader"]).starts_with("refuses");
        assert_eq!(answer["error"].is_string(), is_refused, "{tampered}");
    }
    // The SDK cannot open its own message with equal values; the reader orders them as it does.
    let own = &vectors.list("not_opened_by_the_sdk_itself")[0];
    let path = vectors.dir.join(text(&own["file"]));
    let answers = ask(&python, &[json!({"path": path, "dek": own["dek_hex"]})]);
    assert!(answers[0]["error"].is_string(), "{answers:?}");
}

/// A message that this program wrote.
struct Written {
    name: String,
    form: SdkForm,
    algorithm: SdkAlgorithm,
    plain: Vec<u8>,
}

/// Bytes of the local key that wraps the data keys of [`write_messages`].
const MASTER: [u8; 32] = [0xab; 32];

/// Contexts whose order is easy to get wrong.
fn contexts() -> Vec<Vec<(String, String)>> {
    let many = (0..40).map(|i| (format!("key-{i}"), format!("value-{}", i % 3)));
    vec![
        vec![],
        entries(&[("encryption", "context")]),
        entries(&[("alpha", "same"), ("zeta", "same")]),
        entries(&[("a", "\u{ff5e}"), ("b", "\u{1f600}"), ("ключ", "値-😀")]),
        entries(&[("", ""), ("empty", ""), ("x", "y")]),
        many.collect(),
    ]
}

/// Writes messages of both forms and algorithms into `dir`.
async fn write_messages(dir: &Path) -> Vec<Written> {
    let keys = LocalKeys::new(&[SecretBytes::new(MASTER.to_vec())]).unwrap();
    let mut written = Vec::new();
    for algorithm in [SdkAlgorithm::Aes128Gcm, SdkAlgorithm::Aes256Gcm] {
        for (number, context) in contexts().into_iter().enumerate() {
            for length in [0, 1, 1024, 1025, 300_000] {
                let plain: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
                for form in [SdkForm::Memory, SdkForm::File] {
                    // Every other context declares the text.
                    let context = if number % 2 == 0 {
                        SdkContext::new(context.clone())
                    } else {
                        let declaration = Declaration::of(plain.as_slice()).unwrap();
                        declaration.add_to(context.clone())
                    };
                    let context = context.unwrap();
                    let key = keys.wrap(algorithm, &context).await.unwrap();
                    let sealer = SdkSealer::new(algorithm, context, key).unwrap();
                    let name = format!("{algorithm}-{number}-{length}-{form:?}");
                    let path = dir.join(&name);
                    match form {
                        SdkForm::Memory => {
                            fs::write(path, sealer.seal(&plain).unwrap()).unwrap();
                        }
                        SdkForm::File => {
                            let file = fs::File::create(path).unwrap();
                            sealer.seal_file(plain.as_slice(), file).unwrap();
                        }
                    }
                    let plain = plain.clone();
                    written.push(Written {
                        name,
                        form,
                        algorithm,
                        plain,
                    });
                }
            }
        }
    }
    written
}

#[tokio::test]
async fn the_independent_reader_opens_what_is_written() {
    let Some(python) = venv::python() else { return };
    let dir = tempfile::tempdir().unwrap();
    let written = write_messages(dir.path()).await;
    let master = HEXLOWER.encode(&MASTER);
    let questions = written.iter().map(|message| {
        let path = dir.path().join(&message.name);
        json!({"path": path, "masters": ["00".repeat(16), master]})
    });
    let questions: Vec<Value> = questions.collect();
    for (message, answer) in written.iter().zip(ask(&python, &questions)) {
        let form = match message.form {
            SdkForm::Memory => "mem",
            SdkForm::File => "file",
        };
        let name = &message.name;
        assert_eq!(answer["form"], form, "{name}: {}", answer["error"]);
        assert!(answer["text"] == HEXLOWER.encode(&message.plain), "{name}");
    }
}

/// `tests/envelope_sdk/java/README.md` says how to build the SDK and what the variable holds.
#[tokio::test]
#[allow(clippy::print_stderr)] // a skipped test must not look like one that ran
async fn the_official_sdk_opens_what_is_written_and_the_other_way_round() {
    let Ok(classpath) = std::env::var("DEW_ENCRYPTION_SDK_CLASSPATH") else {
        eprintln!("SKIPPED: DEW_ENCRYPTION_SDK_CLASSPATH does not name the official Java SDK");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let written = write_messages(dir.path()).await;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/envelope_sdk/java/Interop.java");
    let mut process = Command::new("java")
        .args(["-cp", &classpath])
        .arg(script)
        .arg(HEXLOWER.encode(&MASTER))
        .stdin(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = process.stdin.take().unwrap();
    for message in &written {
        let path = dir.path().join(&message.name);
        let path = path.to_str().unwrap();
        let form = match message.form {
            SdkForm::Memory => "memory",
            SdkForm::File => "file",
        };
        let algorithm = message.algorithm.id();
        writeln!(stdin, "open\t{form}\t{algorithm}\t{path}\t{path}.text").unwrap();
        writeln!(
            stdin,
            "seal\t{form}\t{algorithm}\t{path}.text\t{path}.sealed"
        )
        .unwrap();
    }
    drop(stdin);
    assert!(process.wait().unwrap().success());

    let keys = LocalKeys::new(&[SecretBytes::new(MASTER.to_vec())]).unwrap();
    for message in &written {
        let name = &message.name;
        let opened = fs::read(dir.path().join(format!("{name}.text")));
        let opened =
            opened.unwrap_or_else(|error| panic!("{name}: the SDK did not open it: {error}"));
        assert!(opened == message.plain, "{name}");
        let sealed = fs::read(dir.path().join(format!("{name}.sealed"))).unwrap();
        let reader = SdkReader::read(sealed.as_slice()).unwrap();
        assert_eq!(reader.form(), message.form);
        let dek = keys.unwrap(reader.header()).await.unwrap();
        assert!(open(&sealed, &dek).unwrap().0 == message.plain, "{name}");
    }
}
