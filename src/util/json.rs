//! JSON of a service: its errors, which may contain secrets, and its nulls.

use std::fmt;

use serde::de::{self, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;

/// What is wrong and where, without quoting the JSON. `data` is the description of a value of the wrong type.
pub fn describe(error: &serde_json::Error, data: &str) -> String {
    let what = match error.classify() {
        Category::Eof => "truncated JSON",
        Category::Data => data,
        Category::Io | Category::Syntax => "not JSON",
    };
    format!("{what} (line {}, column {})", error.line(), error.column())
}

/// Reads `null` as the type's default, for fields that a service sends as `null` or leaves out.
pub fn null_as_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A value that should be a string: its text, or what it is instead. Reading it never fails on a value of another
/// type, so that the reader can name the field.
#[derive(Debug)]
pub struct MaybeText<T>(pub Result<T, &'static str>);

impl<'de, T: From<String>> Deserialize<'de> for MaybeText<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any<T>(std::marker::PhantomData<T>);

        impl<'de, T: From<String>> Visitor<'de> for Any<T> {
            type Value = MaybeText<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                self.visit_string(text.to_owned())
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Self::Value, E> {
                Ok(MaybeText(Ok(text.into())))
            }

            fn visit_bool<E: de::Error>(self, _: bool) -> Result<Self::Value, E> {
                Ok(MaybeText(Err("true or false")))
            }

            fn visit_i64<E: de::Error>(self, _: i64) -> Result<Self::Value, E> {
                Ok(MaybeText(Err("a number")))
            }

            fn visit_u64<E: de::Error>(self, _: u64) -> Result<Self::Value, E> {
                Ok(MaybeText(Err("a number")))
            }

            fn visit_f64<E: de::Error>(self, _: f64) -> Result<Self::Value, E> {
                Ok(MaybeText(Err("a number")))
            }

            fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
                Ok(MaybeText(Err("null")))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(MaybeText(Err("a list")))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                // With arbitrary precision, serde_json shows a number as a map with one key of its own.
                let mut found = "an object";
                while let Some(key) = map.next_key::<String>()? {
                    if key == "$serde_json::private::Number" {
                        found = "a number";
                    }
                    map.next_value::<IgnoredAny>()?;
                }
                Ok(MaybeText(Err(found)))
            }
        }

        deserializer.deserialize_any(Any(std::marker::PhantomData))
    }
}
