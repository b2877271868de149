//! What is wrong with a YAML text, for the person who wrote it. The parser's own messages speak to programmers.

use serde_saphyr::Error;

use super::text::one_line;

/// Maximum length of a quoted value, in characters.
const MAX_FOUND: usize = 40;
/// Maximum length of the name of a field, in characters.
const MAX_FIELD: usize = 64;

/// Why a YAML text cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct YamlFault {
    /// Line, from 1; 0 if unknown.
    pub line: u64,
    /// The field whose value is wrong, if it is a value.
    pub field: Option<String>,
    /// What was found, what is expected, and what to do. Names neither line nor field.
    pub reason: String,
}

/// Describes the parser's error about `text`.
pub fn describe(error: &Error, text: &str) -> YamlFault {
    let error = innermost(error);
    let location = error.location();
    let place = ErrorPosition {
        text,
        line: location.map_or(0, |l| l.line()),
        column: location.map_or(0, |l| l.column()),
    };
    let of_value = |reason: String| YamlFault {
        line: place.line,
        field: place.field(),
        reason,
    };
    match error {
        Error::DuplicateMappingKey { key, .. } => YamlFault {
            line: place.line,
            field: key.as_deref().map(|key| one_line(key, MAX_FIELD)),
            reason: "set twice in the same place: remove one of the two".to_owned(),
        },
        Error::Unexpected { expected, .. } => of_value(mismatch(expected, &place)),
        Error::InvalidScalar { ty, .. } => of_value(mismatch(ty, &place)),
        Error::InvalidBooleanStrict { .. } => of_value(mismatch("boolean", &place)),
        Error::SerdeInvalidType { expected, .. } | Error::SerdeInvalidValue { expected, .. } => {
            of_value(mismatch(expected, &place))
        }
        Error::NullIntoString { .. } => of_value("expected text, found nothing".to_owned()),
        Error::TaggedScalarCannotDeserializeIntoString { .. }
        | Error::InvalidBinaryBase64 { .. }
        | Error::BinaryNotUtf8 { .. }
        | Error::UnsupportedTag { .. } => {
            of_value("a tag such as !!int or !!binary is not supported: remove it".to_owned())
        }
        Error::SerdeMissingField { field, .. } => YamlFault {
            line: place.line,
            field: Some((*field).to_owned()),
            reason: "missing: set it".to_owned(),
        },
        other => YamlFault {
            line: place.line_of_tab(other),
            field: None,
            reason: syntax(other, &place),
        },
    }
}

/// The error itself, without what the parser wraps around it.
fn innermost(error: &Error) -> &Error {
    match error {
        Error::WithSnippet { error, .. } | Error::AliasError { error, .. } => innermost(error),
        error => error,
    }
}

/// A value of another type than expected.
fn mismatch(expected: &str, place: &ErrorPosition<'_>) -> String {
    let has = |part: &str| expected.contains(part);
    let found = place.found();
    let expected = if has("sequence") || has("list") {
        match found.as_str() {
            "fields" => "a list: begin each item with `- `",
            _ => "a list, each item beginning with `- `",
        }
    } else if has("mapping") || has("map") || has("object") || has("struct") {
        "fields, each as `name: value`"
    } else if has("bool") {
        "true or false"
    } else {
        "text"
    };
    format!("found {found}, expected {expected}")
}

/// What the parser calls it, and what it is for a reader.
const SYNTAX: [(&str, &str); 17] = [
    (
        "recursive references",
        "an alias inside of its own anchor: write the value out",
    ),
    (
        "unclosed quote",
        "a quote is not closed: add the missing one at the end of the value",
    ),
    (
        "unclosed bracket",
        "a bracket is not closed: add the missing ] or }",
    ),
    (
        "misplaced bracket",
        "a closing bracket without an opening one: remove it, or put quotes around the value",
    ),
    (
        "expected '-' indicator",
        "the indentation does not match the lines above: indent the fields of one item alike",
    ),
    (
        "block mapping",
        "the indentation does not match the lines above: indent the fields of one item alike",
    ),
    (
        "mapping values are not allowed",
        "a colon that begins no value: put quotes around a value that contains `: `, and indent the fields of one \
         item alike",
    ),
    ("tab", "a tab in the indentation: use spaces"),
    (
        "expected ':'",
        "expected `name: value`: the colon after a name is missing, or a value lacks its quotes or indentation",
    ),
    (
        "escape",
        "an unknown escape in double quotes: write \\\\ for a backslash, or use single quotes",
    ),
    (
        "surrogate",
        "an unknown escape in double quotes: write the character itself",
    ),
    (
        "anchor",
        "a value that begins with * refers to an anchor that does not exist: put quotes around it",
    ),
    ("recursion", "nested too deeply: simplify it"),
    (
        "budget",
        "too large or too deeply nested: split it, and avoid anchors and aliases",
    ),
    ("alias", "too many aliases: write the values out"),
    (
        "YAML",
        "a % directive that is not supported: remove the line",
    ),
    (
        "multiple YAML documents",
        "more than one document: write one, without ---",
    ),
];

/// Text that is not YAML.
fn syntax(error: &Error, place: &ErrorPosition<'_>) -> String {
    let message = error.to_string();
    match error {
        Error::Eof { .. } => return "the text ends too early".to_owned(),
        Error::Budget { .. } => return named("budget"),
        _ => {}
    }
    if message.contains("unexpected character") {
        return match place.rest().chars().next() {
            Some(character) => {
                format!("a value must not begin with {character:?}: put quotes around it")
            }
            None => named(""),
        };
    }
    named(&message)
}

fn named(message: &str) -> String {
    let known = SYNTAX.iter().find(|(part, _)| message.contains(part));
    let reason = known.map_or(
        "not YAML: check the indentation, the quotes and the brackets",
        |(_, reason)| reason,
    );
    reason.to_owned()
}

/// Where in a text an error is.
struct ErrorPosition<'a> {
    text: &'a str,
    line: u64,
    column: u64,
}

impl<'a> ErrorPosition<'a> {
    fn lines_before(&self) -> impl Iterator<Item = &'a str> {
        let before = usize::try_from(self.line).unwrap_or(0).saturating_sub(1);
        self.text.lines().take(before)
    }

    fn line_text(&self) -> &'a str {
        let index = usize::try_from(self.line).unwrap_or(0).checked_sub(1);
        index
            .and_then(|index| self.text.lines().nth(index))
            .unwrap_or_default()
    }

    /// The line, divided where the error is.
    fn halves(&self) -> (&'a str, &'a str) {
        let line = self.line_text();
        let skip = usize::try_from(self.column).unwrap_or(0).saturating_sub(1);
        let at = line
            .char_indices()
            .nth(skip)
            .map_or(line.len(), |(at, _)| at);
        line.split_at(at)
    }

    /// The rest of the line.
    fn rest(&self) -> &'a str {
        self.halves().1
    }

    /// What is there instead of what is expected.
    fn found(&self) -> String {
        let rest = self.rest().trim_end();
        let value = rest.split(" #").next().unwrap_or_default().trim_end();
        match value.chars().next() {
            None => return "nothing".to_owned(),
            Some('[') => return "a list".to_owned(),
            Some('{') => return "fields".to_owned(),
            Some('-') if value == "-" || value.starts_with("- ") => return "a list".to_owned(),
            Some(quote @ ('"' | '\'')) => {
                let inner = value[1..].split(quote).next().unwrap_or_default();
                return format!("the text {:?}", one_line(inner, MAX_FOUND));
            }
            Some('|' | '>') => return "text".to_owned(),
            Some(_) => {}
        }
        if value.ends_with(':') || value.contains(": ") {
            return "fields".to_owned();
        }
        let inner = value.split([',', ']', '}']).next().unwrap_or_default();
        format!("{:?}", one_line(inner, MAX_FOUND))
    }

    /// The field whose value is here: the last name with a colon before it.
    fn field(&self) -> Option<String> {
        let (before, _) = self.halves();
        if let Some(name) = last_name(before) {
            return Some(name);
        }
        // Only the indentation, the marks of a list or an opening bracket precede it: its name is further up.
        let marks = |c: char| c == '-' || c == '[' || c == '{' || c.is_whitespace();
        let depth = before.len() - before.trim_start().len();
        if !before.chars().all(marks) || before.trim().is_empty() && depth == 0 && self.column == 0
        {
            return None;
        }
        for line in self.lines_before().collect::<Vec<_>>().into_iter().rev() {
            let text = line.trim();
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let indent = line.len() - line.trim_start().len();
            if indent <= depth {
                let text = text.split(" #").next().unwrap_or_default().trim_end();
                return text.ends_with(':').then(|| last_name(text)).flatten();
            }
        }
        None
    }

    /// The line of the tab, which the parser reports at the value before it.
    fn line_of_tab(&self, error: &Error) -> u64 {
        if !error.to_string().contains("tab") {
            return self.line;
        }
        let first = usize::try_from(self.line).unwrap_or(0).saturating_sub(1);
        let mut lines = self.text.lines().enumerate().skip(first);
        let found = lines.find(|(_, line)| line.trim_start_matches(' ').starts_with('\t'));
        found.map_or(self.line, |(index, _)| index as u64 + 1)
    }
}

/// The last `name:` of a line, if only marks follow it.
fn last_name(before: &str) -> Option<String> {
    let marks =
        |c: char| c == '[' || c == '{' || c == '-' || c == '"' || c == '\'' || c.is_whitespace();
    let mut before = before.trim_end_matches(marks);
    // A tag or an anchor may precede the value.
    if let Some((rest, last)) = before.rsplit_once(' ')
        && last.starts_with(['!', '&'])
    {
        before = rest.trim_end_matches(marks);
    }
    let (names, _) = before
        .rsplit_once(':')
        .filter(|(_, after)| after.is_empty())?;
    let begins = |c: char| matches!(c, '{' | '[' | ',' | '?') || c.is_whitespace();
    let name = names
        .rsplit(begins)
        .next()
        .unwrap_or_default()
        .trim_matches(['"', '\'']);
    (!name.is_empty()).then(|| one_line(name, MAX_FIELD))
}
