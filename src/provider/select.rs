//! Step 5, select: from the value of a secret to the contents of files.

use data_encoding::{BASE64, BASE64_MIME_PERMISSIVE, HEXLOWER_PERMISSIVE};
use serde_json::Value;
use zeroize::Zeroize;

use super::error::{ObjectError, Reason};
use super::files::MAX_RESPONSE;
use super::numbers::Literals;
use super::paths;
use super::spec::{Content, Encoding, Object};
use crate::cloud::SecretValue;
use crate::secret::SecretBytes;

/// A file without its place in the answer yet.
#[derive(Debug)]
pub struct Selected {
    /// Relative path in the volume.
    pub path: String,
    /// Mode, where the spec gives one.
    pub mode: Option<u32>,
    /// Bytes.
    pub contents: SecretBytes,
    /// The part of the spec that made it, for the version: an expression or a key.
    pub origin: String,
}

/// The files that `object` becomes, given its value.
///
/// `room` is what the volume can still take, in bytes; it is used up as files are made, so that no
/// list of files can fill the memory before it is refused.
pub fn select(
    object: &Object,
    value: &SecretValue,
    room: &mut usize,
) -> Result<Vec<Selected>, ObjectError> {
    let fault = |field, message: String| ObjectError {
        reason: Reason::Precondition,
        object: object.name.clone(),
        field,
        message,
    };
    match &object.content {
        Content::Whole { path, extracts } => {
            // Beside parts of it the whole is JSON as it is: the encoding is the parts'.
            let encoding = if extracts.is_empty() {
                object.encoding
            } else {
                Encoding::Utf8
            };
            let mut files = vec![Selected {
                path: path.clone(),
                mode: object.mode,
                contents: decode(encoding, value).map_err(|m| fault("encoding", m))?,
                origin: String::new(),
            }];
            take(room, &files[0]).map_err(|m| fault("objectName", m))?;
            if extracts.is_empty() {
                return Ok(files);
            }
            let json = Json::parse(value).map_err(|m| fault("jmesPath", m))?;
            for extract in extracts {
                let expression = extract.expression.as_str();
                // The error's text may quote the value, so only its kind is told.
                let result = extract.expression.search(&json.value.0).map_err(|error| {
                    let why = runtime_reason(&error.reason);
                    fault(
                        "jmesPath",
                        format!("{expression:?} cannot be applied: {why}"),
                    )
                })?;
                let result = Wiped(result);
                if result.0.is_null() {
                    if object.optional {
                        continue;
                    }
                    let message = format!(
                        "{expression:?} finds nothing in the secret's JSON: check the names in it, \
                         or set optional: true"
                    );
                    return Err(ObjectError {
                        reason: Reason::NotFound,
                        ..fault("jmesPath", message)
                    });
                }
                let contents = json
                    .text_of(&result.0)
                    .and_then(|text| decode(object.encoding, &text))
                    .map_err(|m| fault("encoding", format!("{expression:?}: {m}")))?;
                let file = Selected {
                    path: extract.path.clone(),
                    mode: extract.mode.or(object.mode),
                    contents,
                    origin: format!("jmesPath:{expression}"),
                };
                take(room, &file).map_err(|m| fault("jmesPath", m))?;
                files.push(file);
            }
            Ok(files)
        }
        Content::AllKeys { folder } => {
            let json = Json::parse(value).map_err(|m| fault("allKeys", m))?;
            let Value::Object(keys) = &json.value.0 else {
                return Err(fault(
                    "allKeys",
                    "the secret is JSON, but not an object with keys".into(),
                ));
            };
            if keys.is_empty() && !object.optional {
                return Err(fault(
                    "allKeys",
                    "the secret's JSON object has no keys".into(),
                ));
            }
            let mut files = Vec::with_capacity(keys.len());
            for (index, (key, value)) in keys.iter().enumerate() {
                // A key is part of the secret, so it is told by its place.
                if paths::check(key).is_err() || key.contains('/') {
                    let message = format!(
                        "key number {} (in order of names) of the secret's JSON cannot be a file \
                         name: use jmesPath with an objectAlias for it",
                        index + 1
                    );
                    return Err(fault("allKeys", message));
                }
                let file = Selected {
                    path: folder
                        .as_ref()
                        .map_or_else(|| key.clone(), |f| format!("{f}/{key}")),
                    mode: object.mode,
                    contents: json
                        .text_of(value)
                        .and_then(|text| decode(object.encoding, &text))
                        .map_err(|m| fault("encoding", format!("key number {}: {m}", index + 1)))?,
                    origin: format!("key:{key}"),
                };
                take(room, &file).map_err(|m| fault("allKeys", m))?;
                files.push(file);
            }
            Ok(files)
        }
    }
}

/// What a file adds to the answer beside its path and contents: tags, lengths, mode, version.
const FILE_OVERHEAD: usize = 64;

/// Takes the file's place in the answer out of what is left.
fn take(room: &mut usize, file: &Selected) -> Result<(), String> {
    let size = file.contents.len() + 2 * file.path.len() + FILE_OVERHEAD;
    let left = room.checked_sub(size);
    *room = left.unwrap_or(0);
    left.map(drop).ok_or_else(|| {
        format!(
            "with it the volume's files are too large: the driver takes at most {MAX_RESPONSE} bytes; \
             spread the objects over several SecretProviderClasses"
        )
    })
}

/// Turns text into bytes as the object says. Binary secrets are bytes already.
fn decode(encoding: Encoding, value: &SecretValue) -> Result<SecretBytes, String> {
    let bytes = match value {
        SecretValue::Text(bytes) => bytes,
        SecretValue::Binary(bytes) if encoding == Encoding::Utf8 => bytes,
        SecretValue::Binary(_) => {
            return Err("the secret is binary and needs no decoding: remove the encoding".into());
        }
    };
    let text = bytes.expose().trim_ascii();
    let decoded = match encoding {
        Encoding::Utf8 => return Ok(bytes.clone()),
        Encoding::Base64 => BASE64
            .decode(text)
            .or_else(|_| BASE64_MIME_PERMISSIVE.decode(text)),
        Encoding::Hex => HEXLOWER_PERMISSIVE.decode(text),
    };
    decoded.map(SecretBytes::new).map_err(|error| {
        let name = if encoding == Encoding::Hex {
            "hexadecimal"
        } else {
            "Base64"
        };
        format!("the value is not {name} (at byte {})", error.position)
    })
}

/// Parsed JSON of a secret.
struct Json {
    value: Wiped,
    literals: Literals,
}

impl Json {
    fn parse(value: &SecretValue) -> Result<Self, String> {
        let SecretValue::Text(bytes) = value else {
            return Err("the secret is binary, not JSON text".into());
        };
        // serde_json's message quotes the value, so only the place is told.
        let value = serde_json::from_slice(bytes.expose())
            .map(Wiped)
            .map_err(|error| {
                format!(
                    "the secret is not JSON (line {}, column {})",
                    error.line(),
                    error.column()
                )
            })?;
        let literals = Literals::of(bytes.expose());
        Ok(Self { value, literals })
    }

    /// A string as it is, anything else as compact JSON.
    fn text_of(&self, value: &Value) -> Result<SecretValue, String> {
        Ok(SecretValue::Text(match value {
            Value::String(text) => SecretBytes::new(text.as_bytes().to_vec()),
            other => SecretBytes::new(self.literals.print(other)?),
        }))
    }
}

/// A value whose strings are wiped in the end.
struct Wiped(Value);

impl Drop for Wiped {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(items) => items.iter_mut().for_each(wipe),
        Value::Object(keys) => keys.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn runtime_reason(reason: &jpx_core::ErrorReason) -> &'static str {
    use jpx_core::{ErrorReason, RuntimeError};
    match reason {
        ErrorReason::Runtime(RuntimeError::UnknownFunction(_)) => {
            "it calls a function that does not exist"
        }
        ErrorReason::Runtime(
            RuntimeError::TooManyArguments { .. } | RuntimeError::NotEnoughArguments { .. },
        ) => "a function has the wrong number of arguments",
        ErrorReason::Runtime(
            RuntimeError::InvalidType { .. } | RuntimeError::InvalidReturnType { .. },
        ) => "a value has the wrong type for a function",
        _ => "it fails on this value",
    }
}
