//! `rotation_poll_interval`, with the CCE add-on's rule.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The time between two polls, in whole minutes: `1m` to `1440m`, by default `2m`.
/// Source: Huawei's CCE user guide, page cce_10_0370.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotationPollInterval(u64);

impl Default for RotationPollInterval {
    fn default() -> Self {
        Self(2)
    }
}

impl From<RotationPollInterval> for Duration {
    fn from(interval: RotationPollInterval) -> Self {
        Self::from_secs(60 * interval.0)
    }
}

impl FromStr for RotationPollInterval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.strip_suffix('m').unwrap_or_default();
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        match digits.parse() {
            Ok(minutes @ 1..=1440) if plain => Ok(Self(minutes)),
            _ => Err(format!(
                "{text:?} is not a rotation_poll_interval: write whole minutes from 1m to 1440m with \
                 the unit m, such as 2m (not min, s or h)"
            )),
        }
    }
}

impl fmt::Display for RotationPollInterval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}m", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_add_ons_rule() {
        for (text, seconds) in [("1m", 60), ("2m", 120), ("1440m", 86_400)] {
            let interval: RotationPollInterval = text.parse().unwrap();
            assert_eq!(Duration::from(interval), Duration::from_secs(seconds));
            assert_eq!(interval.to_string(), text);
        }
        for text in [
            "2min", "30s", "1h", "2", "0m", "0", "1441m", "", "m", "-1m", "+2m", "1.5m", " 2m",
            "2M",
        ] {
            let error = text.parse::<RotationPollInterval>().expect_err(text);
            assert!(
                error.contains("from 1m to 1440m with the unit m"),
                "{error}"
            );
        }
    }
}
