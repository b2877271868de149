//! What the leader of the cluster says of secrets, and what follows from it for what is held.
//!
//! A word is about the secret, not about who reads it: it tells that `latest` or a stage moved. The
//! value is always fetched by the identity that it is for.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::shelf::Held;
use super::{Key, Selector, Store};

/// Kinds of failures that are the leader's own, so that another node may fare better.
const LEADERS_OWN: [&str; 5] = [
    "Denied",
    "Credentials",
    "CredentialsExpired",
    "ClockSkew",
    "Configuration",
];

/// A secret that pods follow by `latest` or by a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subject<'a> {
    /// Its region.
    pub region: &'a str,
    /// Its project, where that is given.
    pub project: Option<&'a str>,
    /// Its name.
    pub secret: &'a str,
    /// The stage; `None` for `latest`.
    pub stage: Option<&'a str>,
}

/// Where a secret stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The newest version, or the one that holds the stage.
    pub version: String,
    /// The holder of `SYSCURRENT`, for `latest`.
    pub current: Option<String>,
    /// When the version was made, in milliseconds since 1970.
    pub created: Option<i64>,
}

/// What the leader says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    /// Where the secret stands, as far as is known.
    pub found: Option<Found>,
    /// Kind and cause, where it could not be confirmed.
    pub failing: Option<(String, String)>,
    /// Over what time nodes spread their fetches.
    pub spread: Duration,
}

struct Heard {
    word: Word,
    /// When it was first heard that the secret stands there.
    moved: Instant,
    failing_since: Option<Instant>,
}

/// How what is held for a key stands to the leader's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// No leader speaks for it: the node asks for itself.
    Own,
    /// It is what the leader says.
    Confirmed,
    /// It moved: to be fetched within `spread`, unless it was fetched since `since`.
    Moved {
        /// When that was heard.
        since: Instant,
        /// Over what time nodes spread their fetches.
        spread: Duration,
    },
    /// The leader could not confirm it.
    Failing {
        /// Since when.
        since: Instant,
        /// Why.
        cause: String,
    },
}

/// The words heard.
#[derive(Default)]
pub(super) struct Words {
    by_subject: HashMap<u64, Heard>,
    /// Two secrets with one hash out of 2^64, which nobody can choose, are not expected.
    hasher: RandomState,
    beat: Option<Instant>,
}

impl Words {
    fn hash(&self, subject: Subject<'_>) -> u64 {
        self.hasher.hash_one(subject)
    }

    fn of(&self, key: &Key) -> Option<&Heard> {
        if self.by_subject.is_empty() || !key.identity.is_own() {
            return None;
        }
        let stage = match &key.selector {
            Selector::Latest => None,
            Selector::Stage(stage) => Some(stage.as_str()),
            Selector::Version(_) => return None,
        };
        let subject = Subject {
            region: key.region.as_str(),
            project: key.project.as_deref(),
            secret: &key.secret,
            stage,
        };
        self.by_subject.get(&self.hash(subject))
    }

    /// The word for a key, if a leader stands behind it now.
    fn vouching(&self, key: &Key, interval: Duration) -> Option<(&Heard, Instant)> {
        let beat = self.beat.filter(|beat| beat.elapsed() <= 2 * interval)?;
        let heard = self.of(key)?;
        let kind = heard.word.failing.as_ref().map(|(kind, _)| kind.as_str());
        let own = kind.is_some_and(|kind| LEADERS_OWN.contains(&kind));
        (!own).then_some((heard, beat))
    }
}

impl Heard {
    fn standing(&self, held: Option<&Held>) -> Standing {
        match (self.is_met_by(held), &self.word.failing, self.failing_since) {
            (false, _, _) => Standing::Moved {
                since: self.moved,
                spread: self.word.spread,
            },
            (true, Some((_, cause)), Some(since)) => Standing::Failing {
                since,
                cause: cause.clone(),
            },
            (true, _, _) => Standing::Confirmed,
        }
    }

    fn is_met_by(&self, held: Option<&Held>) -> bool {
        let Some(found) = &self.word.found else {
            return true;
        };
        let Some(held) = held else { return false };
        if held.checked >= self.moved {
            return true;
        }
        // Where `latest` may mean one of two, only a fetch can tell.
        let one = found.current.as_ref().is_none_or(|c| *c == found.version);
        let same = found
            .created
            .is_none_or(|at| at == held.version.create_time);
        one && held.version.id == found.version && same
    }
}

impl Store {
    /// What is held for a key, without its value: the number of its version, and when that was made.
    pub fn held(&self, key: &Key) -> Option<(u32, i64)> {
        let shelf = self.0.shelf();
        let version = &shelf.held.get(key)?.version;
        Some((version.number(), version.create_time))
    }

    /// When the fetch of what is held began.
    pub fn checked(&self, key: &Key) -> Option<Instant> {
        self.0.shelf().held.get(key).map(|held| held.checked)
    }

    fn words(&self) -> MutexGuard<'_, Words> {
        self.0.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a word.
    pub fn hear(&self, subject: Subject<'_>, word: Word, at: Instant) {
        let mut words = self.words();
        let hash = words.hash(subject);
        let old = words.by_subject.remove(&hash);
        let moved = match &old {
            Some(old) if old.word.found == word.found => old.moved,
            _ => at,
        };
        let failing_since = word.failing.as_ref().map(|_| {
            let before = old.as_ref().and_then(|old| old.failing_since);
            before.unwrap_or(at)
        });
        let heard = Heard {
            word,
            moved,
            failing_since,
        };
        words.by_subject.insert(hash, heard);
    }

    /// The leader does not speak of it any more.
    pub fn unhear(&self, subject: Subject<'_>) {
        let mut words = self.words();
        let hash = words.hash(subject);
        words.by_subject.remove(&hash);
    }

    /// The leader has confirmed all its words.
    pub fn beat(&self, at: Instant) {
        self.words().beat = Some(at);
    }

    /// Whether a leader looks after the key, so that a repeated Mount need not ask.
    pub fn is_looked_after(&self, key: &Key, interval: Duration) -> bool {
        self.words().vouching(key, interval).is_some()
    }

    /// How what is held for a key stands to the leader's words, and when it was last known to be
    /// current: by a fetch, or by the leader, whose last question is up to one interval older than
    /// its beat.
    pub fn standing(&self, key: &Key, interval: Duration) -> (Standing, Option<Instant>) {
        let words = self.words();
        let shelf = self.0.shelf();
        let held = shelf.held.get(key);
        let checked = held.map(|held| held.checked);
        let Some((heard, beat)) = words.vouching(key, interval) else {
            return (Standing::Own, checked);
        };
        let standing = heard.standing(held);
        let asked = beat.checked_sub(interval);
        let confirmed = match (&standing, asked) {
            (Standing::Confirmed, Some(asked)) => checked.map(|checked| checked.max(asked)),
            _ => checked,
        };
        (standing, confirmed)
    }
}
