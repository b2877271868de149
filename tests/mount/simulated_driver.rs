//! Runs the cases of `cases.rs` on the simulated driver.

use super::cases::{CASES, Expect::*, Value::*};
use crate::support::test_node::{TestNode, files};

#[tokio::test]
async fn every_case_gives_a_pod_the_expected_files_or_error() {
    let node = TestNode::new().await;
    for case in CASES {
        for (name, versions) in case.secrets {
            for (index, value) in versions.iter().enumerate() {
                match (index, value) {
                    (0, Text(text)) => node.create(name, *text).await,
                    (0, Binary(bytes)) => node.create(name, *bytes).await,
                    (_, Text(text)) => drop(node.put(name, *text, &[]).await),
                    (_, Binary(bytes)) => drop(node.put(name, *bytes, &[]).await),
                }
            }
        }
        node.apply_for(case.name, case.objects, case.allowed).await;
        let pod = node.pod(case.name, case.name);
        let result = node.publish(&pod).await;
        match (case.expect, result) {
            (Files(expected), Ok(())) => {
                let expected: Vec<_> = expected
                    .iter()
                    .map(|(p, m, c)| ((*p).to_owned(), *m, c.to_vec()))
                    .collect();
                assert_eq!(files(&pod.target_path), expected, "{}", case.name);
                let status = node.driver.status(&pod.target_path).unwrap();
                let recorded: Vec<_> = status.objects.keys().cloned().collect();
                let paths: Vec<_> = expected.into_iter().map(|(path, ..)| path).collect();
                assert_eq!(recorded, paths, "{}", case.name);
            }
            (Fails(code, texts), Err(status)) => {
                assert_eq!(status.code(), code, "{}: {status}", case.name);
                for text in texts {
                    assert!(
                        status.message().contains(text),
                        "{}: {text}: {status}",
                        case.name
                    );
                }
                assert!(
                    !status.message().contains("CANARY"),
                    "{}: {status}",
                    case.name
                );
                assert!(
                    !pod.target_path.exists(),
                    "{}: a failed mount leaves no files",
                    case.name
                );
            }
            (_, result) => panic!("{}: {result:?}", case.name),
        }
    }
}
