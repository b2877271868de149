//! YAML of any shape, each value with its line.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

/// A value and its line in the document, from 1.
#[derive(Clone, Debug, Default)]
pub(super) struct Node {
    pub(super) line: u64,
    pub(super) value: NodeValue,
}

#[derive(Clone, Debug, Default)]
pub(super) enum NodeValue {
    #[default]
    Nothing,
    Text(String),
    /// A number or boolean.
    Scalar(String),
    List(Vec<Node>),
    Fields(Vec<Field>),
}

/// A field of an object, with the line of its name.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) line: u64,
    pub(super) node: Node,
}

impl Node {
    /// The field at the end of a path of names.
    pub(super) fn field(&self, path: &[&str]) -> Option<&Field> {
        let (last, above) = path.split_last()?;
        let parent = above.iter().try_fold(self, |node, name| node.get(name))?;
        parent.fields().iter().find(|field| field.name == *last)
    }

    /// The value of a field.
    pub(super) fn get(&self, name: &str) -> Option<&Node> {
        let field = self.fields().iter().find(|field| field.name == name)?;
        Some(&field.node)
    }

    /// The value at the end of a path of names.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, name| node.get(name))
    }

    /// The text of a field; of a number or boolean, as YAML reads it.
    pub(super) fn text(&self, path: &[&str]) -> &str {
        match self.at(path).map(|node| &node.value) {
            Some(NodeValue::Text(text) | NodeValue::Scalar(text)) => text,
            _ => "",
        }
    }

    pub(super) fn fields(&self) -> &[Field] {
        match &self.value {
            NodeValue::Fields(fields) => fields,
            _ => &[],
        }
    }

    pub(super) fn items(&self) -> &[Node] {
        match &self.value {
            NodeValue::List(items) => items,
            _ => &[],
        }
    }

    pub(super) fn is_nothing(&self) -> bool {
        matches!(self.value, NodeValue::Nothing)
    }
}

impl From<Spanned<NodeValue>> for Node {
    fn from(spanned: Spanned<NodeValue>) -> Self {
        Self {
            line: spanned.referenced.line(),
            value: spanned.value,
        }
    }
}

impl<'de> Deserialize<'de> for NodeValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = NodeValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("YAML")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<NodeValue, E> {
                Ok(NodeValue::Text(text.to_owned()))
            }

            fn visit_bool<E: Error>(self, value: bool) -> Result<NodeValue, E> {
                Ok(NodeValue::Scalar(value.to_string()))
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<NodeValue, E> {
                Ok(NodeValue::Scalar(value.to_string()))
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<NodeValue, E> {
                Ok(NodeValue::Scalar(value.to_string()))
            }

            fn visit_i128<E: Error>(self, value: i128) -> Result<NodeValue, E> {
                Ok(NodeValue::Scalar(value.to_string()))
            }

            fn visit_u128<E: Error>(self, value: u128) -> Result<NodeValue, E> {
                Ok(NodeValue::Scalar(value.to_string()))
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<NodeValue, E> {
                Ok(NodeValue::Scalar(value.to_string()))
            }

            fn visit_bytes<E: Error>(self, _: &[u8]) -> Result<NodeValue, E> {
                Ok(NodeValue::Nothing)
            }

            fn visit_unit<E: Error>(self) -> Result<NodeValue, E> {
                Ok(NodeValue::Nothing)
            }

            fn visit_none<E: Error>(self) -> Result<NodeValue, E> {
                Ok(NodeValue::Nothing)
            }

            fn visit_some<D: Deserializer<'de>>(self, value: D) -> Result<NodeValue, D::Error> {
                NodeValue::deserialize(value)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<NodeValue, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element::<Spanned<NodeValue>>()? {
                    items.push(Node::from(item));
                }
                Ok(NodeValue::List(items))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<NodeValue, A::Error> {
                let mut fields = Vec::new();
                while let Some(key) = map.next_key::<Spanned<NodeValue>>()? {
                    let node = Node::from(map.next_value::<Spanned<NodeValue>>()?);
                    let line = key.referenced.line();
                    if let NodeValue::Text(name) | NodeValue::Scalar(name) = key.value {
                        fields.push(Field { name, line, node });
                    }
                }
                Ok(NodeValue::Fields(fields))
            }
        }

        deserializer.deserialize_any(Any)
    }
}
