//! The credentials file of Huawei's SDKs: INI with a section `[basic]`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use ini::Ini;
use tokio::sync::Mutex;
use zeroize::Zeroizing;

use super::access_keys::AccessKeys;
use crate::util::text::io_reason;

/// The contents of a file.
#[derive(Clone, Debug)]
pub(super) struct Profile {
    pub(super) keys: Arc<AccessKeys>,
    pub(super) project: Option<String>,
}

/// A file that may change: a mounted Secret is swapped atomically, an editor may write in parts.
#[derive(Debug)]
pub(super) struct CredentialsFile {
    path: PathBuf,
    last: Mutex<Option<(FileStamp, Profile)>>,
}

/// Distinguishes the states of a file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileStamp {
    modified: Option<SystemTime>,
    length: u64,
    inode: u64,
}

impl FileStamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self {
            modified: metadata.modified().ok(),
            length: metadata.len(),
            inode: metadata.ino(),
        }
    }
}

impl CredentialsFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            last: Mutex::new(None),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The current contents; `None` if there is no file and there never was a valid one. If the file
    /// disappeared or became unreadable, its last valid contents are returned, and the next call reads it
    /// again.
    pub(super) async fn read(&self) -> Result<Option<Profile>, String> {
        let mut last = self.last.lock().await;
        let stamp = match self.stamp().await {
            Ok(stamp) => stamp,
            Err(error) => {
                return match &*last {
                    Some((_, profile)) => Ok(Some(profile.clone())),
                    None if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                    None => {
                        let (path, why) = (self.path.display(), io_reason(&error));
                        Err(format!("{path} cannot be read: {why}"))
                    }
                };
            }
        };
        if let Some((seen, profile)) = &*last
            && *seen == stamp
        {
            return Ok(Some(profile.clone()));
        }
        match self.parse().await {
            Ok(profile) => {
                if last.is_some() {
                    tracing::info!(path = %self.path.display(), "reloaded the credentials file");
                }
                *last = Some((stamp, profile.clone()));
                Ok(Some(profile))
            }
            Err(why) => match &*last {
                Some((_, profile)) => {
                    tracing::warn!(path = %self.path.display(), why, "the credentials file is invalid; keeping its last valid contents");
                    Ok(Some(profile.clone()))
                }
                None => Err(format!("{}: {why}", self.path.display())),
            },
        }
    }

    async fn stamp(&self) -> std::io::Result<FileStamp> {
        tokio::fs::metadata(&self.path)
            .await
            .map(|m| FileStamp::of(&m))
    }

    /// The same, blocking: `stat` of a local file takes microseconds.
    pub(super) fn stamp_now(&self) -> Option<FileStamp> {
        std::fs::metadata(&self.path)
            .ok()
            .map(|m| FileStamp::of(&m))
    }

    async fn parse(&self) -> Result<Profile, String> {
        let text = tokio::fs::read_to_string(&self.path)
            .await
            .map(Zeroizing::new)
            .map_err(|error| format!("cannot be read: {}", io_reason(&error)))?;
        parse(&text)
    }
}

/// Parses `[basic]`. Errors name lines and keys, never values.
fn parse(text: &str) -> Result<Profile, String> {
    // Secret keys may contain backslashes, so nothing is an escape sequence.
    let ini = Ini::load_from_str_noescape(text).map_err(|error| {
        let line = unreadable_line(text).unwrap_or(error.line);
        format!("not INI (line {line}): expected [basic], or a name and its value as in ak=…")
    })?;
    let section = ini
        .section(Some("basic"))
        .ok_or("it has no section [basic]")?;
    let get = |name: &str| {
        section
            .get(name)
            .map(str::trim)
            .filter(|text| !text.is_empty())
    };
    let need = |name: &str| get(name).ok_or(format!("[basic] has no {name}"));
    Ok(Profile {
        keys: Arc::new(AccessKeys::new(
            need("ak")?,
            need("sk")?,
            get("security_token").map(str::to_owned),
            None,
        )),
        project: get("project_id").map(str::to_owned),
    })
}

/// The first line that is neither a section nor a name and its value. The parser's error names the line after it.
fn unreadable_line(text: &str) -> Option<usize> {
    let is_wrong = |line: &str| {
        let line = line.trim();
        match line.chars().next() {
            None | Some('#' | ';') => false,
            Some('[') => !line.ends_with(']'),
            Some(_) => !line.contains(['=', ':']),
        }
    };
    text.lines().position(is_wrong).map(|index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_the_sdks_is_read() {
        let text = "# own\n[global]\nak = G\n[basic]\nak = A\nsk = S/\\n+=\nsecurity_token = T\nproject_id = p1\n";
        let profile = parse(text).unwrap();
        assert_eq!(profile.keys.access_key(), "A");
        assert_eq!(profile.keys.secret_key(), "S/\\n+=");
        assert_eq!(profile.keys.security_token(), Some("T"));
        assert_eq!(profile.project.as_deref(), Some("p1"));
    }

    #[test]
    fn errors_do_not_quote_keys() {
        let cases = [
            ("", "[basic]"),
            ("[global]\nak=A\nsk=hunter2\n", "[basic]"),
            ("[basic]\nsk=hunter2\n", "no ak"),
            ("[basic]\nak=A\nsk=\n", "no sk"),
            ("[basic]\nak=A\nhunter2\n", "line"),
        ];
        for (text, expected) in cases {
            let why = parse(text).unwrap_err();
            assert!(why.contains(expected) && !why.contains("hunter2"), "{why}");
        }
    }

    #[tokio::test]
    async fn a_changed_file_is_reloaded_and_an_invalid_one_is_ignored() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("credentials");
        let file = CredentialsFile::new(path.clone());
        let key = async || {
            let profile = file.read().await.unwrap().unwrap();
            profile.keys.access_key().to_owned()
        };
        assert!(file.read().await.unwrap().is_none());
        std::fs::write(&path, "[basic]\nak=one\nsk=s\n").unwrap();
        assert_eq!(key().await, "one");
        std::fs::write(&path, "[basic]\nak=two-half").unwrap();
        assert_eq!(key().await, "one");
        std::fs::write(&path, "[basic]\nak=two-half\nsk=s\n").unwrap();
        assert_eq!(key().await, "two-half");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(key().await, "two-half");
    }
}
