//! Secrets: create, list, describe, delete.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use super::versions::NewValue;
use super::{Call, Secrets, page_info, usable, valid_name};
use crate::emulator::answer::{Answer, Refused, refuse};
use crate::emulator::model::{Secret, State};
use crate::emulator::uuid;

/// Secrets of a user.
const MAX_SECRETS: usize = 200;
const MAX_DESCRIPTION: usize = 2048;
const DAY_MS: i64 = 24 * 60 * 60 * 1000;

#[derive(Deserialize)]
struct Create {
    name: String,
    kms_key_id: Option<String>,
    description: Option<String>,
    secret_type: Option<String>,
    #[serde(flatten)]
    value: NewValue,
}

#[derive(Deserialize)]
struct Update {
    description: Option<String>,
    kms_key_id: Option<String>,
}

#[derive(Deserialize)]
struct Schedule {
    recovery_window_in_days: i64,
}

impl Call<'_> {
    pub(super) fn create_secret(&self, secrets: &mut Secrets) -> Result<Answer, Refused> {
        let create: Create = self.parse()?;
        if !valid_name(&create.name) {
            return Err(refuse(
                400,
                "CSMS.0002",
                "name must match ^[a-zA-Z0-9_-]{1,64}$",
            ));
        }
        if create.secret_type.is_some_and(|kind| kind != "COMMON") {
            return Err(refuse(
                400,
                "CSMS.0002",
                "only secret_type COMMON is emulated",
            ));
        }
        check_description(create.description.as_deref())?;
        if secrets.contains_key(&create.name) {
            return Err(refuse(409, "CSMS.0101", "The secret name already exists"));
        }
        if secrets.len() >= MAX_SECRETS {
            return Err(refuse(400, "CSMS.0202", "Too many secrets"));
        }
        let mut secret = Secret {
            id: uuid(),
            name: create.name.clone(),
            state: State::Enabled,
            kms_key_id: create.kms_key_id.unwrap_or_else(uuid),
            description: create.description,
            create_time: self.now,
            update_time: self.now,
            scheduled_delete_time: None,
            versions: BTreeMap::new(),
            stages: BTreeMap::new(),
        };
        secret.add_version(create.value.value()?, None, &[], self.now);
        let answer = json!({"secret": secret.json()});
        secrets.insert(create.name, secret);
        Ok(Answer::ok(answer))
    }

    /// In the order of names. `marker` is the first name of the page.
    pub(super) fn list_secrets(&self, secrets: &Secrets) -> Result<Answer, Refused> {
        let limit = self.limit()?;
        let marker = self.parameter("marker").unwrap_or_default();
        let mut rest = secrets.range(marker.clone()..);
        let page: Vec<_> = rest
            .by_ref()
            .take(limit)
            .map(|(_, one)| one.json())
            .collect();
        let next = rest.next().map(|(name, _)| name.clone());
        let previous = secrets.range(..marker).rev().take(limit).last();
        let previous = previous.map(|(name, _)| name.clone());
        let info = page_info(next, previous, page.len());
        Ok(Answer::ok(json!({"secrets": page, "page_info": info})))
    }

    pub(super) fn update_secret(&self, secrets: &mut Secrets) -> Result<Answer, Refused> {
        let update: Update = self.parse()?;
        check_description(update.description.as_deref())?;
        let secret = self.secret_mut(secrets)?;
        usable(secret)?;
        secret.description = update.description.or(secret.description.take());
        if let Some(key) = update.kms_key_id {
            secret.kms_key_id = key;
        }
        secret.update_time = self.now;
        Ok(Answer::ok(json!({"secret": secret.json()})))
    }

    pub(super) fn delete_secret(&self, secrets: &mut Secrets) -> Result<Answer, Refused> {
        secrets.remove(self.name()).ok_or_else(|| self.missing())?;
        Ok(Answer::empty(self.delete_status))
    }

    pub(super) fn schedule_deletion(&self, secrets: &mut Secrets) -> Result<Answer, Refused> {
        let days = self.parse::<Schedule>()?.recovery_window_in_days;
        if !(7..=30).contains(&days) {
            let message = "recovery_window_in_days must be from 7 to 30";
            return Err(refuse(400, "CSMS.0002", message));
        }
        let secret = self.secret_mut(secrets)?;
        if secret.state == State::PendingDelete {
            let message = "The secret is scheduled for deletion already";
            return Err(refuse(400, "CSMS.0107", message));
        }
        secret.state = State::PendingDelete;
        secret.scheduled_delete_time = Some(self.now + days * DAY_MS);
        Ok(Answer::ok(json!({"secret": secret.json()})))
    }

    pub(super) fn cancel_deletion(&self, secrets: &mut Secrets) -> Result<Answer, Refused> {
        let secret = self.secret_mut(secrets)?;
        if secret.state != State::PendingDelete {
            let message = "The secret is not scheduled for deletion";
            return Err(refuse(400, "CSMS.0108", message));
        }
        secret.state = State::Enabled;
        secret.scheduled_delete_time = None;
        Ok(Answer::ok(json!({"secret": secret.json()})))
    }
}

fn check_description(text: Option<&str>) -> Result<(), Refused> {
    match text {
        Some(text) if text.len() > MAX_DESCRIPTION => Err(refuse(
            400,
            "CSMS.0002",
            "description is longer than 2048 bytes",
        )),
        _ => Ok(()),
    }
}
