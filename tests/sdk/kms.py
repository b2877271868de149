"""Drives the emulated KMS with Huawei's official SDK: kms.py PART URL ACCESS_KEY SECRET_KEY PROJECT.

PART "all" makes every call. PART "open KEY CIPHER" decrypts what the client encrypted."""

import base64
import hashlib
import http.client
import json
import sys

from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer
from huaweicloudsdkkms.v2 import *

part, url, access_key, secret_key, project = sys.argv[1:6]
keys = BasicCredentials(access_key, secret_key, project)
kms = KmsClient.new_builder().with_credentials(keys).with_endpoint(url).build()


def rejected(call, status, code):
    try:
        call()
    except ClientRequestException as error:
        got = (error.status_code, error.error_code)
        assert got == (status, code), (got, error.error_msg)
        assert error.request_id, "no request ID"
    else:
        raise AssertionError("the call was not rejected")


def create(**fields):
    body = CreateKeyRequestBody(key_alias="made-by-the-sdk", **fields)
    return kms.create_key(CreateKeyRequest(body=body)).key_info.key_id


def one(key):
    return OperateKeyRequestBody(key_id=key)


def encrypt(key, text, **fields):
    body = EncryptDataRequestBody(key_id=key, plain_text=text, **fields)
    return kms.encrypt_data(EncryptDataRequest(body=body)).cipher_text


def decrypt(cipher, **fields):
    body = DecryptDataRequestBody(cipher_text=cipher, **fields)
    return kms.decrypt_data(DecryptDataRequest(body=body))


if part == "open":
    key, cipher = sys.argv[6:]
    opened = decrypt(cipher, additional_authenticated_data="shop/app")
    assert opened.key_id == key, opened
    print(opened.plain_text, end="")
    print(encrypt(key, "from the SDK", additional_authenticated_data="shop/app"), file=sys.stderr)
    sys.exit()

# Lifecycle.
aes = create(key_description="d")
detail = kms.list_key_detail(ListKeyDetailRequest(body=one(aes))).key_info
assert (detail.key_alias, detail.key_description) == ("made-by-the-sdk", "d"), detail
assert (detail.key_state, detail.key_spec, detail.key_usage) == ("2", "AES_256", "ENCRYPT_DECRYPT"), detail
assert len(detail.creation_date) == 13, "creation_date is not in milliseconds"
disabled = kms.disable_key(DisableKeyRequest(body=one(aes))).key_info
assert (disabled.key_id, disabled.key_state) == (aes, "3"), disabled
rejected(lambda: encrypt(aes, "x"), 400, "KMS.0209")
assert kms.enable_key(EnableKeyRequest(body=one(aes))).key_info.key_state == "2"
spare = create()
body = ScheduleKeyDeletionRequestBody(key_id=spare, pending_days="7")
assert kms.delete_key(DeleteKeyRequest(body=body)).key_state == "4"
rejected(lambda: encrypt(spare, "x"), 400, "KMS.0210")
cancelled = kms.cancel_key_deletion(CancelKeyDeletionRequest(body=one(spare)))
assert cancelled.key_state == "3", cancelled
body = ListKeysRequestBody(limit="1")
page = kms.list_keys(ListKeysRequest(body=body))
assert (len(page.keys), page.truncated, page.total) == (1, "true", 2), page
body = ListKeysRequestBody(limit="1", marker=page.next_marker)
last = kms.list_keys(ListKeysRequest(body=body))
assert last.truncated == "false" and {*page.keys, *last.keys} == {aes, spare}, last
rejected(lambda: create(key_spec="SM4"), 400, "KMS.0308")
gone = "0d0466b0-e727-4d9c-b35d-f84bb474a37f"
rejected(lambda: encrypt(gone, "x"), 404, "KMS.0207")

# Small data.
for text in ["x", 'pässwörd "2"', "x" * 4096]:
    opened = decrypt(encrypt(aes, text))
    assert (opened.key_id, opened.plain_text) == (aes, text), opened
    assert base64.b64decode(opened.plain_text_base64).decode() == text
cipher = encrypt(aes, "bound", additional_authenticated_data="a")
assert decrypt(cipher, additional_authenticated_data="a").plain_text == "bound"
rejected(lambda: decrypt(cipher), 400, "KMS.2201")
rejected(lambda: decrypt(cipher, additional_authenticated_data="b"), 400, "KMS.2201")
rejected(lambda: encrypt(aes, "x" * 4097), 400, "KMS.2102")
rejected(lambda: encrypt(aes, "x", additional_authenticated_data="a" * 129), 400, "KMS.0208")
rsa = create(key_spec="RSA_2048", key_usage="ENCRYPT_DECRYPT")
oaep = {"encryption_algorithm": "RSAES_OAEP_SHA_256"}
assert decrypt(encrypt(rsa, "x", **oaep), key_id=rsa, **oaep).plain_text == "x"

# Data keys.
body = CreateDatakeyRequestBody(key_id=aes, key_spec="AES_256", datakey_length="256")
made = kms.create_datakey(CreateDatakeyRequest(body=body))
plain = bytes.fromhex(made.plain_text)
assert len(plain) == 32, made


def unwrap(key, cipher, length="32"):
    body = DecryptDatakeyRequestBody(key_id=key, cipher_text=cipher, datakey_cipher_length=length)
    return kms.decrypt_datakey(DecryptDatakeyRequest(body=body))


# The length is not compared: the Java SDK sends 32 for every key.
for length in ["32", "64"]:
    opened = unwrap(aes, made.cipher_text, length)
    assert bytes.fromhex(opened.data_key) == plain and opened.datakey_length == "32", opened
    assert bytes.fromhex(opened.datakey_dgst) == hashlib.sha256(plain).digest(), opened
body = CreateDatakeyRequestBody(key_id=aes, key_spec="AES_128")
hidden = kms.create_datakey_without_plaintext(CreateDatakeyWithoutPlaintextRequest(body=body))
assert unwrap(aes, hidden.cipher_text).datakey_length == "16"
second = create()


def wrap(text, length="32"):
    body = EncryptDatakeyRequestBody(
        key_id=second, plain_text=text, datakey_plain_length=length
    )
    return kms.encrypt_datakey(EncryptDatakeyRequest(body=body))


wrapped = wrap((plain + hashlib.sha256(plain).digest()).hex())
assert wrapped.datakey_length == "32", wrapped
assert bytes.fromhex(unwrap(second, wrapped.cipher_text).data_key) == plain
rejected(lambda: wrap(plain.hex()), 400, "KMS.2104")
rejected(lambda: wrap((plain + bytes(32)).hex()), 400, "KMS.2103")
rejected(lambda: unwrap(aes, wrapped.cipher_text), 400, "KMS.2201")
for length, code in [("12", "KMS.1903"), ("8200", "KMS.1901"), ("x", "KMS.1901")]:
    body = CreateDatakeyRequestBody(key_id=aes, datakey_length=length)
    rejected(lambda: kms.create_datakey(CreateDatakeyRequest(body=body)), 400, code)

# Signatures.
digest = hashlib.sha256(b"message").digest()
for spec, algorithm in [("RSA_2048", "RSASSA_PSS_SHA_256"), ("EC_P256", "ECDSA_SHA_256")]:
    key = create(key_spec=spec)
    for kind, message in [("DIGEST", digest), ("RAW", b"message")]:
        message = base64.b64encode(message).decode()
        fields = {"key_id": key, "message": message, "message_type": kind, "signing_algorithm": algorithm}
        signed = kms.sign(SignRequest(body=SignRequestBody(**fields)))

        def valid(message_type, message):
            other = {**fields, "message_type": message_type, "message": base64.b64encode(message).decode()}
            body = VerifyRequestBody(signature=signed.signature, **other)
            return kms.validate_signature(ValidateSignatureRequest(body=body)).signature_valid

        assert valid("DIGEST", digest) == valid("RAW", b"message") == "true"
        assert valid("RAW", b"another message") == "false"
    public = kms.show_public_key(ShowPublicKeyRequest(body=one(key))).public_key
    assert public.startswith("-----BEGIN PUBLIC KEY-----\n"), public

body = GenRandomRequestBody(random_data_length="512")
random = kms.create_random(CreateRandomRequest(body=body)).random_data
assert len(bytes.fromhex(random)) == 64, random
body = GenRandomRequestBody(random_data_length="12")
rejected(lambda: kms.create_random(CreateRandomRequest(body=body)), 400, "KMS.1802")

# A chunked body, as the Java SDK sends it.
host = url.removeprefix("http://")
path = f"/v1.0/{project}/kms/gen-random"
content = json.dumps({"random_data_length": "8"}).encode()
for sent, status in [(content, 200), (content.replace(b"8", b"16"), 401)]:
    request = SdkRequest("POST", "http", host, path, path, [], {"Content-Type": "application/json"}, content)
    request = Signer(keys).sign(request)
    connection = http.client.HTTPConnection(host)
    chunks = iter([sent[:5], sent[5:]])
    connection.request("POST", path, chunks, request.header_params, encode_chunked=True)
    assert connection.getresponse().status == status, (sent, status)
print("done")
