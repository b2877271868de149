"""Signs the requests of standard input with Huawei's own signer, one JSON per line."""
import json
import sys
from types import SimpleNamespace

from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer

for line in sys.stdin:
    case = json.loads(line)
    headers = {name: value for name, value in case["headers"]}
    headers["X-Sdk-Date"] = case["date"]
    request = SdkRequest(
        method=case["method"],
        schema="https",
        host="unused.example",
        resource_path=case["path"],
        query_params=[(name, value) for name, value in case["query"]],
        header_params=headers,
        body=bytes(case["body"]),
    )
    signer = Signer(SimpleNamespace(ak=case["ak"], sk=case["sk"]))
    signed = signer.sign(request)
    print(json.dumps({"authorization": signed.header_params["Authorization"], "uri": signed.uri}))
