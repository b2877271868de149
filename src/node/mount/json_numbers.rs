//! Preserves the notation of numbers when parts of a secret's JSON are written to files.
//!
//! After parsing and printing, `12345678901234567890123`, `1.10` or `1e2` would look different: an account
//! number or a PIN would silently become another one.

use std::collections::HashMap;
use std::io;

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, Serializer};

/// Literals by the number that they parse to; `None` if different literals parse to the same number.
#[derive(Default)]
pub(super) struct NumberLiterals(HashMap<NumberKey, Option<String>>);

/// Whether the number is a floating-point number, and its bits as such: `1` and `1.0` differ.
type NumberKey = (bool, u64);

fn key(number: &Value) -> Option<NumberKey> {
    Some((number.is_f64(), number.as_f64()?.to_bits()))
}

impl NumberLiterals {
    /// The literals of a JSON text.
    pub(super) fn of(json: &[u8]) -> Self {
        let mut found = Self::default();
        let (mut at, mut in_string) = (0, false);
        while let Some(byte) = json.get(at) {
            match byte {
                b'\\' if in_string => at += 1, // and the escaped character
                b'"' => in_string = !in_string,
                b'-' | b'0'..=b'9' if !in_string => {
                    let part_of_number = |b: &&u8| b"+-.eE0123456789".contains(b);
                    let length = json[at..].iter().take_while(part_of_number).count();
                    found.add(&json[at..at + length]);
                    at += length;
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
        found
    }

    fn add(&mut self, literal: &[u8]) {
        let Ok(text) = std::str::from_utf8(literal) else {
            return;
        };
        let Ok(number) = serde_json::from_str::<Value>(text) else {
            return;
        };
        let Some(key) = key(&number) else { return };
        let same = (self.0.get(&key)).is_none_or(|known| known.as_deref() == Some(text));
        self.0.insert(key, same.then(|| text.to_owned()));
    }

    /// The value as compact JSON, with its numbers as they are written in the secret.
    ///
    /// # Errors
    /// If the value contains a number that the secret writes in several notations.
    pub(super) fn print(&self, value: &Value) -> Result<Vec<u8>, &'static str> {
        let mut out = Vec::new();
        let mut serializer = Serializer::with_formatter(&mut out, AsWritten(self));
        match value.serialize(&mut serializer) {
            Ok(()) => Ok(out),
            Err(_) => {
                Err("it contains numbers that differ only in notation: write them as strings")
            }
        }
    }
}

struct AsWritten<'a>(&'a NumberLiterals);

impl AsWritten<'_> {
    fn write<W: ?Sized + io::Write>(&self, to: &mut W, number: &Value) -> io::Result<()> {
        match key(number).and_then(|key| self.0.0.get(&key)) {
            None => write!(to, "{number}"),
            Some(Some(literal)) => to.write_all(literal.as_bytes()),
            Some(None) => Err(io::Error::other("ambiguous")),
        }
    }
}

impl Formatter for AsWritten<'_> {
    fn write_u64<W: ?Sized + io::Write>(&mut self, to: &mut W, value: u64) -> io::Result<()> {
        self.write(to, &value.into())
    }

    fn write_i64<W: ?Sized + io::Write>(&mut self, to: &mut W, value: i64) -> io::Result<()> {
        self.write(to, &value.into())
    }

    fn write_f64<W: ?Sized + io::Write>(&mut self, to: &mut W, value: f64) -> io::Result<()> {
        self.write(to, &value.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_and_print(json: &str) -> Result<String, &'static str> {
        let literals = NumberLiterals::of(json.as_bytes());
        let printed = literals.print(&serde_json::from_str(json).unwrap())?;
        Ok(String::from_utf8(printed).unwrap())
    }

    #[test]
    fn numbers_keep_their_notation() {
        for json in [
            "12345678901234567890123",
            "18446744073709551616",
            "1.10",
            "1e2",
            "-0.0",
            "-1E-7",
            "9007199254740993",
            r#"{"a":1.10,"b":[1,2.50,"3.0"],"c":"x\"1e5\\"}"#,
            "[1.50,1.50]",
            "[100,1e2,0,0.0,-0.0]",
        ] {
            assert_eq!(parse_and_print(json).as_deref(), Ok(json));
        }
        assert!(parse_and_print("[1.10,1.1]").is_err());
        assert!(parse_and_print("[100.0,1e2]").is_err());
    }
}
