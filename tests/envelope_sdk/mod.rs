//! Messages of Huawei's Encryption SDK, through the library's public interface.

mod hostile;
mod interop;
mod kms;
mod roundtrip;
mod vectors;

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use dew_provider::envelope_sdk::{
    DataKeys, KeyError, LocalKeys, OpenLimits, SdkAlgorithm, SdkContext, SdkDataKey, SdkError,
    SdkHeader, SdkReader, SdkReport, SdkSealer,
};
use dew_provider::util::secret_bytes::SecretBytes;
use serde_json::Value;

/// The messages of the official SDK and `vectors.json`, which describes them.
struct Vectors {
    dir: PathBuf,
    json: Value,
}

impl Vectors {
    fn load() -> Self {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/encryption-sdk");
        let json = fs::read(dir.join("vectors.json")).unwrap();
        Self {
            json: serde_json::from_slice(&json).unwrap(),
            dir,
        }
    }

    fn list(&self, name: &str) -> &[Value] {
        self.json[name].as_array().unwrap()
    }

    fn message(&self, vector: &Value) -> Vec<u8> {
        fs::read(self.dir.join(text(&vector["file"]))).unwrap()
    }

    /// The vector that a tampered message was made from.
    fn named(&self, name: &str) -> &Value {
        let mut vectors = self.list("vectors").iter();
        vectors.find(|vector| vector["name"] == name).unwrap()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn hex(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(text(value).as_bytes()).unwrap()
}

/// Data keys of the vectors, by their wrapped forms.
struct KnownDeks(HashMap<Vec<u8>, SecretBytes>);

impl KnownDeks {
    fn of(vectors: &Vectors) -> Self {
        let deks = vectors.list("vectors").iter().flat_map(|vector| {
            let dek = SecretBytes::new(hex(&vector["dek_hex"]));
            let wrapped = vector["wrapped_dek_hex"].as_array().unwrap().iter();
            wrapped.map(move |wrapped| (hex(wrapped), dek.clone()))
        });
        Self(deks.collect())
    }
}

impl DataKeys for KnownDeks {
    async fn wrap(&self, _: SdkAlgorithm, _: &SdkContext) -> Result<SdkDataKey, KeyError> {
        Err("the vectors wrap nothing".into())
    }

    async fn unwrap(&self, header: &SdkHeader) -> Result<SecretBytes, KeyError> {
        let wrapped = header.wrapped().iter();
        let mut known = wrapped.filter_map(|key| self.0.get(&key.wrapped));
        Ok(known.next().ok_or("unknown data key")?.clone())
    }
}

fn open(message: &[u8], dek: &SecretBytes) -> Result<(Vec<u8>, SdkReport), SdkError> {
    let mut text = Vec::new();
    let report = SdkReader::read(message)?.open(dek, OpenLimits::default(), &mut text)?;
    Ok((text, report))
}

fn local_keys() -> LocalKeys {
    LocalKeys::new(&[SecretBytes::new(vec![7; 32])]).unwrap()
}

fn entries(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let pairs = pairs.iter();
    pairs
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// A message to be written with a local key, and its data key.
async fn sealer(algorithm: SdkAlgorithm, context: SdkContext) -> (SdkSealer, SecretBytes) {
    let key = local_keys().wrap(algorithm, &context).await.unwrap();
    let dek = key.dek.clone();
    (SdkSealer::new(algorithm, context, key).unwrap(), dek)
}

/// Returns at most `step` bytes a read, like a pipe.
struct Trickle<'a> {
    bytes: &'a [u8],
    step: usize,
}

impl Read for Trickle<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(self.step);
        self.bytes.read(&mut buffer[..most])
    }
}
