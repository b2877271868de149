//! Checked objects.

use crate::class::jmespath::JmesPath;
use crate::cloud::VersionSelector;

/// Maximum size of `objects`, in bytes.
pub const MAX_OBJECTS_BYTES: usize = 256 * 1024;
/// Maximum number of objects of one SecretProviderClass.
pub const MAX_OBJECTS: usize = 200;
/// Maximum number of `jmesPath` items of one object.
pub const MAX_EXTRACTS: usize = 200;

/// How the text of a secret becomes the bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// The text as it is; a binary secret byte for byte.
    Utf8,
    /// The text is Base64; the file contains the decoded bytes.
    Base64,
    /// The text is hexadecimal; the file contains the decoded bytes.
    Hex,
}

/// One `jmesPath` item: a part of a JSON secret as a separate file.
#[derive(Clone, Debug)]
pub struct Extract {
    /// The expression.
    pub expression: JmesPath,
    /// File that receives the result.
    pub path: String,
    /// Mode of that file, if it differs from the object's.
    pub mode: Option<u32>,
}

/// The files that an object becomes.
#[derive(Clone, Debug)]
pub enum Content {
    /// The whole value as `path`, and each extract as a further file.
    Whole {
        /// `objectAlias`, else `objectName`.
        path: String,
        /// The `jmesPath` items.
        extracts: Vec<Extract>,
    },
    /// Each top-level key of a JSON object as a file, inside `folder` if there is one.
    AllKeys {
        /// `objectAlias`.
        folder: Option<String>,
    },
}

/// One checked object.
#[derive(Clone, Debug)]
pub struct Object {
    /// Line of `objects` on which it begins, from 1.
    pub line: u64,
    /// Name of the secret in CSMS.
    pub name: String,
    /// Which version of it.
    pub selector: VersionSelector,
    /// The files that it becomes.
    pub content: Content,
    /// Mode of its files; the driver's default if not set.
    pub mode: Option<u32>,
    /// How text becomes bytes.
    pub encoding: Encoding,
    /// Whether a secret or value that does not exist is left out instead of failing the mount.
    pub optional: bool,
}
