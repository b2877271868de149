//! Texts for people: bounded, on one line, and without characters that change how a terminal shows them.

use std::error::Error;
use std::fmt;
use std::io;

/// `text` on one line of at most `limit` characters, without control characters.
pub fn one_line(text: &str, limit: usize) -> String {
    let breaks = |c: char| c.is_whitespace() || c.is_control() || is_invisible(c);
    let words: Vec<&str> = text.split(breaks).filter(|word| !word.is_empty()).collect();
    let line = words.join(" ");
    match line.char_indices().nth(limit) {
        None => line,
        Some(_) => line.chars().take(limit - 1).chain(['…']).collect(),
    }
}

/// Characters that reorder or hide text: marks and overrides of the writing direction, zero-width characters.
fn is_invisible(c: char) -> bool {
    matches!(
        c,
        '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
    )
}

/// `text` with escapes (`\u{1b}`) for characters that a terminal would act on.
pub fn escaped(text: &str) -> String {
    let is_plain =
        |c: char| !c.is_control() && !is_invisible(c) && !matches!(c, '\u{2028}' | '\u{2029}');
    if text.chars().all(is_plain) {
        return text.to_owned();
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_plain(c) {
            safe.push(c);
        } else {
            safe.extend(c.escape_default());
        }
    }
    safe
}

/// The beginning of `text`, at most `limit` bytes with the mark that shows the cut.
pub fn cut(mut text: String, limit: usize) -> String {
    const MARK: &str = " … (truncated)";
    if text.len() > limit {
        text.truncate(text.floor_char_boundary(limit.saturating_sub(MARK.len())));
        text.push_str(MARK);
    }
    text
}

/// The texts of `items`, separated by `separator`, as far as they fit into `limit` bytes and at most `most` of
/// them; then how many were left out. The first one is always there, and may be cut.
pub fn joined<T: fmt::Display>(
    items: impl IntoIterator<Item = T>,
    separator: &str,
    most: usize,
    limit: usize,
) -> String {
    /// Room for the number of items that were left out.
    const REST: usize = 32;
    let (mut text, left_out) = fitting(items, separator, most, limit.saturating_sub(REST));
    if left_out > 0 {
        text.push_str(&format!("{separator}and {left_out} more"));
    }
    text
}

/// Like [`joined`], with the number of items that were left out beside the text.
pub fn fitting<T: fmt::Display>(
    items: impl IntoIterator<Item = T>,
    separator: &str,
    most: usize,
    limit: usize,
) -> (String, usize) {
    let mut text = String::new();
    let mut left_out = 0;
    for (index, item) in items.into_iter().enumerate() {
        let item = item.to_string();
        if index == 0 {
            text = cut(item, limit);
        } else if left_out == 0
            && index < most
            && text.len() + separator.len() + item.len() <= limit
        {
            text.push_str(separator);
            text.push_str(&item);
        } else {
            left_out += 1;
        }
    }
    (text, left_out)
}

/// The texts of an error and of its causes, without repetitions and without what libraries put around them.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let mut own = without_os_error(&error.to_string());
        // Many libraries append the text of the cause.
        next = cause(error);
        if let Some(below) = next {
            let below = without_os_error(&below.to_string());
            if let Some(rest) = own.strip_suffix(&below) {
                own = rest.trim_end_matches([':', ' ']).to_owned();
            }
        }
        let is_frame = WRAPPERS.iter().any(|wrapper| own.starts_with(wrapper));
        if !own.is_empty() && !is_frame && !parts.iter().any(|part| part.contains(&own)) {
            parts.push(own);
        }
    }
    if parts.is_empty() {
        parts.push("it failed for an unknown reason".to_owned());
    }
    one_line(&parts.join(": "), MAX_CAUSES)
}

/// The cause of an error. The source of an `io::Error` skips the error that it wraps.
pub fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    if let Some(inner) = error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
    {
        return Some(inner);
    }
    error.source()
}

/// Maximum length of all causes of an error, in characters.
const MAX_CAUSES: usize = 300;

/// Texts of errors that say only which part of a library failed.
const WRAPPERS: [&str; 7] = [
    "client error (",
    "tcp connect error",
    "tcp open error",
    "error trying to connect",
    "connection error",
    "ServiceError",
    "HyperError",
];

/// The reason of an I/O error, without the number of the operating system's error.
pub fn io_reason(error: &io::Error) -> String {
    without_os_error(&error.to_string())
}

/// `text` without ` (os error N)`, wherever it is.
pub fn without_os_error(text: &str) -> String {
    const BEGIN: &str = " (os error ";
    let mut rest = text;
    let mut clean = String::with_capacity(text.len());
    while let Some(at) = rest.find(BEGIN) {
        clean.push_str(&rest[..at]);
        let after = &rest[at + BEGIN.len()..];
        rest = after.split_once(')').map_or("", |(_, rest)| rest);
    }
    clean.push_str(rest);
    clean
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn control_characters_are_escaped_or_dropped() {
        let text = "a\u{1b}[31mb\n\u{202e}c\u{0}é";
        assert_eq!(escaped(text), "a\\u{1b}[31mb\\n\\u{202e}c\\u{0}é");
        assert_eq!(one_line(text, 99), "a [31mb c é");
        assert_eq!(one_line("abcdef", 4), "abc…");
    }

    #[test]
    fn the_number_of_the_system_is_dropped() {
        let error = io::Error::from_raw_os_error(2);
        assert_eq!(io_reason(&error), "No such file or directory");
        assert_eq!(
            without_os_error("x: a (os error 111): b (os error 2)"),
            "x: a: b"
        );
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        assert_eq!(joined(["a", "b"], ", ", 9, 99), "a, b");
        assert_eq!(joined(["a", "b", "c"], ", ", 2, 99), "a, b, and 1 more");
        let long = "x".repeat(100);
        assert_eq!(
            joined([&long, &long], "; ", 9, 150),
            format!("{long}; and 1 more")
        );
    }

    proptest! {
        #[test]
        fn texts_keep_their_bound(
            items in proptest::collection::vec("\\PC{0,80}|[\u{1b}\n\u{202e}密🔑]{0,300}", 0..40),
            limit in 64_usize..2000,
        ) {
            prop_assert!(joined(&items, "; ", 20, limit).len() <= limit);
            prop_assert!(cut(items.concat(), limit).len() <= limit);
            let line = one_line(&items.concat(), limit);
            prop_assert!(line.chars().count() <= limit && !line.chars().any(char::is_control));
            prop_assert!(!escaped(&items.concat()).chars().any(|c| c.is_control() || is_invisible(c)));
        }
    }
}
