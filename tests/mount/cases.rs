//! What a pod gets for a SecretProviderClass. The cases are data, so that they run on the simulated
//! driver (`simulated_driver.rs`) and on a real cluster (`tests/cluster`).

use tonic::Code;

/// A value of a secret.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value {
    Text(&'static str),
    Binary(&'static [u8]),
}

/// The expected result of a mount.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expect {
    /// Path, mode and contents of every file, sorted by path.
    Files(&'static [(&'static str, u32, &'static [u8])]),
    /// The gRPC code, and texts that the message contains.
    Fails(Code, &'static [&'static str]),
}

/// One case. No two cases create a secret of the same name, so all can share a cloud.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    /// Name of the SecretProviderClass and of the ServiceAccount.
    pub(crate) name: &'static str,
    /// The secrets in the cloud, each with its versions, oldest first.
    pub(crate) secrets: &'static [(&'static str, &'static [Value])],
    /// The parameter `objects`.
    pub(crate) objects: &'static str,
    /// The secrets that the ServiceAccount lists.
    pub(crate) allowed: &'static [&'static str],
    pub(crate) expect: Expect,
}

use Expect::{Fails, Files};
use Value::{Binary, Text};

const LOGIN: &str = r#"{"username":"app","password":"p w","port":5432,"tls":true,"hosts":["a","b"],"none":null,"with-hyphen":"h"}"#;
const BYTES: &[u8] = &[0, 159, 146, 150, 255, 10];

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "latest",
        secrets: &[("latest-a", &[Text("one"), Text("two")])],
        objects: "- {objectName: latest-a, objectType: csms, objectVersion: latest}",
        allowed: &["latest-a"],
        expect: Files(&[("latest-a", 0o644, b"two")]),
    },
    Case {
        name: "pinned",
        secrets: &[("pinned-a", &[Text("one"), Text("two")])],
        objects: "- {objectName: pinned-a, objectType: csms, objectVersion: v1}",
        allowed: &["pinned-a", "other"],
        expect: Files(&[("pinned-a", 0o644, b"one")]),
    },
    Case {
        name: "stage",
        secrets: &[("stage-a", &[Text("one"), Text("two")])],
        objects: "- {objectName: stage-a, objectType: csms, stage: SYSPREVIOUS}",
        allowed: &["stage-a"],
        expect: Files(&[("stage-a", 0o644, b"one")]),
    },
    Case {
        name: "dots",
        secrets: &[("shop.prod.db", &[Text("one")]), (".hidden_-", &[Text("two")])],
        objects: "- {objectName: shop.prod.db, objectType: csms, objectVersion: latest}\n\
                  - {objectName: .hidden_-, objectType: csms, objectVersion: v1}",
        allowed: &["shop.prod.db", ".hidden_-"],
        expect: Files(&[(".hidden_-", 0o644, b"two"), ("shop.prod.db", 0o644, b"one")]),
    },
    Case {
        name: "two-dots",
        secrets: &[("..a", &[Text("one")])],
        objects: "- {objectName: ..a, objectType: csms, objectVersion: v1}",
        allowed: &["..a"],
        expect: Fails(Code::InvalidArgument, &["must not start with ..", "set objectAlias"]),
    },
    Case {
        name: "leading-zero",
        secrets: &[],
        objects: "- {objectName: leading-zero-a, objectType: csms, objectVersion: v01}",
        allowed: &["leading-zero-a"],
        expect: Fails(Code::InvalidArgument, &["objectVersion", "did you mean v1?"]),
    },
    Case {
        name: "documents",
        secrets: &[("documents-a", &[Text("one")])],
        objects: "---\n- {objectName: documents-a, objectType: csms, objectVersion: v1}\n---\n",
        allowed: &["documents-a"],
        expect: Files(&[("documents-a", 0o644, b"one")]),
    },
    Case {
        name: "two-documents",
        secrets: &[],
        objects: "- {objectName: a, objectType: csms, objectVersion: v1}\n---\n\
                  - {objectName: b, objectType: csms, objectVersion: v1}",
        allowed: &["a", "b"],
        expect: Fails(Code::InvalidArgument, &["line 3", "second YAML document"]),
    },
    Case {
        name: "decimal-mode",
        secrets: &[],
        objects: "- {objectName: decimal-mode-a, objectType: csms, objectVersion: v1, filePermission: 256}",
        allowed: &["decimal-mode-a"],
        expect: Fails(Code::InvalidArgument, &["filePermission", "256 in decimal is \"0400\""]),
    },
    Case {
        name: "exact-numbers",
        secrets: &[(
            "exact-numbers-a",
            &[Text(
                "{\"a\":1234567890123456789,\"b\":1234567890123456788,\"c\":1.10,\"d\":1E400,\"e\":-5}",
            )],
        )],
        objects: "- objectName: exact-numbers-a\n  objectType: csms\n  objectVersion: v1\n  objectAlias: all\n  \
                  jmesPath:\n  - {path: a, objectAlias: a}\n  - {path: 'to_string(c)', objectAlias: c}\n  \
                  - {path: d, objectAlias: d}\n  - {path: 'abs(e)', objectAlias: e}\n  \
                  - {path: 'floor(b)', objectAlias: b}",
        allowed: &["exact-numbers-a"],
        expect: Files(&[
            ("a", 0o644, b"1234567890123456789"),
            (
                "all",
                0o644,
                b"{\"a\":1234567890123456789,\"b\":1234567890123456788,\"c\":1.10,\"d\":1E400,\"e\":-5}",
            ),
            ("b", 0o644, b"1234567890123456788"),
            ("c", 0o644, b"1.10"),
            ("d", 0o644, b"1E400"),
            ("e", 0o644, b"5"),
        ]),
    },
    Case {
        name: "binary-json",
        secrets: &[("binary-json-a", &[Binary(b"\xef\xbb\xbf{\"a\":\"x\"}")])],
        objects: "- {objectName: binary-json-a, objectType: csms, objectVersion: v1, objectAlias: all, \
                  jmesPath: [{path: a, objectAlias: a}]}",
        allowed: &["binary-json-a"],
        expect: Files(&[
            ("a", 0o644, b"x"),
            ("all", 0o644, b"\xef\xbb\xbf{\"a\":\"x\"}"),
        ]),
    },
    Case {
        name: "null-key",
        secrets: &[("null-key-a", &[Text("{\"a\":null,\"b\":\"x\"}")])],
        objects: "- {objectName: null-key-a, objectType: csms, objectVersion: v1, allKeys: true}",
        allowed: &["null-key-a"],
        expect: Fails(Code::NotFound, &["allKeys", "key number 1", "is null", "optional"]),
    },
    Case {
        name: "null-key-optional",
        secrets: &[("null-key-optional-a", &[Text("\u{feff}{\"a\":null,\"b\":\"x\"}")])],
        objects: "- {objectName: null-key-optional-a, objectType: csms, objectVersion: v1, allKeys: true, \
                  optional: true}",
        allowed: &["null-key-optional-a"],
        expect: Files(&[("b", 0o644, b"x")]),
    },
    Case {
        name: "dotted-key",
        secrets: &[("dotted-key-a", &[Text("{\"ca.crt\":\"x\"}")])],
        objects: "- {objectName: dotted-key-a, objectType: csms, objectVersion: v1, objectAlias: all, \
                  jmesPath: [{path: ca.crt, objectAlias: ca}]}",
        allowed: &["dotted-key-a"],
        expect: Fails(Code::NotFound, &["\"ca.crt\" matches nothing", "needs quotes"]),
    },
    Case {
        name: "add-on",
        secrets: &[("add-on-a", &[Text("x")])],
        objects: "- objectName: \"add-on-a\"\n  objectVersion: \"latest\"\n  objectAlias: \"app-secret\"\n  objectType: \"csms\"\n",
        allowed: &["add-on-a"],
        expect: Files(&[("app-secret", 0o644, b"x")]),
    },
    Case {
        name: "folders",
        secrets: &[("folders-a", &[Text("x")]), ("folders-b", &[Text("y")])],
        objects: "- {objectName: folders-a, objectType: csms, objectVersion: latest, objectAlias: db/deep/password}\n- {objectName: folders-b, objectType: csms, objectVersion: latest, objectAlias: db/user}",
        allowed: &["folders-a", "folders-b"],
        expect: Files(&[("db/deep/password", 0o644, b"x"), ("db/user", 0o644, b"y")]),
    },
    Case {
        name: "modes",
        secrets: &[("modes-a", &[Text(r#"{"k":"v"}"#)])],
        objects: "- objectName: modes-a\n  objectType: csms\n  objectVersion: latest\n  filePermission: \"0400\"\n  jmesPath:\n  - {path: k, objectAlias: own, filePermission: \"0640\"}\n  - {path: k, objectAlias: same}\n",
        allowed: &["modes-a"],
        expect: Files(&[
            ("modes-a", 0o400, br#"{"k":"v"}"#),
            ("own", 0o640, b"v"),
            ("same", 0o400, b"v"),
        ]),
    },
    Case {
        name: "jmespath",
        secrets: &[("jmespath-a", &[Text(LOGIN)])],
        objects: "- objectName: jmespath-a\n  objectType: csms\n  objectVersion: latest\n  objectAlias: all\n  jmesPath:\n  - {path: username, objectAlias: user}\n  - {path: port, objectAlias: port}\n  - {path: tls, objectAlias: tls}\n  - {path: hosts, objectAlias: hosts}\n  - {path: \"hosts[1]\", objectAlias: second}\n  - {path: '\"with-hyphen\"', objectAlias: hyphen}\n  - {path: \"{u: username, p: port}\", objectAlias: both}\n",
        allowed: &["jmespath-a"],
        expect: Files(&[
            ("all", 0o644, LOGIN.as_bytes()),
            ("both", 0o644, br#"{"p":5432,"u":"app"}"#),
            ("hosts", 0o644, br#"["a","b"]"#),
            ("hyphen", 0o644, b"h"),
            ("port", 0o644, b"5432"),
            ("second", 0o644, b"b"),
            ("tls", 0o644, b"true"),
            ("user", 0o644, b"app"),
        ]),
    },
    Case {
        name: "numbers",
        secrets: &[(
            "numbers-a",
            &[Text(
                r#"{"id":12345678901234567890123,"pin":1.10,"e":1e2,"deep":{"n":[2.50]}}"#,
            )],
        )],
        objects: "- objectName: numbers-a\n  objectType: csms\n  objectVersion: latest\n  allKeys: true\n",
        allowed: &["numbers-a"],
        expect: Files(&[
            ("deep", 0o644, br#"{"n":[2.50]}"#),
            ("e", 0o644, b"1e2"),
            ("id", 0o644, b"12345678901234567890123"),
            ("pin", 0o644, b"1.10"),
        ]),
    },
    Case {
        name: "parts-encoded",
        secrets: &[("parts-encoded-a", &[Text(r#"{"k":"AJ+Slv8K"}"#)])],
        objects: "- objectName: parts-encoded-a\n  objectType: csms\n  objectVersion: latest\n  encoding: base64\n  objectAlias: whole\n  jmesPath: [{path: k, objectAlias: part}]\n",
        allowed: &["parts-encoded-a"],
        expect: Files(&[
            ("part", 0o644, BYTES),
            ("whole", 0o644, br#"{"k":"AJ+Slv8K"}"#),
        ]),
    },
    Case {
        name: "null",
        secrets: &[("null-a", &[Text(LOGIN)])],
        objects: "- objectName: null-a\n  objectType: csms\n  objectVersion: latest\n  jmesPath: [{path: none, objectAlias: n}]\n",
        allowed: &["null-a"],
        expect: Fails(
            Code::NotFound,
            &[
                "object \"null-a\"",
                "jmesPath",
                "\"none\" matches nothing",
                "optional: true",
            ],
        ),
    },
    Case {
        name: "null-optional",
        secrets: &[("null-optional-a", &[Text(LOGIN)])],
        objects: "- objectName: null-optional-a\n  objectType: csms\n  objectVersion: latest\n  objectAlias: all\n  optional: true\n  jmesPath: [{path: none, objectAlias: n}, {path: port, objectAlias: port}]\n",
        allowed: &["null-optional-a"],
        expect: Files(&[("all", 0o644, LOGIN.as_bytes()), ("port", 0o644, b"5432")]),
    },
    Case {
        name: "all-keys",
        secrets: &[(
            "all-keys-a",
            &[Text(r#"{"user":"u","n":1,"o":{"b":2,"a":1}}"#)],
        )],
        objects: "- {objectName: all-keys-a, objectType: csms, objectVersion: latest, allKeys: true}",
        allowed: &["all-keys-a"],
        expect: Files(&[
            ("n", 0o644, b"1"),
            ("o", 0o644, br#"{"a":1,"b":2}"#),
            ("user", 0o644, b"u"),
        ]),
    },
    Case {
        name: "all-keys-folder",
        secrets: &[("all-keys-folder-a", &[Text(r#"{"user":"u"}"#)])],
        objects: "- {objectName: all-keys-folder-a, objectType: csms, objectVersion: latest, allKeys: true, objectAlias: db, filePermission: \"0444\"}",
        allowed: &["all-keys-folder-a"],
        expect: Files(&[("db/user", 0o444, b"u")]),
    },
    Case {
        name: "all-keys-slash",
        secrets: &[(
            "all-keys-slash-a",
            &[Text(r#"{"a":"u","b/CANARYKEY":"x"}"#)],
        )],
        objects: "- {objectName: all-keys-slash-a, objectType: csms, objectVersion: latest, allKeys: true}",
        allowed: &["all-keys-slash-a"],
        expect: Fails(
            Code::FailedPrecondition,
            &["object \"all-keys-slash-a\"", "allKeys", "key number 2"],
        ),
    },
    Case {
        name: "all-keys-clash",
        secrets: &[
            ("all-keys-clash-a", &[Text(r#"{"b":"u"}"#)]),
            ("b", &[Text("x")]),
        ],
        objects: "- {objectName: all-keys-clash-a, objectType: csms, objectVersion: latest, allKeys: true}\n- {objectName: b, objectType: csms, objectVersion: latest}",
        allowed: &["all-keys-clash-a", "b"],
        expect: Fails(Code::FailedPrecondition, &["collides", "objectAlias"]),
    },
    Case {
        name: "not-json",
        secrets: &[("not-json-a", &[Text("CANARY{")])],
        objects: "- {objectName: not-json-a, objectType: csms, objectVersion: latest, allKeys: true}",
        allowed: &["not-json-a"],
        expect: Fails(
            Code::FailedPrecondition,
            &["object \"not-json-a\"", "is not JSON (line 1, column 1)"],
        ),
    },
    Case {
        name: "binary",
        secrets: &[("binary-a", &[Binary(BYTES)])],
        objects: "- {objectName: binary-a, objectType: csms, objectVersion: latest, objectAlias: keystore.p12}",
        allowed: &["binary-a"],
        expect: Files(&[("keystore.p12", 0o644, BYTES)]),
    },
    Case {
        name: "base64",
        secrets: &[("base64-a", &[Text("AJ+Slv8K\n")])],
        objects: "- {objectName: base64-a, objectType: csms, objectVersion: latest, encoding: base64}",
        allowed: &["base64-a"],
        expect: Files(&[("base64-a", 0o644, BYTES)]),
    },
    Case {
        name: "hex",
        secrets: &[("hex-a", &[Text("009F9296ff0a")])],
        objects: "- {objectName: hex-a, objectType: csms, objectVersion: latest, encoding: hex}",
        allowed: &["hex-a"],
        expect: Files(&[("hex-a", 0o644, BYTES)]),
    },
    Case {
        name: "bad-base64",
        secrets: &[("bad-base64-a", &[Text("CANARY!")])],
        objects: "- {objectName: bad-base64-a, objectType: csms, objectVersion: latest, encoding: base64}",
        allowed: &["bad-base64-a"],
        expect: Fails(
            Code::FailedPrecondition,
            &["object \"bad-base64-a\"", "encoding", "is not Base64"],
        ),
    },
    Case {
        name: "missing",
        secrets: &[("missing-here", &[Text("x")])],
        objects: "- {objectName: missing-here, objectType: csms, objectVersion: v7}\n- {objectName: missing-not, objectType: csms, objectVersion: latest}\n- {objectName: missing-too, objectType: csms, stage: prod}",
        allowed: &["missing-here", "missing-not", "missing-too"],
        expect: Fails(
            Code::NotFound,
            &[
                "3 objects failed",
                "object \"missing-here\", objectVersion: ShowSecretVersion",
                "HTTP 404 CSMS.0205",
                "object \"missing-not\", objectVersion: ShowSecretVersion",
                "HTTP 404 CSMS.0106",
                "object \"missing-too\", stage: ShowSecretStage",
                "request ID ",
            ],
        ),
    },
    Case {
        name: "optional",
        secrets: &[("optional-here", &[Text("x")])],
        objects: "- {objectName: optional-here, objectType: csms, objectVersion: latest}\n- {objectName: optional-not, objectType: csms, objectVersion: latest, optional: true}",
        allowed: &["optional-here", "optional-not"],
        expect: Files(&[("optional-here", 0o644, b"x")]),
    },
    Case {
        name: "all-optional",
        secrets: &[],
        objects: "- {objectName: all-optional-not, objectType: csms, objectVersion: latest, optional: true}",
        allowed: &["all-optional-not"],
        expect: Files(&[(
            ".dew-provider",
            0o444,
            b"All objects of this volume are optional, and none of them exists.\n",
        )]),
    },
    Case {
        name: "unlisted",
        secrets: &[("unlisted-a", &[Text("x")]), ("unlisted-b", &[Text("x")])],
        objects: "- {objectName: unlisted-a, objectType: csms, objectVersion: latest}\n- {objectName: unlisted-b, objectType: csms, objectVersion: latest}",
        allowed: &["unlisted-a"],
        expect: Fails(
            Code::PermissionDenied,
            &[
                "ServiceAccount default/unlisted does not list \"unlisted-b\"",
                "cce.io/dew-resource",
            ],
        ),
    },
    Case {
        name: "twice",
        secrets: &[],
        objects: "- {objectName: twice-a, objectType: csms, objectVersion: latest}\n- {objectName: twice-a, objectType: csms, objectVersion: v1, objectAlias: other}",
        allowed: &["twice-a"],
        expect: Fails(
            Code::InvalidArgument,
            &[
                "objects line 2",
                "object \"twice-a\"",
                "objectName",
                "already used on line 1",
            ],
        ),
    },
    Case {
        name: "alias-of-other",
        secrets: &[],
        objects: "- {objectName: alias-a, objectType: csms, objectVersion: latest, objectAlias: alias-b}\n- {objectName: alias-b, objectType: csms, objectVersion: latest}",
        allowed: &["alias-a", "alias-b"],
        expect: Fails(
            Code::InvalidArgument,
            &["objectAlias", "equals the objectName on line 2"],
        ),
    },
    Case {
        name: "alias-twice",
        secrets: &[],
        objects: "- {objectName: alias-a, objectType: csms, objectVersion: latest, objectAlias: x}\n- {objectName: alias-b, objectType: csms, objectVersion: latest, objectAlias: x}",
        allowed: &["alias-a", "alias-b"],
        expect: Fails(
            Code::InvalidArgument,
            &["objectAlias", "equals the objectAlias on line 1"],
        ),
    },
    Case {
        name: "alias-of-itself",
        secrets: &[],
        objects: "- {objectName: alias-a, objectType: csms, objectVersion: latest, objectAlias: alias-a}",
        allowed: &["alias-a"],
        expect: Fails(
            Code::InvalidArgument,
            &["objectAlias", "equals the objectName on line 1"],
        ),
    },
    Case {
        name: "empty-list",
        secrets: &[],
        objects: "[]",
        allowed: &[],
        expect: Fails(
            Code::InvalidArgument,
            &[
                "SecretProviderClass \"empty-list\"",
                "the list is empty",
                "- objectName:",
            ],
        ),
    },
    Case {
        name: "misspelt",
        secrets: &[],
        objects: "- {objectName: misspelt-a, objectTyp: csms, objectVersion: \"1\"}",
        allowed: &["misspelt-a"],
        expect: Fails(
            Code::InvalidArgument,
            &[
                "objectTyp: unknown field; did you mean objectType?",
                "did you mean v1?",
            ],
        ),
    },
    Case {
        name: "file-and-folder",
        secrets: &[],
        objects: "- {objectName: ff-a, objectType: csms, objectVersion: latest, objectAlias: d}\n- {objectName: ff-b, objectType: csms, objectVersion: latest, objectAlias: d/e}",
        allowed: &["ff-a", "ff-b"],
        expect: Fails(Code::InvalidArgument, &["needs \"d\" as a directory"]),
    },
];
