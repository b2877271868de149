"""Reads and writes messages with the AWS Encryption SDK, whose format ours is.

    interoperable.py seal FOLDER     writes FOLDER/NAME.sealed for each case of FOLDER/cases.json
    interoperable.py open FOLDER     reads them

A case has name, length, context and frame. `Keys` stands for the key service, as `StaticKeys` in keys.rs: a program
that opens real messages calls KMS in its place.
"""

import base64
import hashlib
import json
import os
import struct
import sys

import aws_encryption_sdk
from aws_encryption_sdk.exceptions import InvalidKeyIdError
from aws_encryption_sdk.identifiers import Algorithm, CommitmentPolicy
from aws_encryption_sdk.key_providers.base import MasterKey, MasterKeyConfig, MasterKeyProvider, MasterKeyProviderConfig
from aws_encryption_sdk.structures import DataKey, EncryptedDataKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SUITE = Algorithm.AES_256_GCM_HKDF_SHA512_COMMIT_KEY


def binding(context):
    """What binds a wrapped key to the context: base64(SHA-256(the context as it stands in the header))."""
    pairs = sorted((key.encode(), value.encode()) for key, value in context.items())
    data = struct.pack(">H", len(pairs)) if pairs else b""
    for text in (text for pair in pairs for text in pair):
        data += struct.pack(">H", len(text)) + text
    return base64.b64encode(hashlib.sha256(data).digest())


class Key(MasterKey):
    """One key of the service. Its information in the message is REGION/KEY-ID."""

    provider_id = "huawei-kms"
    _config_class = MasterKeyConfig

    def __new__(cls, key_id, master):
        key = super().__new__(cls, config=_Config(key_id=key_id))
        key.master = AESGCM(master)
        return key

    def __init__(self, key_id, master):
        """All is done by __new__, which must know the key's bytes."""

    def _generate_data_key(self, algorithm, encryption_context):
        plain = os.urandom(algorithm.kdf_input_len)
        wrapped = self._wrap(plain, encryption_context)
        return DataKey(self.key_provider, plain, wrapped)

    def _encrypt_data_key(self, data_key, algorithm, encryption_context):
        return EncryptedDataKey(self.key_provider, self._wrap(data_key.data_key, encryption_context))

    def _decrypt_data_key(self, encrypted_data_key, algorithm, encryption_context):
        wrapped = encrypted_data_key.encrypted_data_key
        plain = self.master.decrypt(wrapped[:12], wrapped[12:], binding(encryption_context))
        return DataKey(self.key_provider, plain, wrapped)

    def _wrap(self, plain, context):
        iv = os.urandom(12)
        return iv + self.master.encrypt(iv, plain, binding(context))


class _Config(MasterKeyConfig):
    provider_id = "huawei-kms"


class Keys(MasterKeyProvider):
    """The keys that this program may use."""

    provider_id = "huawei-kms"
    _config_class = MasterKeyProviderConfig

    def __new__(cls, masters):
        keys = super().__new__(cls, config=MasterKeyProviderConfig())
        keys.masters = masters
        for key_id in masters:
            keys.add_master_key(key_id)
        return keys

    def __init__(self, masters):
        """All is done by __new__."""

    def _new_master_key(self, key_id):
        key_id = key_id.decode()
        if key_id not in self.masters:
            raise InvalidKeyIdError(key_id)
        return Key(key_id, self.masters[key_id])


def text(length):
    return bytes(at * 31 % 251 for at in range(length))


BOTH = {"cn-north-4/first": bytes([1] * 32), "ap-southeast-1/second": bytes([2] * 32)}
client = aws_encryption_sdk.EncryptionSDKClient(commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)
what, folder = sys.argv[1:]
with open(os.path.join(folder, "cases.json")) as file:
    cases = json.load(file)
for case in cases:
    path = os.path.join(folder, case["name"] + ".sealed")
    if what == "seal":
        sealed, _ = client.encrypt(
            source=text(case["length"]),
            key_provider=Keys(BOTH),
            encryption_context=case["context"],
            algorithm=SUITE,
            frame_length=case["frame"],
        )
        with open(path, "wb") as file:
            file.write(sealed)
        continue
    with open(path, "rb") as file:
        sealed = file.read()
    # Either key opens a message.
    for masters in [{name: key} for name, key in BOTH.items()]:
        opened, header = client.decrypt(source=sealed, key_provider=Keys(masters))
        assert opened == text(case["length"]), case["name"]
        assert header.encryption_context == case["context"], case["name"]
        assert header.algorithm == SUITE, case["name"]
print(len(cases))
