"""An independent reader of Huawei's Encryption SDK format, with local keys.

Written from the layout, not from the program, and checked against messages of the official SDK. Like that SDK it
parses the context and serializes it anew, in the order of Java's HashMap; unlike it, it checks the header's tag
of a file.

Standard input: one JSON object a line, {"path": message, "dek": hex} or {"path": message, "masters": [hex, …]}.
Standard output: one line for each, {"form", "context", "text": hex} or {"error"}.
"""

import json
import struct
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


class Bad(Exception):
    pass


class Fields:
    def __init__(self, data, at=0):
        self.data, self.at = data, at

    def take(self, count):
        if count < 0 or self.at + count > len(self.data):
            raise Bad("cut off")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form):
        return struct.unpack(">" + form, self.take(struct.calcsize(form)))[0]


def java_hash(text):
    value = 0
    units = text.encode("utf-16-be")
    for i in range(0, len(units), 2):
        value = (value * 31 + int.from_bytes(units[i : i + 2], "big")) & 0xFFFFFFFF
    return value ^ (value >> 16)


def java_serialized(entries):
    """What `serializeContext` makes of a HashMap with these entries."""
    if not entries:
        return b""
    size = 16
    while len(entries) > size * 0.75:
        size *= 2
    iterated = sorted(entries, key=lambda entry: java_hash(entry[0]) & (size - 1))
    ordered = sorted(iterated, key=lambda entry: entry[1].encode("utf-16-be"))
    out = struct.pack(">h", len(ordered))
    for entry in ordered:
        for text in entry:
            data = text.encode()
            out += struct.pack(">h", len(data)) + data
    return out


def header(data, start):
    fields = Fields(data, start)
    version, algorithm = fields.number("b"), fields.number("h")
    if version != 1 or algorithm not in (1, 2):
        raise Bad(f"version {version}, algorithm {algorithm}")
    context = fields.take(fields.number("h"))
    entries = []
    if context:
        inner = Fields(context)
        for _ in range(inner.number("h")):
            entries.append(tuple(inner.take(inner.number("h")).decode() for _ in range(2)))
        if inner.at != len(context):
            raise Bad("context")
    wrapped = []
    for _ in range(fields.number("b")):
        provider = fields.take(fields.number("b"))
        fields.take(fields.number("b"))
        wrapped.append((provider, fields.take(fields.number("h"))))
    if fields.take(2) != b"\x01\x0c":
        raise Bad("content type or IV length")
    authenticated = data[start : fields.at]
    tag = fields.take(fields.number("h"))
    if len(tag) != 28:
        raise Bad("tag length")
    return entries, wrapped, authenticated, tag, fields.at


def unwrap(wrapped, masters, aad):
    for provider, key in wrapped:
        for master in masters:
            try:
                if provider == b"huawei-local":
                    return AESGCM(master).decrypt(key[:12], key[12:], aad)
            except InvalidTag:
                pass
    raise Bad("no key")


def read(data, dek, masters):
    try:
        parsed = header(data, 2)
        is_file = parsed[4] == 2 + struct.unpack(">H", data[:2])[0]
    except (Bad, struct.error, UnicodeDecodeError):
        is_file = False
    if not is_file:
        parsed = header(data, 0)
    entries, wrapped, authenticated, tag, at = parsed
    aad = java_serialized(entries)
    dek = AESGCM(dek or unwrap(wrapped, masters, aad))
    dek.decrypt(tag[:12], tag[12:], authenticated)
    body = Fields(data, at)
    if not is_file:
        iv, length = body.take(12), body.number("q")
        text = dek.decrypt(iv, body.take(length + 16), aad)
    else:
        text = b""
        while body.at < len(data):
            iv, length = body.take(12), body.number("q")
            text += dek.decrypt(iv, body.take(length), aad)
    return {"form": "file" if is_file else "mem", "context": entries, "text": text.hex()}


for line in sys.stdin:
    question = json.loads(line)
    masters = [bytes.fromhex(master) for master in question.get("masters", [])]
    dek = bytes.fromhex(question.get("dek", ""))
    try:
        with open(question["path"], "rb") as file:
            answer = read(file.read(), dek, masters)
    except (Bad, InvalidTag) as error:
        answer = {"error": repr(error)}
    print(json.dumps(answer))
