//! Properties that hold for every input of the parsers, which must never panic.

use dew_provider::class::file_names;
use dew_provider::class::objects::{Content, MAX_OBJECTS, Objects};
use dew_provider::policy::{Glob, GlobKind, Place, Policy};
use proptest::prelude::*;

#[path = "../fuzz/answers.rs"]
pub(super) mod answers;
#[path = "../fuzz/bodies.rs"]
mod bodies;

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any text is either rejected with reasons, or a list whose files fit into one volume.
    #[test]
    fn any_text_yields_a_valid_list_or_problems(text in "(- \\{?(objectName|objectType|objectVersion|stage|objectAlias|jmesPath|allKeys|optional|encoding|filePermission|x): ?[ a-z0-9/.\"'\\[\\]{},:&*!|-]{0,30}\\}?\n?){0,6}") {
        match Objects::parse(&text) {
            Ok(objects) => {
                prop_assert!(!objects.list.is_empty() && objects.list.len() <= MAX_OBJECTS);
                let mut files = Vec::new();
                for object in &objects.list {
                    if let Content::Whole { path, extracts } = &object.content {
                        files.push(path.clone());
                        files.extend(extracts.iter().map(|e| e.path.clone()));
                    }
                }
                for file in &files {
                    prop_assert!(file_names::check(file).is_ok());
                }
                prop_assert!(file_names::clashes(files.iter().map(String::as_str)).is_empty());
            }
            Err(problems) => {
                prop_assert!(!problems.is_empty());
                prop_assert!(problems.iter().all(|p| !p.reason.is_empty()));
            }
        }
    }

    #[test]
    fn valid_lists_are_accepted(names in prop::collection::btree_set("[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,63}", 1..20)) {
        let text: String = names
            .iter()
            .map(|name| format!("- {{objectName: \"{name}\", objectType: csms, objectVersion: v3, objectAlias: \"d/{name}\"}}\n"))
            .collect();
        let objects = Objects::parse(&text).map_err(|p| TestCaseError::fail(format!("{p:?}")))?;
        prop_assert!(objects.list.iter().map(|o| &o.name).eq(&names));
    }

    /// A path is accepted only if the driver accepts it. The driver's rules are reimplemented here from
    /// its source.
    #[test]
    fn accepted_paths_follow_the_drivers_rules(path in "[./a\\\\\0é -]{0,20}|\\.{0,3}[a-z]{250,260}") {
        let clean = path.split('/').all(|c| !matches!(c, "" | "." | ".."));
        let driver_accepts = !path.is_empty()
            && path.len() <= 4096
            && clean
            && path.split('/').all(|c| c.len() <= 255)
            && !path.starts_with("..");
        if file_names::check(&path).is_ok() {
            prop_assert!(driver_accepts);
        } else {
            prop_assert!(!driver_accepts || path.contains(['\\', '\0']));
        }
    }

    #[test]
    fn clashes_are_found_in_any_order(files in prop::collection::vec("[ab]{1,2}(/[ab]){0,2}", 0..6)) {
        let clash = (0..files.len()).any(|i| (0..i).any(|j| {
            let (a, b) = (&files[i], &files[j]);
            a == b || a.starts_with(&format!("{b}/")) || b.starts_with(&format!("{a}/"))
        }));
        prop_assert_eq!(!file_names::clashes(files.iter().map(String::as_str)).is_empty(), clash);
    }

    /// Without an HTTP/2 preface, all bytes pass through the adapter unchanged, in pieces of any size.
    /// No bytes make it panic or change their number.
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

    /// Globs match as a matcher that tries everything does.
    #[test]
    fn globs_match_whole_names(pattern in "[ab*?.]{1,8}", name in "[ab.]{0,8}") {
        fn matches(pattern: &[u8], name: &[u8]) -> bool {
            match (pattern.split_first(), name.split_first()) {
                (None, None) => true,
                (Some((b'*', rest)), _) if matches(rest, name) => true,
                (Some((b'*', _)), Some((_, name))) => matches(pattern, name),
                (Some((wanted, rest)), Some((byte, name))) => {
                    (*wanted == b'?' || wanted == byte) && matches(rest, name)
                }
                _ => false,
            }
        }
        let glob = Glob::new(GlobKind::Secret, &pattern).map_err(TestCaseError::fail)?;
        prop_assert_eq!(glob.matches(&name), matches(pattern.as_bytes(), name.as_bytes()));
    }

    /// A policy allows what one of its rules allows, and nothing else.
    #[test]
    fn a_policy_allows_what_one_rule_allows(
        rules in prop::collection::vec([any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>()], 0..4),
        request in [0_usize..3, 0..3, 0..3, 0..4],
    ) {
        const NAMES: [&str; 3] = ["a", "b", "c"];
        // Each byte is the set of names in a list; an empty set is no list, where a rule may have none.
        let listed = |set: u8| {
            let names = NAMES.iter().enumerate();
            let names = names.filter(|(at, _)| set & (1 << at) != 0).map(|(_, name)| *name);
            names.collect::<Vec<_>>().join(", ")
        };
        let mut text = "version: 1\nrules:".to_owned();
        if rules.is_empty() {
            text.push_str(" []");
        }
        for [namespaces, secrets, regions, projects] in &rules {
            text += &format!("\n- namespaces: [{}]\n  secrets: [{}]", listed(namespaces | 1), listed(secrets | 1));
            for (field, set) in [("regions", regions), ("projects", projects)] {
                if set & 7 != 0 {
                    text += &format!("\n  {field}: [{}]", listed(*set));
                }
            }
        }
        let policy = Policy::parse(&text).map_err(|p| TestCaseError::fail(format!("{text}: {p:?}")))?;
        let [namespace, secret, region, project] = request;
        let expected = rules.iter().any(|[namespaces, secrets, regions, projects]| {
            let has = |set: &u8, at: usize| set & (1 << at) != 0;
            has(&(namespaces | 1), namespace)
                && has(&(secrets | 1), secret)
                && (regions & 7 == 0 || has(regions, region))
                // The fourth is no project.
                && (projects & 7 == 0 || project < 3 && has(projects, project))
        });
        let place = Place::new(NAMES[region], NAMES.get(project).copied());
        prop_assert_eq!(policy.allows(NAMES[namespace], place, NAMES[secret]), expected, "{}", text);
    }

    /// Any text is either rejected with reasons, or a policy.
    #[test]
    fn any_text_yields_a_policy_or_problems(text in "(version: 1\n|rules:\n|- ?|  )?((namespaces|secrets|regions|projects|kmsKeys|x): ?[ a-zA-Z*?.\"'\\[\\]{},:&!|-]{0,30}\n?){0,6}") {
        bodies::policy(text.as_bytes());
    }

    /// Runs the fuzz targets on generated bytes.
    #[test]
    fn fuzz_bodies_never_panic(data in prop::collection::vec(any::<u8>(), 0..400), text in ".{0,200}") {
        for data in [data.as_slice(), text.as_bytes()] {
            bodies::objects(data);
            bodies::policy(data);
            bodies::message(data);
            bodies::request(data);
            bodies::connection(data);
        }
    }
}
