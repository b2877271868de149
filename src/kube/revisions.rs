//! SecretRevision: what the leader publishes about a secret.

use kube::CustomResource;
use ring::digest::{Context, SHA256};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A condition in the usual form of Kubernetes.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// `Ready`: whether the secret's version could be confirmed.
    #[serde(rename = "type")]
    pub type_: String,
    /// `True` or `False`.
    pub status: String,
    /// `Confirmed`, or the kind of the failure.
    pub reason: String,
    /// The cause, with the cloud's code and request ID.
    pub message: String,
    /// When the status last changed.
    #[schemars(extend("format" = "date-time"))]
    pub last_transition_time: String,
}

/// A secret of CSMS that pods follow by `latest` or by a stage. Written by the leader only, when the
/// secret moved or could not be polled; read by every node. Contains no value.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[kube(
    group = "dew-provider.io",
    version = "v1alpha1",
    kind = "SecretRevision",
    shortname = "srev",
    category = "dew",
    status = "SecretRevisionStatus",
    derive = "PartialEq",
    doc = "The observed version of a CSMS secret that pods follow by latest or by a stage",
    printcolumn = r#"{"name":"Secret","type":"string","jsonPath":".spec.secret"}"#,
    printcolumn = r#"{"name":"Stage","type":"string","jsonPath":".spec.stage"}"#,
    printcolumn = r#"{"name":"Version","type":"string","jsonPath":".status.version"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].status"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.conditions[?(@.type==\"Ready\")].reason"}"#,
    printcolumn = r#"{"name":"Pods","type":"integer","jsonPath":".status.pods"}"#,
    printcolumn = r#"{"name":"Changed","type":"date","jsonPath":".status.changed"}"#,
    printcolumn = r#"{"name":"Checked","type":"date","jsonPath":".status.checked"}"#,
    printcolumn = r#"{"name":"Region","type":"string","jsonPath":".spec.region","priority":1}"#,
    printcolumn = r#"{"name":"Project","type":"string","jsonPath":".spec.project","priority":1}"#,
    printcolumn = r#"{"name":"Interval","type":"string","jsonPath":".spec.interval","priority":1}"#,
    printcolumn = r#"{"name":"Current","type":"string","jsonPath":".status.current","priority":1}"#
)]
#[serde(rename_all = "camelCase")]
pub struct SecretRevisionSpec {
    /// Region of the secret.
    pub region: String,
    /// Project of the secret; not set if it is the project of the provider's credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Name of the secret in CSMS.
    pub secret: String,
    /// The stage that pods follow; not set if they follow `latest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<String>,
    /// How often the secret is polled, such as `2m`: the shortest interval of the SecretProviderClasses
    /// that name it.
    pub interval: String,
}

/// What was observed.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct SecretRevisionStatus {
    /// ID of the newest version, or of the version that holds the stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// For `latest`, ID of the version that holds `SYSCURRENT`. The service decides which of the two
    /// `latest` means, so a move of either counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// When the version was created, in milliseconds since 1970: distinguishes a secret from an earlier
    /// one of the same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<i64>,
    /// When the version was observed to change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub changed: Option<String>,
    /// When this status was written. The annotation `dew-provider.io/confirmed` of the provider's Lease
    /// says until when it is still valid: it is updated after all secrets were polled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub checked: Option<String>,
    /// The seconds over which nodes spread their fetches, so that together they stay below the account's
    /// rate limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread_seconds: Option<u32>,
    /// Number of pods that had it mounted when this was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pods: Option<u32>,
    /// `Ready`, with reason and cause if it is `False`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

impl SecretRevisionSpec {
    /// The object's name: readable, and derived from the spec alone.
    pub fn object_name(&self) -> String {
        let mut digest = Context::new(&SHA256);
        let project = self.project.as_deref().unwrap_or_default();
        let stage = self.stage.as_deref().unwrap_or_default();
        for part in [&self.region, project, &self.secret, stage] {
            digest.update(&(part.len() as u64).to_be_bytes());
            digest.update(part.as_bytes());
        }
        let hex = data_encoding::HEXLOWER.encode(&digest.finish().as_ref()[..5]);
        let mut readable: String = self
            .secret
            .chars()
            .map(|c| {
                if c.is_ascii_alphanumeric() {
                    c.to_ascii_lowercase()
                } else {
                    '-'
                }
            })
            .collect();
        readable = readable.trim_matches('-').to_owned();
        if readable.is_empty() {
            readable = "secret".to_owned();
        }
        format!("{readable}-{hex}")
    }
}

impl SecretRevisionStatus {
    /// The condition `Ready`.
    pub fn ready(&self) -> Option<&Condition> {
        self.conditions.iter().find(|c| c.type_ == "Ready")
    }
}
