//! Durations on the command line, parsed by jiff.

use std::time::Duration;

use jiff::SignedDuration;

/// Parses a duration such as `24h`, `30m` or `5s` of at most `max`; `0` is zero.
///
/// # Errors
/// `expected`, the text that says which durations are valid.
fn parse(text: &str, max: Duration, expected: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    text.parse::<SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .filter(|duration| *duration <= max && duration.subsec_nanos() == 0)
        .ok_or_else(|| expected.to_owned())
}

/// `--stale-limit`.
pub(super) fn stale_limit(text: &str) -> Result<Duration, String> {
    let max = Duration::from_secs(7 * 24 * 60 * 60);
    parse(
        text,
        max,
        "use a duration of at most 168h such as 24h or 30m, or 0 for never",
    )
}

/// `--rotation-spread`.
pub(super) fn spread(text: &str) -> Result<Duration, String> {
    let max = Duration::from_secs(60 * 60);
    parse(
        text,
        max,
        "use a duration of at most 60m such as 5s or 1m, or 0 for none",
    )
}
