"""Drives an emulator with Huawei's official SDK: csms.py PART URL ACCESS_KEY SECRET_KEY PROJECT."""

import base64
import datetime
import json
import sys
from unittest import mock

from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.exceptions.exceptions import ClientRequestException
from huaweicloudsdkcore.signer import signer
from huaweicloudsdkcsms.v1 import (
    CreateSecretRequest,
    CreateSecretRequestBody,
    CreateSecretVersionRequest,
    CreateSecretVersionRequestBody,
    CsmsClient,
    DeleteSecretRequest,
    ListSecretsRequest,
    ListSecretVersionsRequest,
    ShowSecretRequest,
    ShowSecretStageRequest,
    ShowSecretVersionRequest,
    UpdateSecretStageRequest,
    UpdateSecretStageRequestBody,
)

part, url, access_key, secret_key, project = sys.argv[1:]


def client(secret=secret_key):
    keys = BasicCredentials(access_key, secret, project)
    return CsmsClient.new_builder().with_credentials(keys).with_endpoint(url).build()


def create(name, **value):
    body = CreateSecretRequestBody(name=name, description="made by the SDK", **value)
    return csms.create_secret(CreateSecretRequest(body=body)).secret


def show(name, version):
    request = ShowSecretVersionRequest(secret_name=name, version_id=version)
    return csms.show_secret_version(request).version


csms = client()
if part == "create":
    created = create("sdk-db", secret_string=json.dumps({"password": "one"}))
    assert (created.name, created.state) == ("sdk-db", "ENABLED"), created
    assert created.create_time > 10**12, "create_time is not in milliseconds"
    create("sdk-binary", secret_binary=base64.b64encode(bytes([0, 1, 254, 255])).decode())
    body = CreateSecretVersionRequestBody(secret_string=json.dumps({"password": 'pässwörd "2"'}))
    request = CreateSecretVersionRequest(secret_name="sdk-db", body=body)
    print(csms.create_secret_version(request).version_metadata.id)
elif part == "read":
    assert json.loads(show("sdk-db", "latest").secret_string)["password"] == 'pässwörd "2"'
    assert json.loads(show("sdk-db", "v1").secret_string)["password"] == "one"
    assert base64.b64decode(show("sdk-binary", "v1").secret_binary) == bytes([0, 1, 254, 255])
    names = [secret.name for secret in csms.list_secrets(ListSecretsRequest(limit="1")).secrets]
    assert names == ["sdk-binary"], names
    rest = csms.list_secrets(ListSecretsRequest(limit="50", marker="sdk-db")).secrets
    assert [secret.name for secret in rest] == ["sdk-db"], rest
    versions = csms.list_secret_versions(ListSecretVersionsRequest(secret_name="sdk-db"))
    stages = {one.id: one.version_stages for one in versions.version_metadatas}
    assert stages == {"v1": ["SYSPREVIOUS"], "v2": ["SYSCURRENT"]}, stages
    body = UpdateSecretStageRequestBody(version_id="v1")
    request = UpdateSecretStageRequest(secret_name="sdk-db", stage_name="blue", body=body)
    assert csms.update_secret_stage(request).stage.version_id == "v1"
    request = ShowSecretStageRequest(secret_name="sdk-db", stage_name="blue")
    assert csms.show_secret_stage(request).stage.version_id == "v1"
    secret = csms.show_secret(ShowSecretRequest(secret_name="sdk-db")).secret
    assert secret.description == "made by the SDK"
    csms.delete_secret(DeleteSecretRequest(secret_name="sdk-binary"))
elif part == "rejected":

    def rejected(call, status, code, text=""):
        try:
            call()
        except ClientRequestException as error:
            got = (error.status_code, error.error_code)
            assert got == (status, code) and text in error.error_msg, (got, error.error_msg)
            assert error.request_id, "no request ID"
        else:
            raise AssertionError("the call was not rejected")

    bad_signature = "verify aksk signature fail"
    rejected(lambda: show("sdk-gone", "latest"), 404, "CSMS.0106")
    rejected(lambda: create("sdk-long", secret_string="x" * 32769), 400, "CSMS.0002")
    rejected(lambda: create("not a name", secret_string="x"), 400, "CSMS.0002")
    rejected(lambda: create("sdk-both", secret_string="x", secret_binary="eA=="), 400, "CSMS.0002")
    rejected(lambda: create("sdk-db", secret_string="x"), 409, "CSMS.0101")
    csms = client("wrong")
    rejected(lambda: show("sdk-db", "latest"), 401, "APIG.0301", bad_signature)
    csms = client()

    late = (datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(minutes=16)).strftime(
        "%Y%m%dT%H%M%SZ"
    )
    sign = signer.Signer.sign

    def sign_late(self, request):
        request.header_params["X-Sdk-Date"] = late
        return sign(self, request)

    with mock.patch.object(signer.Signer, "sign", sign_late):
        rejected(lambda: show("sdk-db", "latest"), 401, "APIG.0301", bad_signature)

    def sign_and_change(self, request):
        signed = sign(self, request)
        signed.body = signed.body.replace(b"one", b"two")
        return signed

    with mock.patch.object(signer.Signer, "sign", sign_and_change):
        rejected(lambda: create("sdk-new", secret_string="one"), 401, "APIG.0301", bad_signature)
    rejected(lambda: show("sdk-new", "latest"), 404, "CSMS.0106")
