//! Stages: names that point at one version each.

use serde::Deserialize;
use serde_json::json;

use super::versions::no_version;
use super::{Call, Secrets, usable, valid_name};
use crate::emulator::answer::{Answer, Refused, refuse};
use crate::emulator::model::{CURRENT, MAX_STAGES, PREVIOUS};

#[derive(Deserialize)]
struct Update {
    version_id: String,
}

impl Call<'_> {
    pub(super) fn show_stage(&self, secrets: &Secrets) -> Result<Answer, Refused> {
        let secret = self.secret(secrets)?;
        let stage = secret.stages.get(self.item()).ok_or_else(no_stage)?;
        let stage = secret.stage_json(self.item(), stage);
        Ok(Answer::ok(json!({"stage": stage})))
    }

    pub(super) fn update_stage(&self, secrets: &mut Secrets) -> Result<Answer, Refused> {
        let update: Update = self.parse()?;
        if !valid_name(self.item()) {
            let message = "a stage must match ^[a-zA-Z0-9_-]{1,64}$";
            return Err(refuse(400, "CSMS.0002", message));
        }
        let secret = self.secret_mut(secrets)?;
        usable(secret)?;
        let version = self.number(secret, &update.version_id)?;
        if !secret.versions.contains_key(&version) {
            return Err(no_version());
        }
        secret.move_stage(self.item(), version, self.now);
        if secret.stages.len() > MAX_STAGES {
            return Err(refuse(400, "CSMS.0204", "Too many stages"));
        }
        self.show_stage(secrets)
    }

    pub(super) fn delete_stage(&self, secrets: &mut Secrets) -> Result<Answer, Refused> {
        if [CURRENT, PREVIOUS].contains(&self.item()) {
            return Err(refuse(400, "CSMS.0105", "A system stage cannot be deleted"));
        }
        let secret = self.secret_mut(secrets)?;
        usable(secret)?;
        secret.stages.remove(self.item()).ok_or_else(no_stage)?;
        Ok(Answer::empty(axum::http::StatusCode::NO_CONTENT))
    }
}

fn no_stage() -> Refused {
    refuse(404, "CSMS.0206", "The secret stage does not exist")
}
