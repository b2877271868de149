//! Suggestions for misspelled names.

/// Longest name that is compared, in bytes.
const MAX_COMPARED: usize = 64;

/// The message for an unknown field, with the nearest known one.
pub fn unknown_field(field: &str, known: &[&str]) -> String {
    match nearest(field, known) {
        Some(near) => format!("unknown field; did you mean {near}?"),
        None => format!("unknown field; known fields: {}", known.join(", ")),
    }
}

/// The known name that `name` is most likely a misspelling of.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    // Comparing takes time and memory in proportion to the length, and no known name is that long.
    if name.len() > MAX_COMPARED {
        return None;
    }
    let lower = name.to_lowercase();
    known
        .iter()
        .map(|k| (strsim::damerau_levenshtein(&lower, &k.to_lowercase()), *k))
        .filter(|(distance, k)| *distance <= 1 + k.len() / 4)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}
