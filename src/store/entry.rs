//! A version in the store's file.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{Key, Selector, Version};
use crate::cloud::{Identity, SecretValue};
use crate::secret::SecretBytes;

/// A clock may be set back by so much between saving and loading.
const CLOCK_STEP: Duration = Duration::from_secs(60);

/// A version as it is saved: under a key with a lasting identity.
pub(super) struct Saved {
    pub(super) key: Key,
    pub(super) version: Arc<Version>,
    pub(super) checked: Instant,
}

/// A version in the file. `Debug` is left out for the value's sake; its bytes are shared with the
/// store or with what was read, and wiped there.
#[derive(Clone, PartialEq, prost::Message)]
#[prost(skip_debug)]
pub(super) struct Entry {
    #[prost(bytes = "bytes", tag = "1")]
    identity: Bytes,
    #[prost(string, tag = "2")]
    region: String,
    #[prost(string, optional, tag = "3")]
    project: Option<String>,
    #[prost(string, tag = "4")]
    secret: String,
    /// What was asked for: this version, or what has this stage, or `latest`.
    #[prost(string, optional, tag = "5")]
    version: Option<String>,
    #[prost(string, optional, tag = "6")]
    stage: Option<String>,
    /// What came.
    #[prost(string, tag = "7")]
    id: String,
    #[prost(int64, tag = "8")]
    create_time: i64,
    #[prost(bool, tag = "9")]
    binary: bool,
    #[prost(bytes = "bytes", tag = "10")]
    value: Bytes,
    /// When it was confirmed, in milliseconds since 1970.
    #[prost(int64, tag = "11")]
    confirmed: i64,
}

impl Entry {
    pub(super) fn new(saved: &Saved, (instant, date): (Instant, i64)) -> Self {
        let Saved {
            key,
            version,
            checked,
        } = saved;
        let (asked, stage) = match &key.selector {
            Selector::Latest => (None, None),
            Selector::Version(id) => (Some(id.clone()), None),
            Selector::Stage(stage) => (None, Some(stage.clone())),
        };
        let age = instant.duration_since(*checked).as_millis();
        let identity = key.identity.lasting().map(|hash| hash.to_vec());
        Self {
            identity: identity.unwrap_or_default().into(),
            region: key.region.to_string(),
            project: key.project.clone(),
            secret: key.secret.clone(),
            version: asked,
            stage,
            id: version.id.clone(),
            create_time: version.create_time,
            binary: matches!(version.value, SecretValue::Binary(_)),
            value: version.value.bytes().clone().into_bytes(),
            confirmed: date.saturating_sub(i64::try_from(age).unwrap_or(i64::MAX)),
        }
    }

    /// `None` for what is too old, from the future, or makes no sense.
    pub(super) fn into_saved(
        self,
        (instant, date): (Instant, i64),
        limit: Duration,
    ) -> Option<Saved> {
        let since = |confirmed, date: i64| {
            let age = date.checked_sub(confirmed).map(u64::try_from);
            age?.ok().map(Duration::from_millis)
        };
        let age = match since(self.confirmed, date) {
            Some(age) => age,
            // The clock was set back, by a little.
            None => since(date, self.confirmed).filter(|ahead| *ahead <= CLOCK_STEP)?,
        };
        if age >= limit || self.secret.is_empty() || self.id.is_empty() {
            return None;
        }
        let selector = match (self.version, self.stage) {
            (None, None) => Selector::Latest,
            (Some(version), None) if version == self.id => Selector::Version(version),
            (None, Some(stage)) => Selector::Stage(stage),
            (Some(_), _) => return None,
        };
        // A copy, so that one value does not hold the memory of all.
        let value = SecretBytes::new(self.value.to_vec());
        let value = match self.binary {
            true => SecretValue::Binary(value),
            false => {
                value.expose_str()?;
                SecretValue::Text(value)
            }
        };
        Some(Saved {
            key: Key {
                identity: Identity::from_lasting(self.identity.as_ref().try_into().ok()?),
                region: self.region.parse().ok()?,
                project: self.project,
                secret: self.secret,
                selector,
            },
            version: Arc::new(Version {
                id: self.id,
                create_time: self.create_time,
                value,
            }),
            checked: instant.checked_sub(age)?,
        })
    }
}
