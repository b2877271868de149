//! A client that drops what is not used of an object while the API server's response arrives.
//!
//! Objects of all namespaces are listed and watched, and each may have 1.5 MB. kube collects a page of a list and
//! parses all of it, so that a few hundred such objects would be gigabytes. Here one object at a time is in memory,
//! and what reaches kube is small.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame};
use kube::Client;
use kube::client::Body;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Largest object that is read, in bytes. The API server stores at most 1.5 MiB, here with escapes.
const MAX_OBJECT: usize = 8 * 1024 * 1024;
/// Largest rest of a response, in bytes: all but its objects.
const MAX_REST: usize = 256 * 1024;
/// The capacity that the buffer of objects keeps, in bytes.
const KEPT_CAPACITY: usize = 64 * 1024;

/// Makes the JSON of a smaller object from that of an object.
pub(super) type Trim = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// What responses consist of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// One object.
    Object,
    /// A list, or the events of a watch.
    Objects,
}

/// A client whose successful responses contain trimmed objects.
pub(super) fn trimmed(client: &Client, shape: Shape, trim: Trim) -> Client {
    let inner = client.clone();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let (client, trim) = (inner.clone(), Arc::clone(&trim));
        async move {
            let mut response = client.send(request).await?;
            response.headers_mut().remove(http::header::CONTENT_LENGTH);
            let is_error = !response.status().is_success();
            Ok::<_, kube::Error>(response.map(|body| TrimmedBody {
                body,
                trimmer: (!is_error).then(|| Trimmer::new(shape, trim)),
            }))
        }
    });
    Client::new(service, client.default_namespace())
}

struct TrimmedBody {
    body: Body,
    /// `None` for an error, which passes as it is.
    trimmer: Option<Trimmer>,
}

impl HttpBody for TrimmedBody {
    type Data = Bytes;
    type Error = kube::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        loop {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => frame,
            };
            let Some(trimmer) = &mut self.trimmer else {
                return Poll::Ready(Some(Ok(frame)));
            };
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let mut out = Vec::new();
            if trimmer.feed(&data, &mut out).is_err() {
                let error = std::io::Error::other("an object of the API server is too large");
                return Poll::Ready(Some(Err(kube::Error::Service(error.into()))));
            }
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out.into()))));
            }
        }
    }
}

/// Something in a response is larger than any API server sends.
#[derive(Debug)]
struct TooLarge;

/// Finds the objects in a response: the items of a list, the `object` of each event, or all of it.
struct Trimmer {
    shape: Shape,
    trim: Trim,
    /// The object that is being read.
    object: Option<Vec<u8>>,
    /// Nesting, without that of the object that is being read.
    depth: usize,
    /// Nesting within the object.
    object_depth: usize,
    in_string: bool,
    escaped: bool,
    /// The last string at the top level, or its beginning.
    text: Vec<u8>,
    /// The key of the value at the top level.
    key: Vec<u8>,
    /// Whether the list of items has one already.
    has_items: bool,
    /// Whether the event is an error, whose object is none of the watched kind.
    is_error: bool,
    /// Bytes of the response outside of objects.
    rest: usize,
}

impl Trimmer {
    fn new(shape: Shape, trim: Trim) -> Self {
        Self {
            shape,
            trim,
            object: None,
            depth: 0,
            object_depth: 0,
            in_string: false,
            escaped: false,
            text: Vec::new(),
            key: Vec::new(),
            has_items: false,
            is_error: false,
            rest: 0,
        }
    }

    /// Reads a part of the response, and appends what is left of it to `out`.
    fn feed(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), TooLarge> {
        for &byte in bytes {
            if self.object.is_some() {
                self.within_object(byte, out)?;
            } else {
                self.outside(byte, out)?;
            }
        }
        Ok(())
    }

    fn within_object(&mut self, byte: u8, out: &mut Vec<u8>) -> Result<(), TooLarge> {
        let Some(object) = &mut self.object else {
            return Ok(());
        };
        if object.len() >= MAX_OBJECT {
            return Err(TooLarge);
        }
        object.push(byte);
        if self.in_string {
            self.skip_string(byte);
            return Ok(());
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.object_depth += 1,
            b'}' | b']' => {
                self.object_depth = self.object_depth.saturating_sub(1);
                if self.object_depth == 0 {
                    self.end_object(out);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn skip_string(&mut self, byte: u8) {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'"' => self.in_string = false,
            _ => {}
        }
    }

    fn end_object(&mut self, out: &mut Vec<u8>) {
        let mut object = self.object.take().unwrap_or_default();
        if self.shape == Shape::Objects && self.key == b"items" {
            if self.has_items {
                out.push(b',');
            }
            self.has_items = true;
        }
        match str::from_utf8(&object) {
            _ if self.is_error => out.extend(&object),
            Ok(text) => out.extend((self.trim)(text).bytes()),
            // kube reports what is not UTF-8.
            Err(_) => out.extend(&object),
        }
        object.clear();
        object.shrink_to(KEPT_CAPACITY);
        self.text = Vec::new();
    }

    fn outside(&mut self, byte: u8, out: &mut Vec<u8>) -> Result<(), TooLarge> {
        self.rest += 1;
        if self.rest > MAX_REST {
            return Err(TooLarge);
        }
        if self.in_string {
            out.push(byte);
            if self.depth == 1 && byte != b'"' && self.text.len() < 16 {
                self.text.push(byte);
            }
            self.skip_string(byte);
            if !self.in_string && self.depth == 1 && self.key == b"type" {
                self.is_error = self.text == b"ERROR";
            }
            return Ok(());
        }
        let in_items = self.depth == 2 && self.key == b"items";
        match byte {
            b'{' if self.begins_object(in_items) => {
                self.object = Some(vec![byte]);
                self.object_depth = 1;
                return Ok(());
            }
            b'"' => {
                self.in_string = true;
                self.text.clear();
            }
            b':' if self.depth == 1 => self.key = std::mem::take(&mut self.text),
            // Items are separated where they end.
            b',' if in_items => return Ok(()),
            b',' if self.depth == 1 => self.key.clear(),
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 {
                    self.key.clear();
                    self.is_error = false;
                    self.has_items = false;
                    self.rest = 0;
                }
            }
            _ => {}
        }
        out.push(byte);
        Ok(())
    }

    fn begins_object(&self, in_items: bool) -> bool {
        match self.shape {
            Shape::Object => self.depth == 0,
            Shape::Objects => in_items || (self.depth == 1 && self.key == b"object"),
        }
    }
}

/// The values of some keys of a JSON object, `None` for those that it lacks. All are missing of what is no object.
pub(super) fn pick<'a, const N: usize>(
    json: &'a str,
    keys: [&'static str; N],
) -> [Option<&'a RawValue>; N] {
    struct Keys<const N: usize>([&'static str; N]);

    impl<'de, const N: usize> DeserializeSeed<'de> for Keys<N> {
        type Value = [Option<&'de RawValue>; N];

        fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
            from.deserialize_map(self)
        }
    }

    impl<'de, const N: usize> Visitor<'de> for Keys<N> {
        type Value = [Option<&'de RawValue>; N];

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut found = [None; N];
            while let Some(key) = map.next_key::<Cow<'_, str>>()? {
                match self.0.iter().position(|wanted| *wanted == key) {
                    Some(at) => found[at] = Some(map.next_value()?),
                    None => drop(map.next_value::<IgnoredAny>()?),
                }
            }
            Ok(found)
        }
    }

    let mut from = serde_json::Deserializer::from_str(json);
    let found = Keys(keys).deserialize(&mut from).unwrap_or([None; N]);
    found.map(|value| value.filter(|value| value.get() != "null"))
}

/// Calls `each` with the elements of a JSON array. Does nothing with what is no array.
pub(super) fn for_each<'a>(json: &'a str, each: impl FnMut(&'a RawValue)) {
    struct Elements<F>(F);

    impl<'de, F: FnMut(&'de RawValue)> Visitor<'de> for Elements<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
            while let Some(element) = list.next_element()? {
                (self.0)(element);
            }
            Ok(())
        }
    }

    let mut from = serde_json::Deserializer::from_str(json);
    // What is no array has no elements.
    let _ = from.deserialize_seq(Elements(each));
}

/// The text of a JSON string of at most `max` bytes, escapes included.
pub(super) fn text(json: Option<&RawValue>, max: usize) -> Option<String> {
    let json = json?.get();
    if json.len() > max {
        return None;
    }
    serde_json::from_str(json).ok()
}

/// Writes a JSON object.
#[derive(Default)]
pub(super) struct ObjectWriter(String);

impl ObjectWriter {
    /// Adds a value as it was read, if there is one.
    pub(super) fn raw(self, key: &str, value: Option<&RawValue>) -> Self {
        match value {
            Some(value) => self.json(key, value.get()),
            None => self,
        }
    }

    /// Adds a value that is JSON. Keys are written as they are.
    pub(super) fn json(mut self, key: &str, value: &str) -> Self {
        let comma = if self.0.is_empty() { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(self.0, "{comma}\"{key}\":{value}");
        self
    }

    /// The object.
    pub(super) fn end(self) -> String {
        format!("{{{}}}", self.0)
    }
}

/// Begins an object with its kind and what is used of its metadata. Of labels and annotations, those that are named.
pub(super) fn begin(
    kind: [Option<&RawValue>; 2],
    metadata: Option<&RawValue>,
    label: Option<&'static str>,
    annotation: Option<&'static str>,
) -> ObjectWriter {
    let metadata = metadata.map_or("", RawValue::get);
    let [name, namespace, uid, version, deletion, labels, annotations] = pick(
        metadata,
        [
            "name",
            "namespace",
            "uid",
            "resourceVersion",
            "deletionTimestamp",
            "labels",
            "annotations",
        ],
    );
    let mut kept = ObjectWriter::default()
        .raw("name", name)
        .raw("namespace", namespace)
        .raw("uid", uid)
        .raw("resourceVersion", version)
        .raw("deletionTimestamp", deletion);
    for (field, of, key) in [
        ("labels", labels, label),
        ("annotations", annotations, annotation),
    ] {
        if let (Some(of), Some(key)) = (of, key) {
            let [value] = pick(of.get(), [key]);
            kept = kept.json(field, &ObjectWriter::default().raw(key, value).end());
        }
    }
    ObjectWriter::default()
        .raw("apiVersion", kind[0])
        .raw("kind", kind[1])
        .json("metadata", &kept.end())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name_only() -> Trim {
        Arc::new(|json| {
            let [metadata] = pick(json, ["metadata"]);
            begin([None, None], metadata, None, None).end()
        })
    }

    /// Sends a response in pieces.
    fn through(shape: Shape, json: &str, piece: usize) -> Result<String, TooLarge> {
        let mut trimmer = Trimmer::new(shape, name_only());
        let mut out = Vec::new();
        for piece in json.as_bytes().chunks(piece) {
            trimmer.feed(piece, &mut out)?;
        }
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn objects_are_trimmed_wherever_they_are() {
        let object = r#"{"metadata":{"name":"a\"}{","x":{"items":[{}]}},"spec":{"a":["\\"]}}"#;
        let kept = r#"{"metadata":{"name":"a\"}{"}}"#;
        let rest = r#""metadata":{"resourceVersion":"7","continue":"items"}"#;
        for (shape, json, expected) in [
            (Shape::Object, object.to_owned(), kept.to_owned()),
            (
                Shape::Objects,
                format!(r#"{{"kind":"List",{rest},"items":[{object}, {object}]}}"#),
                format!(r#"{{"kind":"List",{rest},"items":[{kept}, ,{kept}]}}"#)
                    .replace(", ,", " ,"),
            ),
            (
                Shape::Objects,
                format!(r#"{{"items":[],{rest}}}"#),
                format!(r#"{{"items":[],{rest}}}"#),
            ),
            (
                Shape::Objects,
                format!(
                    "{{\"type\":\"ADDED\",\"object\":{object}}}\n{{\"type\":\"ERROR\",\"object\":{{\"code\":410}}}}\n"
                ),
                format!(
                    "{{\"type\":\"ADDED\",\"object\":{kept}}}\n{{\"type\":\"ERROR\",\"object\":{{\"code\":410}}}}\n"
                ),
            ),
        ] {
            for piece in [1, 3, 1_000] {
                assert_eq!(through(shape, &json, piece).unwrap(), expected);
            }
        }
    }

    #[test]
    fn responses_that_no_server_sends_are_not_collected() {
        let endless = format!("{{\"kind\":\"{}", "x".repeat(MAX_REST));
        assert!(through(Shape::Objects, &endless, 4096).is_err());
        let endless = format!("{{\"items\":[{{\"a\":\"{}", "x".repeat(MAX_OBJECT));
        assert!(through(Shape::Objects, &endless, 4096).is_err());
    }

    #[test]
    fn values_of_any_type_are_skipped() {
        for json in [
            "",
            "null",
            "5",
            "[1]",
            "\"x\"",
            "{",
            "{\"a\":",
            "{\"a\":null}",
            "{\"b\":1}",
        ] {
            assert!(pick(json, ["a"])[0].is_none(), "{json}");
        }
        let deep = format!(
            "{{\"b\":{}1{},\"a\":2}}",
            "[".repeat(100_000),
            "]".repeat(100_000)
        );
        assert_eq!(pick(&deep, ["a"])[0].unwrap().get(), "2");
        assert_eq!(
            text(pick("{\"a\":\"x\"}", ["a"])[0], 3).as_deref(),
            Some("x")
        );
        assert_eq!(text(pick("{\"a\":\"xy\"}", ["a"])[0], 3), None);
        assert_eq!(text(pick("{\"a\":1}", ["a"])[0], 3), None);
    }

    proptest! {
        /// However a list is split, its objects are the same, and what is left is JSON.
        #[test]
        fn lists_stay_lists(names in prop::collection::vec("[a-z\"{}\\\\\\[\\],:]{0,8}", 0..5), piece in 1_usize..40) {
            let items: Vec<_> = names
                .iter()
                .map(|name| serde_json::json!({"spec": {"items": [name, {}]}, "metadata": {"name": name}}))
                .collect();
            let list = serde_json::json!({"apiVersion": "v1", "items": items, "metadata": {"continue": "x"}});
            let trimmed = through(Shape::Objects, &list.to_string(), piece).unwrap();
            let trimmed: serde_json::Value = serde_json::from_str(&trimmed).unwrap();
            prop_assert_eq!(&trimmed["metadata"]["continue"], "x");
            let found: Vec<_> = trimmed["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect();
            prop_assert_eq!(found, names);
        }
    }
}
