//! Whatever comes in: no panic, and rules that hold for every input.

use dew_provider::provider::paths;
use dew_provider::provider::spec::{Content, MAX_OBJECTS, Spec};
use proptest::prelude::*;

#[path = "../fuzz/bodies.rs"]
mod bodies;

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any text is either refused with reasons, or a list whose files can live in one volume.
    #[test]
    fn any_text_is_a_checked_list_or_problems(text in "(- \\{?(objectName|objectType|objectVersion|stage|objectAlias|jmesPath|allKeys|optional|encoding|filePermission|x): ?[ a-z0-9/.\"'\\[\\]{},:&*!|-]{0,30}\\}?\n?){0,6}") {
        match Spec::parse(&text) {
            Ok(spec) => {
                prop_assert!(!spec.objects.is_empty() && spec.objects.len() <= MAX_OBJECTS);
                let mut files = Vec::new();
                for object in &spec.objects {
                    if let Content::Whole { path, extracts } = &object.content {
                        files.push(path.clone());
                        files.extend(extracts.iter().map(|e| e.path.clone()));
                    }
                }
                for file in &files {
                    prop_assert!(paths::check(file).is_ok());
                }
                prop_assert!(paths::clashes(files.iter().map(String::as_str)).is_empty());
            }
            Err(problems) => {
                prop_assert!(!problems.is_empty());
                prop_assert!(problems.iter().all(|p| !p.reason.is_empty()));
            }
        }
    }

    /// Good lists are taken as they are meant.
    #[test]
    fn good_lists_are_taken(names in prop::collection::btree_set("[a-zA-Z0-9_-]{1,64}", 1..20)) {
        let text: String = names
            .iter()
            .map(|name| format!("- {{objectName: \"{name}\", objectType: csms, objectVersion: v3, objectAlias: \"d/{name}\"}}\n"))
            .collect();
        let spec = Spec::parse(&text).map_err(|p| TestCaseError::fail(format!("{p:?}")))?;
        prop_assert!(spec.objects.iter().map(|o| &o.name).eq(&names));
    }

    /// A path that is taken is what the driver's rules take (written anew here, by its source).
    #[test]
    fn paths_are_the_drivers(path in "[./a\\\\\0é -]{0,20}|\\.{0,3}[a-z]{250,260}") {
        let clean = path.split('/').all(|c| !matches!(c, "" | "." | ".."));
        let driver_takes = !path.is_empty()
            && path.len() <= 4096
            && clean
            && path.split('/').all(|c| c.len() <= 255)
            && !path.starts_with("..");
        if paths::check(&path).is_ok() {
            prop_assert!(driver_takes);
        } else {
            prop_assert!(!driver_takes || path.contains(['\\', '\0']));
        }
    }

    /// Clashes are found whatever the order.
    #[test]
    fn clashes_are_found(files in prop::collection::vec("[ab]{1,2}(/[ab]){0,2}", 0..6)) {
        let clash = (0..files.len()).any(|i| (0..i).any(|j| {
            let (a, b) = (&files[i], &files[j]);
            a == b || a.starts_with(&format!("{b}/")) || b.starts_with(&format!("{a}/"))
        }));
        prop_assert_eq!(!paths::clashes(files.iter().map(String::as_str)).is_empty(), clash);
    }

    /// Bytes that are no HTTP/2 of an old driver come through the adapter as they are, in any
    /// pieces; no bytes make it panic or change their number.
    #[test]
    fn the_adapter_keeps_the_number_of_bytes(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        preface in any::<bool>(),
        piece in 1_usize..50,
    ) {
        let mut sent = if preface { b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec() } else { Vec::new() };
        sent.extend(&bytes);
        let received = bodies::through(&sent, piece);
        prop_assert_eq!(received.len(), sent.len());
        if !preface {
            prop_assert_eq!(received, sent);
        }
    }

    /// The fuzzers' bodies, on what a generator of bytes comes up with.
    #[test]
    fn fuzz_bodies_never_panic(data in prop::collection::vec(any::<u8>(), 0..400), text in ".{0,200}") {
        for data in [data.as_slice(), text.as_bytes()] {
            bodies::objects(data);
            bodies::request(data);
            bodies::connection(data);
        }
    }
}
