//! Preserves the notation of exponents when parts of a secret's JSON are written to files.
//!
//! serde_json keeps the digits of a number, but reads `1e5` and `1E5` as `1e+5`.

use std::collections::HashMap;
use std::io;

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, Serializer};

/// Numbers with an exponent as they are written, by serde_json's notation of them.
#[derive(Default)]
pub(super) struct NumberLiterals(HashMap<String, String>);

impl NumberLiterals {
    /// The literals of a JSON text. Of several notations of one number, the first is kept.
    pub(super) fn of(json: &[u8]) -> Self {
        let mut found = HashMap::new();
        let (mut at, mut in_string) = (0, false);
        while let Some(byte) = json.get(at) {
            match byte {
                b'\\' if in_string => at += 1, // and the escaped character
                b'"' => in_string = !in_string,
                b'-' | b'0'..=b'9' if !in_string => {
                    let part_of_number = |b: &&u8| b"+-.eE0123456789".contains(b);
                    let length = json[at..].iter().take_while(part_of_number).count();
                    let literal = str::from_utf8(&json[at..at + length]).unwrap_or_default();
                    if literal.contains(['e', 'E'])
                        && let Ok(number) = literal.parse::<serde_json::Number>()
                    {
                        let known = found.entry(number.to_string());
                        known.or_insert_with(|| literal.to_owned());
                    }
                    at += length;
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
        Self(found)
    }

    /// The value as compact JSON.
    ///
    /// # Errors
    /// None that JSON values cause.
    pub(super) fn print(&self, value: &Value) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        let mut serializer = Serializer::with_formatter(&mut out, AsWritten(self));
        let printed = value.serialize(&mut serializer);
        printed.map_err(|_| "it cannot be written as JSON".to_owned())?;
        Ok(out)
    }
}

struct AsWritten<'a>(&'a NumberLiterals);

impl Formatter for AsWritten<'_> {
    fn write_number_str<W: ?Sized + io::Write>(
        &mut self,
        to: &mut W,
        number: &str,
    ) -> io::Result<()> {
        let literal = self.0.0.get(number).map_or(number, String::as_str);
        to.write_all(literal.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_notation() {
        for json in [
            "12345678901234567890123",
            "18446744073709551616",
            "1.10",
            "1e2",
            "-0.0",
            "-0",
            "-1E-7",
            "1e400",
            "9007199254740993",
            r#"{"a":1.10,"b":[1,2.50,"3.0"],"c":"x\"1e5\\"}"#,
            "[1.50,1.50]",
            "[100,1e2,0,0.0,-0.0]",
            "[1.10,1.1]",
            "[100.0,1e2]",
            r#"{"a":1234567890123456789,"b":1234567890123456788}"#,
        ] {
            let literals = NumberLiterals::of(json.as_bytes());
            let printed = literals.print(&serde_json::from_str(json).unwrap());
            assert_eq!(String::from_utf8(printed.unwrap()).unwrap(), json);
        }
    }
}
