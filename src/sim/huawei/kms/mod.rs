//! The operations of the KMS v1.0 API, with real cryptography.

mod call;
mod cipher;
mod data;
mod data_keys;
mod keys;
mod material;
mod model;
mod signatures;

use super::reply::{ApiRejection, ApiReply, reject};
pub(super) use call::{KmsCall, writes};
pub(super) use material::KeyMaterial;
pub(super) use model::{KeysByProject, ProjectKeys};

/// The operation for the last segment of a path.
pub(super) fn operation(path: &str) -> Option<&'static str> {
    Some(match path {
        "create-key" => "CreateKey",
        "list-keys" => "ListKeys",
        "describe-key" => "ListKeyDetail",
        "enable-key" => "EnableKey",
        "disable-key" => "DisableKey",
        "schedule-key-deletion" => "DeleteKey",
        "cancel-key-deletion" => "CancelKeyDeletion",
        "encrypt-data" => "EncryptData",
        "decrypt-data" => "DecryptData",
        "create-datakey" => "CreateDatakey",
        "create-datakey-without-plaintext" => "CreateDatakeyWithoutPlaintext",
        "encrypt-datakey" => "EncryptDatakey",
        "decrypt-datakey" => "DecryptDatakey",
        "sign" => "Sign",
        "verify" => "ValidateSignature",
        "get-publickey" => "ShowPublicKey",
        "gen-random" => "CreateRandom",
        _ => return None,
    })
}

/// Makes the material of the key that a call creates. It takes seconds for large RSA keys, so that it is done
/// before the call takes the lock of the cloud. `None` if the call will be rejected.
pub(super) fn material(body: &[u8]) -> Option<KeyMaterial> {
    keys::spec(body).and_then(KeyMaterial::generate)
}

/// Executes the call. If it is rejected, `keys` may be partly changed and must be discarded.
pub(super) fn execute(call: KmsCall<'_>, keys: &mut ProjectKeys) -> Result<ApiReply, ApiRejection> {
    call.authorize()?;
    keys.retain(|_, key| key.deletion_time.is_none_or(|at| at > call.now));
    match call.operation {
        "CreateKey" => keys::create(call, keys),
        "ListKeys" => keys::list(&call, keys),
        "ListKeyDetail" => keys::describe(&call, keys),
        "EnableKey" => keys::enable(&call, keys),
        "DisableKey" => keys::disable(&call, keys),
        "DeleteKey" => keys::schedule_deletion(&call, keys),
        "CancelKeyDeletion" => keys::cancel_deletion(&call, keys),
        "EncryptData" => data::encrypt(&call, keys),
        "DecryptData" => data::decrypt(&call, keys),
        "CreateDatakey" => data_keys::create(&call, keys, true),
        "CreateDatakeyWithoutPlaintext" => data_keys::create(&call, keys, false),
        "EncryptDatakey" => data_keys::encrypt(&call, keys),
        "DecryptDatakey" => data_keys::decrypt(&call, keys),
        "Sign" => signatures::sign(&call, keys),
        "ValidateSignature" => signatures::verify(&call, keys),
        "ShowPublicKey" => signatures::public_key(&call, keys),
        "CreateRandom" => data_keys::random(&call),
        _ => Err(reject(404, "APIG.0101", "The API does not exist")),
    }
}
