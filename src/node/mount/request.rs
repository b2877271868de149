//! Step 1, request: parses the driver's message, within limits.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use zeroize::Zeroizing;

use super::error::{MountError, Reason};
use crate::class::objects::MAX_OBJECTS_BYTES;
use crate::class::parameters::{
    PARAMETERS, PROTECTED, Parameters, UNSUPPORTED_IDENTITY, asks_for_identity,
};
use crate::class::suggestion::nearest;
use crate::kube::PodRef;
use crate::node::pod_credentials::PublishSecret;
use crate::node::volumes::VolumeId;
use crate::proto::MountRequest;
use crate::util::json::{self, MaybeText};
use crate::util::text::one_line;

/// Largest `attributes` of a request, in bytes.
const MAX_ATTRIBUTES: usize = 1024 * 1024;
/// Longest name that a message shows, in characters: that of an object in Kubernetes.
const MAX_SHOWN: usize = 253;
/// Largest `secrets` of a request, in bytes.
const MAX_SECRETS: usize = 64 * 1024;
/// Limit of one Mount, even if the driver allows more: kubelet gives up after two minutes, and its timeout
/// would leave the pod an empty directory.
pub const MOUNT_TIMEOUT: Duration = Duration::from_secs(45);
/// The mode of files if the driver's default cannot be parsed.
const DEFAULT_MODE: u32 = 0o644;
const KUBELET_PREFIX: &str = "csi.storage.k8s.io/";

/// A parsed Mount request.
#[derive(Debug)]
pub struct Request {
    /// The pod that the volume belongs to.
    pub pod: PodRef,
    /// Name of its SecretProviderClass.
    pub class: String,
    /// The parameters of the class.
    pub parameters: Parameters,
    /// The keys of `nodePublishSecretRef`.
    pub publish_secret: Option<Arc<PublishSecret>>,
    /// kubelet's directory of the volume.
    pub target_path: String,
    /// Mode of files that do not set their own.
    pub default_mode: u32,
    /// When the response is due.
    pub deadline: Instant,
}

impl Request {
    /// Parses the message.
    ///
    /// # Errors
    /// [`Reason::Invalid`]. The message contains neither `secrets` nor the value of an attribute.
    pub fn parse(message: &MountRequest, metadata: &MetadataMap) -> Result<Self, MountError> {
        let invalid = |text: String| MountError::new(Reason::Invalid, text);
        if message.attributes.len() > MAX_ATTRIBUTES {
            let size = message.attributes.len();
            return Err(invalid(format!(
                "attributes too large: {size} bytes (limit {MAX_ATTRIBUTES})"
            )));
        }
        if message.secrets.len() > MAX_SECRETS {
            let size = message.secrets.len();
            return Err(invalid(format!(
                "secrets too large: {size} bytes (limit {MAX_SECRETS})"
            )));
        }
        let attributes: Attributes = serde_json::from_str(&message.attributes).map_err(|e| {
            invalid(format!(
                "attributes are not a JSON object of strings: {}",
                json::describe(&e, "it is not an object")
            ))
        })?;
        let class = one_line(&attributes.class, MAX_SHOWN);
        if let Some((name, found)) = attributes.mistyped {
            return Err(invalid(format!(
                "attribute {:?} is {found}, not a string: put the value in quotes",
                one_line(&name, MAX_SHOWN)
            )));
        }
        if let Some(name) = attributes.repeated {
            let name = one_line(&name, MAX_SHOWN);
            return Err(invalid(format!("attributes contain {name:?} twice")));
        }
        for name in &attributes.parameters.unknown {
            if let Some(near) = nearest(name, &PARAMETERS) {
                return Err(invalid(format!(
                    "SecretProviderClass {class:?}: unknown parameter {name:?}; did you mean {near}?"
                )));
            }
        }
        if let Some(objects) = &attributes.parameters.objects
            && objects.len() > MAX_OBJECTS_BYTES
        {
            return Err(invalid(format!(
                "SecretProviderClass {:?}: objects: list too large: {} bytes (limit {MAX_OBJECTS_BYTES})",
                attributes.class,
                objects.len()
            )));
        }
        if let Some(name) = attributes.identity {
            return Err(invalid(format!(
                "SecretProviderClass {class:?}: parameter {:?} {UNSUPPORTED_IDENTITY}",
                one_line(&name, MAX_SHOWN)
            )));
        }
        Ok(Self {
            publish_secret: PublishSecret::parse(&message.secrets)?.map(Arc::new),
            pod: attributes.pod,
            class: attributes.class,
            parameters: attributes.parameters,
            target_path: message.target_path.clone(),
            default_mode: default_mode(&message.permission),
            deadline: Instant::now() + timeout(metadata),
        })
    }

    /// The volume to mount.
    pub fn volume_id(&self) -> VolumeId {
        VolumeId {
            pod_uid: self.pod.uid.clone(),
            class: self.class.clone(),
            target_path: self.target_path.clone(),
        }
    }
}

/// The limit of a Mount, or less if the driver's own deadline is earlier: only before that deadline can the
/// provider choose the gRPC code.
fn timeout(metadata: &MetadataMap) -> Duration {
    let requested = metadata
        .get("grpc-timeout")
        .and_then(|v| v.to_str().ok())
        .and_then(grpc_timeout);
    requested.map_or(MOUNT_TIMEOUT, |limit| MOUNT_TIMEOUT.min(limit.mul_f32(0.9)))
}

/// Parses a `grpc-timeout` header: digits and a unit.
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

/// The attributes that the provider needs.
#[derive(Default)]
struct Attributes {
    pod: PodRef,
    class: String,
    parameters: Parameters,
    repeated: Option<String>,
    /// An attribute that is not a string, and what it is.
    mistyped: Option<(String, &'static str)>,
    /// An unknown parameter that asks for an identity.
    identity: Option<String>,
}

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AttributesVisitor;
        impl<'de> Visitor<'de> for AttributesVisitor {
            type Value = Attributes;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Attributes, A::Error> {
                let mut found = Attributes::default();
                let mut seen = HashSet::new();
                while let Some(key) = map.next_key::<String>()? {
                    found.read(&key, &mut map)?;
                    if let Some(key) = seen.replace(key) {
                        found.repeated = Some(key);
                    }
                }
                Ok(found)
            }
        }
        deserializer.deserialize_map(AttributesVisitor)
    }
}

impl Attributes {
    fn read<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        if key.contains('/') && !key.starts_with(KUBELET_PREFIX) || key == "providerName" {
            // Skip the value without a copy, because some values contain tokens.
            map.next_value::<IgnoredAny>()?;
            return Ok(());
        }
        if let Some(at) = PROTECTED.iter().position(|p| *p == key) {
            self.parameters.protected[at] = self.text(key, map)?;
            return Ok(());
        }
        match key.strip_prefix(KUBELET_PREFIX) {
            Some("pod.name") => self.pod.name = self.text(key, map)?.unwrap_or_default(),
            Some("pod.namespace") => self.pod.namespace = self.text(key, map)?.unwrap_or_default(),
            Some("pod.uid") => self.pod.uid = self.text(key, map)?.unwrap_or_default(),
            Some("serviceAccount.name") => {
                self.pod.service_account = self.text(key, map)?.unwrap_or_default();
            }
            // Tokens, which are skipped as well.
            Some(_) => drop(map.next_value::<IgnoredAny>()?),
            None if key == "secretProviderClass" => {
                self.class = self.text(key, map)?.unwrap_or_default();
            }
            None if key == "objects" => self.parameters.objects = self.text(key, map)?,
            None => {
                let value: Option<Zeroizing<String>> = self.text(key, map)?;
                if value.is_some_and(|value| asks_for_identity(key, &value)) {
                    self.identity.get_or_insert_with(|| key.to_owned());
                }
                self.parameters.unknown.push(key.to_owned());
            }
        }
        Ok(())
    }

    /// Reads a value that must be a string; if it is none, notes that.
    fn text<'de, A: MapAccess<'de>, T: From<String>>(
        &mut self,
        key: &str,
        map: &mut A,
    ) -> Result<Option<T>, A::Error> {
        match map.next_value::<MaybeText<T>>()?.0 {
            Ok(text) => Ok(Some(text)),
            Err(found) => {
                self.mistyped.get_or_insert_with(|| (key.to_owned(), found));
                Ok(None)
            }
        }
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
    fn the_drivers_message_is_parsed() {
        let request = parse(
            r#"{"csi.storage.k8s.io/pod.name":"p","csi.storage.k8s.io/pod.namespace":"n",
                "csi.storage.k8s.io/pod.uid":"u","csi.storage.k8s.io/serviceAccount.name":"s",
                "csi.storage.k8s.io/serviceAccount.tokens":"{\"aud\":{\"token\":\"t\"}}",
                "csi.storage.k8s.io/ephemeral":"true","secretProviderClass":"c",
                "objects":"- x","region":"cn-north-4","projectId":""}"#,
            "null",
        )
        .unwrap();
        let pod = PodRef {
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
        assert!(request.publish_secret.is_none());
    }

    #[test]
    fn errors_do_not_quote_values() {
        for attributes in [
            r#"{"objects": ["CANARY"]}"#,
            r#"{"objects": "CANARY"#,
            r#"{"objects": "CANARY", "objects": "CANARY"}"#,
            r#"["CANARY"]"#,
            &format!("{}{}", r#"{"x":"#, "[".repeat(200_000)),
        ] {
            let error = parse(attributes, "null").expect_err("rejected");
            assert_eq!(error.reason, Reason::Invalid);
            assert!(!error.message.contains("CANARY"), "{error}");
        }
        assert!(parse("{}", r#"{"accessKey": 1, "secretKey": "CANARY"}"#).is_err());
    }

    #[test]
    fn misspelled_parameters_are_rejected_and_others_recorded() {
        let error =
            parse(r#"{"secretProviderClass":"c","regoin":"x"}"#, "null").expect_err("rejected");
        assert!(error.message.contains("did you mean region?"), "{error}");
        let request = parse(r#"{"somethingOfTheUser":"x"}"#, "null").unwrap();
        assert_eq!(request.parameters.unknown, ["somethingOfTheUser"]);
    }

    #[test]
    fn parameters_that_ask_for_an_unsupported_identity_are_rejected() {
        for name in [
            "useWorkloadCred",
            "authType",
            "credentialsSecretName",
            "usePodIdentity",
            "assumeRoleArn",
            "agency_name",
            "accessKey",
        ] {
            let with = |value| {
                parse(
                    &format!(r#"{{"secretProviderClass":"c","{name}":"{value}"}}"#),
                    "null",
                )
            };
            let error = with("true").expect_err(name);
            assert_eq!(error.reason, Reason::Invalid);
            assert!(error.message.contains(name), "{error}");
            for off in ["", "false", "False"] {
                assert!(with(off).is_ok(), "{name}: {off}");
            }
        }
    }

    #[test]
    fn a_mount_times_out_before_the_drivers_deadline() {
        let timeout_for = |header: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", header.parse().unwrap());
            timeout(&metadata)
        };
        assert_eq!(timeout_for("119S"), MOUNT_TIMEOUT);
        assert_eq!(timeout_for("10000000u"), Duration::from_secs(9));
        for invalid in ["", "S", "x", "99999999999999999999H"] {
            assert_eq!(timeout_for(invalid), MOUNT_TIMEOUT);
        }
    }
}
