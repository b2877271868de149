//! The bodies of the fuzz targets: functions that must not panic. The property tests run them too.
#![allow(dead_code)] // each target uses one of them

use dew_provider::class::objects::Objects;
use dew_provider::cloud::SecretValue;
use dew_provider::envelope::{Header, MESSAGE_START, OpenMessage, inspect_frames};
use dew_provider::node::mount::request::Request;
use dew_provider::node::mount::select::{VolumeRoom, select_object};
use dew_provider::node::socket::Connection;
use dew_provider::policy::{Place, Policy};
use dew_provider::proto::MountRequest;
use dew_provider::util::secret_bytes::SecretBytes;
use tokio::io::AsyncReadExt;

/// Parses the parameter `objects`, and evaluates its expressions on a JSON secret and on other values.
pub(crate) fn objects(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(objects) = Objects::parse(text) else {
        return;
    };
    let json = r#"{"a":"b","n":[1,2,{"x":null}],"o":{"p":"q"},"e":""}"#;
    for value in [json, "text", "", "[]"] {
        let value = SecretValue::Text(value.to_owned().into());
        for object in &objects.list {
            // Both files and an error are valid results.
            let _ = select_object(object, &value, &mut VolumeRoom::default());
        }
    }
}

/// Parses a policy, and asks it about some requests.
pub(crate) fn policy(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let policy = match Policy::parse(text) {
        Ok(policy) => policy,
        Err(problems) => {
            assert!(!problems.is_empty() && problems.len() <= 21, "{problems:?}");
            let length: usize = problems.iter().map(|p| p.to_string().len()).sum();
            assert!(length < 64 * 1024, "{problems:?}");
            return;
        }
    };
    assert!(policy.is_restricted());
    for name in ["a", "shop-eu", "", "*", &"a".repeat(64)] {
        for project in [None, Some(name)] {
            let place = Place::new(name, project);
            let check = policy.check(name, place, [name]);
            assert_eq!(check.is_ok(), policy.allows(name, place, name));
            assert!(!name.is_empty() || check.is_err());
            let _ = check.map_err(|denial| denial.to_string());
        }
    }
}

/// Parses an encrypted message, as it is and behind the first bytes of one, and opens it with a key that is not its own.
pub(crate) fn message(data: &[u8]) {
    let framed = [MESSAGE_START.as_slice(), data].concat();
    for bytes in [data, &framed] {
        let mut input = bytes;
        let Ok(header) = Header::read(&mut input) else {
            continue;
        };
        assert!(bytes.starts_with(&header.to_bytes()));
        assert_eq!(bytes.len() - input.len(), header.length());
        let skip = |input: &mut &[u8], length: u64| {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            *input = &input[length.min(input.len())..];
            Ok(())
        };
        // Both a summary and an error are valid results.
        let _ = inspect_frames(&mut input, header.frame_length, skip);
        assert!(OpenMessage::unlock(header, &SecretBytes::new(vec![0; 32])).is_err());
    }
}

/// Parses a Mount request of the driver: attributes up to the first NUL, then secrets.
pub(crate) fn request(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (attributes, secrets) = text.split_once('\0').unwrap_or((&text, "null"));
    let message = MountRequest {
        attributes: attributes.to_owned(),
        secrets: secrets.to_owned(),
        permission: "420".to_owned(),
        ..MountRequest::default()
    };
    let _ = Request::parse(&message, &tonic::metadata::MetadataMap::new());
}

/// Sends bytes through a connection, in pieces whose length is the first byte: their number must not change.
pub(crate) fn connection(data: &[u8]) {
    let Some((piece, sent)) = data.split_first() else {
        return;
    };
    let received = through(sent, usize::from(*piece).max(1));
    assert_eq!(received.len(), sent.len());
}

/// Sends bytes through a connection in pieces, and returns what is received.
pub(crate) fn through(sent: &[u8], piece: usize) -> Vec<u8> {
    let pieces: Vec<std::io::Result<bytes::Bytes>> = sent
        .chunks(piece)
        .map(|piece| Ok(bytes::Bytes::copy_from_slice(piece)))
        .collect();
    let reader = tokio_util::io::StreamReader::new(futures::stream::iter(pieces));
    let mut received = Vec::new();
    let read = async { Connection::new(reader).read_to_end(&mut received).await };
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let _ = runtime.map(|runtime| runtime.block_on(read));
    received
}
