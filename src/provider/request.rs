//! Step 1, parse: from the driver's message to what it says.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use tokio::time::Instant;
use tonic::metadata::MetadataMap;

use super::error::{MountError, Reason};
use super::parameters::{PARAMETERS, PROTECTED, Parameters};
use super::secrets::{self, PublishSecret};
use super::spec::nearest;
use crate::proto::MountRequest;

/// Most bytes of a request's attributes.
const MAX_ATTRIBUTES: usize = 1024 * 1024;
/// Most bytes of a request's secrets.
const MAX_SECRETS: usize = 64 * 1024;
/// What a Mount may take, whatever the driver allows: kubelet gives up after two minutes, and a
/// time-out of its own would leave the pod an empty folder.
pub const BUDGET: Duration = Duration::from_secs(45);
/// The mode that the driver asks for when its hint cannot be read.
const DEFAULT_MODE: u32 = 0o644;
const KUBELET: &str = "csi.storage.k8s.io/";

/// The pod that the volume is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// ServiceAccount.
    pub service_account: String,
}

impl Pod {
    /// Namespace, name and UID.
    pub fn reference(&self) -> (&str, &str, &str) {
        (&self.namespace, &self.name, &self.uid)
    }
}

/// What one Mount asks for.
#[derive(Debug)]
pub struct Request {
    /// For which pod.
    pub pod: Pod,
    /// Name of its SecretProviderClass.
    pub class: String,
    /// What the class says.
    pub parameters: Parameters,
    /// Keys given by `nodePublishSecretRef`.
    pub secret: Option<Arc<PublishSecret>>,
    /// kubelet's folder of the volume; empty where the caller is not kubelet.
    pub target_path: String,
    /// Mode of files that do not say their own.
    pub default_mode: u32,
    /// When the answer is due.
    pub deadline: Instant,
}

impl Request {
    /// Reads the message. No part of `secrets`, and no value of an attribute, gets into an error.
    pub fn parse(message: &MountRequest, metadata: &MetadataMap) -> Result<Self, MountError> {
        let invalid = |text: String| MountError::new(Reason::Invalid, text);
        if message.attributes.len() > MAX_ATTRIBUTES {
            let size = message.attributes.len();
            return Err(invalid(format!(
                "attributes of {size} bytes are more than {MAX_ATTRIBUTES}"
            )));
        }
        if message.secrets.len() > MAX_SECRETS {
            let size = message.secrets.len();
            return Err(invalid(format!(
                "secrets of {size} bytes are more than {MAX_SECRETS}"
            )));
        }
        let attributes: Attributes = serde_json::from_str(&message.attributes).map_err(|e| {
            invalid(format!(
                "attributes are not a JSON object of strings: {}",
                place(&e)
            ))
        })?;
        if let Some(name) = attributes.repeated {
            return Err(invalid(format!("attributes hold {name:?} twice")));
        }
        for name in &attributes.parameters.unknown {
            if let Some(near) = nearest(name, &PARAMETERS) {
                return Err(invalid(format!(
                    "SecretProviderClass {:?}: parameter {name:?} is not known; did you mean {near}?",
                    attributes.class
                )));
            }
        }
        Ok(Self {
            secret: secrets::parse(&message.secrets)?.map(Arc::new),
            pod: attributes.pod,
            class: attributes.class,
            parameters: attributes.parameters,
            target_path: message.target_path.clone(),
            default_mode: default_mode(&message.permission),
            deadline: Instant::now() + budget(metadata),
        })
    }
}

/// The budget, or less where the driver's own deadline is nearer: answering before it keeps the
/// code ours.
fn budget(metadata: &MetadataMap) -> Duration {
    let given = metadata
        .get("grpc-timeout")
        .and_then(|v| v.to_str().ok())
        .and_then(grpc_timeout);
    given.map_or(BUDGET, |given| BUDGET.min(given.mul_f32(0.9)))
}

/// Reads a `grpc-timeout` header: at most eight digits and a unit.
fn grpc_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count.checked_mul(3600)?)),
        "M" => Some(Duration::from_secs(count.checked_mul(60)?)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

fn default_mode(permission: &str) -> u32 {
    match permission.parse() {
        Ok(mode @ 1..=0o777) => mode,
        _ => DEFAULT_MODE,
    }
}

/// Where JSON is wrong, without quoting it.
pub(super) fn place(error: &serde_json::Error) -> String {
    let what = match error.classify() {
        serde_json::error::Category::Eof => "cut off",
        serde_json::error::Category::Data => "a value that is not a string",
        _ => "bad syntax",
    };
    format!("{what} at line {}, column {}", error.line(), error.column())
}

/// The attributes, taken apart as they are read: most values are kept only if they are needed.
#[derive(Default)]
struct Attributes {
    pod: Pod,
    class: String,
    parameters: Parameters,
    repeated: Option<String>,
}

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Attributes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Attributes, A::Error> {
                let mut found = Attributes::default();
                let mut seen = HashSet::new();
                while let Some(key) = map.next_key::<String>()? {
                    found.take(&key, &mut map)?;
                    if let Some(key) = seen.replace(key) {
                        found.repeated = Some(key);
                    }
                }
                Ok(found)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

impl Attributes {
    fn take<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        if let Some(at) = PROTECTED.iter().position(|p| *p == key) {
            self.parameters.protected[at] = Some(map.next_value()?);
            return Ok(());
        }
        let kubelets = key.strip_prefix(KUBELET);
        match kubelets.unwrap_or(key) {
            "pod.name" if kubelets.is_some() => self.pod.name = map.next_value()?,
            "pod.namespace" if kubelets.is_some() => self.pod.namespace = map.next_value()?,
            "pod.uid" if kubelets.is_some() => self.pod.uid = map.next_value()?,
            "serviceAccount.name" if kubelets.is_some() => {
                self.pod.service_account = map.next_value()?;
            }
            "secretProviderClass" => self.class = map.next_value()?,
            "objects" => self.parameters.objects = Some(map.next_value()?),
            _ => {
                // Read as a string that is thrown away: tokens are among them.
                map.next_value::<IgnoredAny>()?;
                if !key.contains('/') && key != "providerName" {
                    self.parameters.unknown.push(key.to_owned());
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(attributes: &str, secrets: &str) -> Result<Request, MountError> {
        let message = MountRequest {
            attributes: attributes.into(),
            secrets: secrets.into(),
            permission: "420".into(),
            ..MountRequest::default()
        };
        Request::parse(&message, &MetadataMap::new())
    }

    #[test]
    fn reads_what_the_driver_sends() {
        let request = parse(
            r#"{"csi.storage.k8s.io/pod.name":"p","csi.storage.k8s.io/pod.namespace":"n",
                "csi.storage.k8s.io/pod.uid":"u","csi.storage.k8s.io/serviceAccount.name":"s",
                "csi.storage.k8s.io/serviceAccount.tokens":"{\"aud\":{\"token\":\"t\"}}",
                "csi.storage.k8s.io/ephemeral":"true","secretProviderClass":"c",
                "objects":"- x","region":"cn-north-4","projectId":""}"#,
            "null",
        )
        .unwrap();
        let pod = Pod {
            namespace: "n".into(),
            name: "p".into(),
            uid: "u".into(),
            service_account: "s".into(),
        };
        assert_eq!((request.pod, request.class.as_str()), (pod, "c"));
        assert_eq!(request.parameters.protected("region"), Some("cn-north-4"));
        assert_eq!(request.parameters.protected("projectId"), None);
        assert!(request.parameters.unknown.is_empty());
        assert_eq!(request.default_mode, 0o644);
        assert!(request.secret.is_none());
    }

    #[test]
    fn faults_are_told_without_quoting_values() {
        for attributes in [
            r#"{"objects": ["CANARY"]}"#,
            r#"{"objects": "CANARY"#,
            r#"{"objects": "CANARY", "objects": "CANARY"}"#,
            r#"["CANARY"]"#,
            &format!("{}{}", r#"{"x":"#, "[".repeat(200_000)),
        ] {
            let error = parse(attributes, "null").expect_err("refused");
            assert_eq!(error.reason, Reason::Invalid);
            assert!(!error.message.contains("CANARY"), "{error}");
        }
        assert!(parse("{}", r#"{"accessKey": 1, "secretKey": "CANARY"}"#).is_err());
    }

    #[test]
    fn misspelt_parameters_are_refused_and_others_are_noted() {
        let error =
            parse(r#"{"secretProviderClass":"c","regoin":"x"}"#, "null").expect_err("refused");
        assert!(error.message.contains("did you mean region?"), "{error}");
        let request = parse(r#"{"somethingOfTheUser":"x"}"#, "null").unwrap();
        assert_eq!(request.parameters.unknown, ["somethingOfTheUser"]);
    }

    #[test]
    fn the_budget_ends_before_the_drivers_deadline() {
        let with = |timeout: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", timeout.parse().unwrap());
            budget(&metadata)
        };
        assert_eq!(with("119S"), BUDGET);
        assert_eq!(with("10000000u"), Duration::from_secs(9));
        for bad in ["", "S", "x", "99999999999999999999H"] {
            assert_eq!(with(bad), BUDGET);
        }
    }
}
