//! Compares two Mounts of a volume, for the Event `SecretRotated`.

use std::sync::Arc;

use super::record::{Delivered, MountRecord};

/// The secrets whose version changed between two Mounts, as `"name" v1 → v2`. A class lists a secret once.
pub(super) fn changes(old: &MountRecord, new: &MountRecord) -> Vec<String> {
    if old.delivered == new.delivered && Arc::ptr_eq(&old.keys, &new.keys) {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (key, delivered) in new.keys.iter().zip(new.delivered.iter()) {
        let Delivered::Version(version) = *delivered else {
            continue;
        };
        let before = old.keys.iter().position(|k| k.secret == key.secret);
        match before.map(|index| old.delivered[index]) {
            Some(Delivered::Version(before)) if before != version => {
                found.push(format!(
                    "{:?} v{} → v{}",
                    key.secret, before.number, version.number
                ));
            }
            None | Some(Delivered::Nothing) => {
                found.push(format!("{:?} → v{}", key.secret, version.number));
            }
            Some(Delivered::Version(_) | Delivered::Failover) => {}
        }
    }
    found
}
