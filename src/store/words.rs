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
use super::{Key, Selector, Store, version_number};

/// Kinds of failures that are the leader's own, so that another node may fare better.
const LEADERS_OWN: [&str; 5] = [
    "Denied",
    "Credentials",
    "CredentialsExpired",
    "ClockSkew",
    "Configuration",
];

/// Kinds of failures that are facts about the secret: a "no" to every identity.
const REFUSALS: [&str; 2] = ["NotFound", "Disabled"];

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
    /// How often it is asked for.
    pub interval: Duration,
}

impl Word {
    fn is_gone(&self) -> bool {
        matches!(&self.failing, Some((kind, _)) if kind == "NotFound")
    }

    fn is_refusal(&self) -> bool {
        let kind = self.failing.as_ref().map(|(kind, _)| kind.as_str());
        kind.is_some_and(|kind| REFUSALS.contains(&kind))
    }
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
        if self.by_subject.is_empty() {
            return None;
        }
        self.by_subject.get(&self.hash_of(key)?)
    }

    fn hash_of(&self, key: &Key) -> Option<u64> {
        if !key.identity.is_own() {
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
        Some(self.hash(subject))
    }

    /// The word for a key, if a leader stands behind it now.
    fn vouching(&self, key: &Key, interval: Duration) -> Option<&Heard> {
        self.beat.filter(|beat| beat.elapsed() <= 2 * interval)?;
        let heard = self.of(key)?;
        let kind = heard.word.failing.as_ref().map(|(kind, _)| kind.as_str());
        let own = kind.is_some_and(|kind| LEADERS_OWN.contains(&kind));
        (!own).then_some(heard)
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
            // What was read since must not be older than what was listed: a reader may lag.
            let number = held.version.number();
            let current = found.current.as_deref().map(version_number);
            return number >= version_number(&found.version) || current == Some(number);
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
    /// Nothing where the leader says that it is gone.
    pub fn held(&self, key: &Key) -> Option<(u32, i64)> {
        if self
            .words()
            .of(key)
            .is_some_and(|heard| heard.word.is_gone())
        {
            return None;
        }
        let shelf = self.0.shelf();
        let version = &shelf.held.get(key)?.version;
        Some((version.number(), version.create_time))
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
            // What was refused is to be read again once it is not.
            Some(old)
                if old.word.found == word.found
                    && (!old.word.is_refusal() || word.is_refusal()) =>
            {
                old.moved
            }
            _ => at,
        };
        let refused = word.is_refusal();
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
        if !refused {
            return;
        }
        // The "no" that the leader got is one to this node, too: also after an outage that follows.
        let shelf = self.0.shelf();
        let of_subject = shelf
            .held
            .iter()
            .filter(|(key, _)| words.hash_of(key) == Some(hash))
            .map(|(key, held)| (key.clone(), held.lasting.clone()));
        let of_subject: Vec<_> = of_subject.collect();
        drop((shelf, words));
        for (key, lasting) in of_subject {
            self.0.refuse(&key, lasting);
        }
    }

    /// The leader does not speak of it any more.
    pub fn unhear(&self, subject: Subject<'_>) {
        let mut words = self.words();
        let hash = words.hash(subject);
        words.by_subject.remove(&hash);
    }

    /// The leader has confirmed all its words: each was asked for within its interval.
    pub fn beat(&self, at: Instant) {
        let mut words = self.words();
        words.beat = Some(at);
        let mut confirmed = false;
        for (key, held) in &mut self.0.shelf().held {
            let Some(heard) = words.of(key) else { continue };
            let asked = at.checked_sub(heard.word.interval);
            if let Some(asked) = asked.filter(|asked| *asked > held.checked)
                && heard.word.failing.is_none()
                && heard.is_met_by(Some(held))
            {
                held.checked = asked;
                confirmed = true;
            }
        }
        if let (Some(saving), true) = (&self.0.saving, confirmed) {
            saving.confirmed();
        }
    }

    /// Whether the leader says that it does not exist.
    pub fn is_gone(&self, key: &Key, interval: Duration) -> bool {
        let words = self.words();
        let heard = words.vouching(key, interval);
        heard.is_some_and(|heard| heard.word.is_gone())
    }

    /// Whether a leader looks after the key, so that a repeated Mount need not ask.
    pub fn is_looked_after(&self, key: &Key, interval: Duration) -> bool {
        self.words().vouching(key, interval).is_some()
    }

    /// How what is held for a key stands to the leader's words, and when it was last known to be
    /// current: by a fetch, or by the leader.
    pub fn standing(&self, key: &Key, interval: Duration) -> (Standing, Option<Instant>) {
        let words = self.words();
        let shelf = self.0.shelf();
        let held = shelf.held.get(key);
        let checked = held.map(|held| held.checked);
        let standing = words
            .vouching(key, interval)
            .map_or(Standing::Own, |heard| heard.standing(held));
        (standing, checked)
    }
}
