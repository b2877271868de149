//! The JMESPath of `jmesPath` items: exact numbers, and a bound on what an evaluation may take.
//!
//! The expressions are those of <https://jmespath.org/specification.html>. Numbers differ from jpx-core's: it
//! computes with 64-bit floating-point numbers, so that `floor` of an account number would be another number.

use std::sync::LazyLock;

use jpx_core::functions::{Function, custom_error};
use jpx_core::{Context, Runtime, SearchResult};
use serde_json::{Number, Value};

use super::jmespath_cost::{GROWING, GROWTH, MAX_EXPANSION, peak_expansion};
pub use super::jmespath_eval::EvaluationSteps;
use super::jmespath_eval::{OUT_OF_RANGE, TOO_LARGE, evaluate, size_of};
use crate::util::text::one_line;

/// Longest expression, in bytes: keeps its parser far from the end of the stack.
pub const MAX_JMESPATH_BYTES: usize = 512;
/// Maximum length of the part of an expression that an error quotes, in characters.
const MAX_FOUND: usize = 24;

/// Functions whose results are numbers, or that compare numbers.
const NUMERIC: [&str; 7] = ["abs", "avg", "ceil", "floor", "max", "min", "sum"];

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut runtime = Runtime::new();
    runtime.register_builtin_functions();
    for name in NUMERIC {
        if let Some(builtin) = runtime.deregister_function(name) {
            runtime.register_function(name, Box::new(ExactNumbers { name, builtin }));
        }
    }
    for name in GROWING {
        if let Some(builtin) = runtime.deregister_function(name) {
            runtime.register_function(name, Box::new(BoundedText { builtin }));
        }
    }
    runtime
});

/// A checked expression. Only its text is kept: parsed, it takes a hundred times as much memory.
#[derive(Clone, Debug)]
pub struct JmesPath(Box<str>);

impl JmesPath {
    /// Checks an expression.
    ///
    /// # Errors
    /// Why it is not valid, or could take too much memory.
    pub fn compile(text: &str) -> Result<Self, String> {
        if text.len() > MAX_JMESPATH_BYTES {
            return Err(format!(
                "expression too long: {} bytes (limit {MAX_JMESPATH_BYTES})",
                text.len()
            ));
        }
        let expression = RUNTIME.compile(text).map_err(|error| {
            format!(
                "invalid JMESPath expression (column {}): {}{}",
                error.column() + 1,
                syntax_reason(&error, text),
                quoting_hint(text)
            )
        })?;
        if peak_expansion(expression.as_ast()) > MAX_EXPANSION {
            return Err(format!(
                "the expression could copy the secret more than {MAX_EXPANSION} times: split it into several \
                 items"
            ));
        }
        Ok(Self(text.into()))
    }

    /// The text of the expression.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Evaluates the expression on `json`. Uses up some of `steps`.
    ///
    /// # Errors
    /// Why it cannot be evaluated. The message contains no part of `json`.
    pub fn search(&self, json: &Value, steps: &mut EvaluationSteps) -> Result<Value, &'static str> {
        let expression = RUNTIME.compile(&self.0);
        // It was compiled before.
        let expression = expression.map_err(|_| "it is not valid")?;
        evaluate(&RUNTIME, expression.as_ast(), json, steps)
    }
}

/// What the parser calls an error of syntax, and what it is for a reader.
const SYNTAX: [(&str, &str); 26] = [
    ("'='", "a comparison is written =="),
    (
        "Did not parse the complete expression",
        "this text follows a complete expression",
    ),
    ("nesting exceeds", "it is nested too deeply"),
    (
        "Quoted strings can't be",
        "the name of a function must not be in quotes",
    ),
    ("Expected '}' or ','", "expected } or ,"),
    (
        "Expression references",
        "& is allowed only before an argument of a function",
    ),
    ("Expected ')'", "expected ) for the ( before it"),
    (
        "Expected number, ':', or '*'",
        "expected a number, : or * after [",
    ),
    ("Expected number, ':', or ']'", "expected a number, : or ]"),
    ("Expected ':', or ']'", "expected : or ]"),
    ("Expected ':' to follow key", "expected : after the key"),
    ("Expected Field", "expected a key"),
    ("Expected ']'", "expected ]"),
    (
        "Expected identifier",
        "expected a key, *, {, [, & or [? after the dot",
    ),
    ("Expected '.', '[', or '[?'", "expected ., [ or [?"),
    (
        "Invalid function name",
        "expected the name of a function before (",
    ),
    ("Too many colons", "a slice has at most two colons"),
    ("invalid token after ','", "expected another item after ,"),
    ("Invalid character", "this character has no meaning here"),
    ("Expected valid number", "the number is too large"),
    ("'-' must be followed", "expected a number after -"),
    ("'$' must be followed", "$ has no meaning here"),
    ("Unclosed", "the quote is not closed"),
    (
        "Unable to parse quoted identifier",
        "the text in double quotes is not valid: write \\\\ for a backslash",
    ),
    (
        "Unable to parse literal JSON",
        "the text in backticks is not JSON",
    ),
    ("Unexpected", "this is unexpected here"),
];

/// Why an expression is not valid, and the text that shows it.
fn syntax_reason(error: &jpx_core::JmespathError, text: &str) -> String {
    let message = error.reason.to_string();
    if message.contains("found Eof") || text.trim().is_empty() {
        return "the expression ends too early".to_owned();
    }
    let known = SYNTAX.iter().find(|(part, _)| message.contains(part));
    let reason = known.map_or("this is not JMESPath", |(_, reason)| reason);
    let found = one_line(text.get(error.offset..).unwrap_or_default(), MAX_FOUND);
    if found.is_empty() {
        return reason.to_owned();
    }
    format!("{reason}; found {found:?}")
}

/// How to write a key that is not an identifier.
fn quoting_hint(text: &str) -> &'static str {
    if text.contains('"') {
        ""
    } else {
        "; a key with other characters than letters, digits and _, or that begins with a digit, needs quotes: \
         '\"my-key\"'"
    }
}

/// A function of [`NUMERIC`], with exact results for whole numbers.
struct ExactNumbers {
    name: &'static str,
    builtin: Box<dyn Function>,
}

impl Function for ExactNumbers {
    fn evaluate(&self, args: &[Value], ctx: &mut Context<'_>) -> SearchResult {
        if let Some(result) = exact(self.name, args) {
            return Ok(Value::Number(result));
        }
        if args.iter().any(is_out_of_range) {
            return Err(custom_error(ctx, OUT_OF_RANGE));
        }
        match self.builtin.evaluate(args, ctx)? {
            // What max and min return is written as in the secret.
            Value::Number(number) if !matches!(self.name, "max" | "min") => {
                Ok(Value::Number(without_zero_fraction(number)))
            }
            result => Ok(result),
        }
    }
}

/// A function of [`GROWING`] that fails if its result is larger than the static cost assumes.
struct BoundedText {
    builtin: Box<dyn Function>,
}

impl Function for BoundedText {
    fn evaluate(&self, args: &[Value], ctx: &mut Context<'_>) -> SearchResult {
        let most = args.iter().map(size_of).sum::<usize>() * GROWTH as usize;
        // Checked before the text exists: the glue of join may be long, and its items many.
        if let [Value::String(glue), Value::Array(items)] = args
            && glue.len().saturating_mul(items.len()) > most
        {
            return Err(custom_error(ctx, TOO_LARGE));
        }
        match self.builtin.evaluate(args, ctx)? {
            Value::String(text) if text.len() > most => Err(custom_error(ctx, TOO_LARGE)),
            result => Ok(result),
        }
    }
}

/// The result, if it can be computed on the digits.
fn exact(name: &str, args: &[Value]) -> Option<Number> {
    let whole = |value: &Value| -> Option<i128> {
        let Value::Number(number) = value else {
            return None;
        };
        number.as_str().parse().ok()
    };
    match (name, args) {
        ("abs", [Value::Number(number)]) => {
            let text = number.as_str();
            text.strip_prefix('-').unwrap_or(text).parse().ok()
        }
        ("floor" | "ceil", [Value::Number(number)]) => {
            let text = number.as_str();
            let Some((integer, fraction)) = text.split_once('.') else {
                let is_whole = text
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || byte == b'-');
                return is_whole.then(|| number.clone());
            };
            if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            let is_negative = integer.starts_with('-');
            let mut result: i128 = integer.parse().ok()?;
            if fraction.bytes().any(|byte| byte != b'0') {
                match (name, is_negative) {
                    ("floor", true) => result = result.checked_sub(1)?,
                    ("ceil", false) => result = result.checked_add(1)?,
                    _ => {}
                }
            }
            result.to_string().parse().ok()
        }
        ("sum", [Value::Array(items)]) => {
            let mut sum: i128 = 0;
            for item in items {
                sum = sum.checked_add(whole(item)?)?;
            }
            sum.to_string().parse().ok()
        }
        _ => None,
    }
}

/// Whether it is, or contains, a number that no floating-point number stands for.
fn is_out_of_range(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_f64().is_none_or(|number| !number.is_finite()),
        Value::Array(items) => items.iter().any(is_out_of_range),
        _ => false,
    }
}

/// `5` for `5.0`.
fn without_zero_fraction(number: Number) -> Number {
    let whole = number
        .as_str()
        .strip_suffix(".0")
        .and_then(|text| text.parse().ok());
    whole.unwrap_or(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(expression: &str, json: &str) -> String {
        let json: Value = serde_json::from_str(json).unwrap();
        let path = JmesPath::compile(expression).unwrap();
        match path.search(&json, &mut EvaluationSteps::default()) {
            Ok(result) => result.to_string(),
            Err(why) => why.to_owned(),
        }
    }

    #[test]
    fn numbers_are_exact() {
        for (expression, json, expected) in [
            ("@", "1.10", "1.10"),
            (
                "@",
                "1234567890123456789012345",
                "1234567890123456789012345",
            ),
            ("to_string(@)", "1.10", "\"1.10\""),
            (
                "to_string(@)",
                "1234567890123456789012345",
                "\"1234567890123456789012345\"",
            ),
            ("floor(@)", "9007199254740993", "9007199254740993"),
            ("floor(@)", "-9007199254740993.5", "-9007199254740994"),
            ("floor(@)", "-0.5", "-1"),
            ("floor(@)", "-2.0", "-2"),
            ("ceil(@)", "9007199254740993.0001", "9007199254740994"),
            ("ceil(@)", "1e2", "100"),
            ("abs(@)", "-5", "5"),
            ("abs(@)", "-1.10", "1.10"),
            ("abs(@)", "-1e400", "1e+400"),
            ("sum(@)", "[9007199254740993, 1, -1]", "9007199254740993"),
            ("sum(@)", "[1.5, 1.5]", "3"),
            ("avg(@)", "[2, 4]", "3"),
            ("avg(@)", "[1, 2]", "1.5"),
            ("max(@)", "[1, 3.50, 2]", "3.50"),
            ("length(@)", "[1, 2]", "2"),
            ("to_number(@)", "\"25.10\"", "25.10"),
            ("sort(@)", "[2, 1.0]", "[1.0,2]"),
        ] {
            assert_eq!(search(expression, json), expected, "{expression} of {json}");
        }
    }

    #[test]
    fn numbers_out_of_range_are_errors_where_they_are_computed_with() {
        for expression in ["floor(@)", "ceil(@)", "sum([@, `1.5`])", "max([@, `1`])"] {
            assert_eq!(search(expression, "1e400"), OUT_OF_RANGE, "{expression}");
        }
        assert_eq!(search("[@ == `1`, @ > `1`][0]", "1e400"), "false");
        // Other keys of the same secret are not affected.
        assert_eq!(search("b", r#"{"a":1e400,"b":"x"}"#), "\"x\"");
    }

    #[test]
    fn results_are_bounded() {
        let glue = "g".repeat(30_000);
        let items = vec!["\"\""; 10_000].join(",");
        let json = format!(r#"{{"glue":"{glue}","items":[{items}]}}"#);
        assert_eq!(search("join(glue, items)", &json), TOO_LARGE);

        // Long texts between few items, and escapes of escapes.
        let quotes = format!("[\"{}\"]", "\\u0001".repeat(1_000));
        assert_eq!(search("to_string(@)", &quotes), TOO_LARGE);
        assert_eq!(search("join(', ', @)", r#"["a","b"]"#), "\"a, b\"");

        let zeros = format!("[{}]", vec!["0"; 30_000].join(","));
        let wide = format!("[*].[{}]", vec!["@"; 40].join(","));
        let literals = format!("([*].['{}']) | [@,@,@,@,@]", "x".repeat(300));
        for expression in [wide, literals] {
            let why = search(&expression, &zeros);
            assert!(why.contains("too much memory"), "{why}");
        }
    }

    #[test]
    fn errors_explain_how_to_quote_a_key() {
        for expression in ["my-key", "1st", "schlüssel", "a.1"] {
            let why = JmesPath::compile(expression).err().unwrap();
            assert!(why.contains("needs quotes"), "{why}");
            assert!(!why.contains("nud"), "{why}");
        }
    }
}
