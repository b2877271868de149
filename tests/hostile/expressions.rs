//! Random JMESPath on random JSON: the same results as jpx-core's own evaluation, within a budget.
//!
//! `DEW_CASES=100000 cargo test hostile::expressions` tries more.

use dew_provider::class::jmespath::{EvaluationSteps, JmesPath, MAX_JMESPATH_BYTES};
use fastrand::Rng;
use serde_json::{Map, Value, json};

use super::cases;

const KEYS: [&str; 4] = ["a", "b", "c", "\"d.e\""];

/// JSON of any shape, at most `depth` deep.
pub(super) fn random_json(rng: &mut Rng, depth: usize) -> Value {
    match rng.u8(..if depth == 0 { 6 } else { 10 }) {
        0 => Value::Null,
        1 => json!(rng.bool()),
        2 => json!(rng.i8(..)),
        3 => json!(rng.f32()),
        4..=5 => {
            let length = rng.usize(..6);
            let letter = |_| {
                rng.choice(['a', 'b', 'é', '"', '\\', '\n', '\u{1f600}', '<'])
                    .unwrap()
            };
            json!((0..length).map(letter).collect::<String>())
        }
        6..=7 => (0..rng.usize(..5))
            .map(|_| random_json(rng, depth - 1))
            .collect(),
        _ => {
            let mut object = Map::new();
            for key in ["a", "b", "c", "d.e"] {
                if rng.bool() {
                    object.insert(key.to_owned(), random_json(rng, depth - 1));
                }
            }
            Value::Object(object)
        }
    }
}

/// An expression without functions that compute: those are exact here, and are not in jpx-core.
fn random_expression(rng: &mut Rng, depth: usize) -> String {
    if depth == 0 {
        return match rng.u8(..8) {
            0..=3 => rng.choice(KEYS).unwrap().to_owned(),
            4 => "@".into(),
            5 => format!("'{}'", rng.choice(["", "a", "x"]).unwrap()),
            6 => format!(
                "`{}`",
                rng.choice(["1", "null", "[1, 2]", "\"a\"", "{\"a\": 1}"])
                    .unwrap()
            ),
            _ => format!("[{}]", rng.i8(-3..4)),
        };
    }
    let part = |rng: &mut Rng| random_expression(rng, depth - 1);
    let (x, y) = (part(rng), part(rng));
    match rng.u8(..22) {
        0 => format!("{x}.{}", rng.choice(KEYS).unwrap()),
        1 => format!("{x} | {y}"),
        2 => format!("({x}) || ({y})"),
        3 => format!("({x}) && ({y})"),
        4 => format!("!({x})"),
        5 => format!(
            "({x}) {} ({y})",
            rng.choice(["==", "!=", "<", "<=", ">", ">="]).unwrap()
        ),
        6 => format!("[{x}, {y}]"),
        7 => format!("{{p: {x}, q: {y}}}"),
        8 => format!("({x})[*].{}", rng.choice(KEYS).unwrap()),
        9 => format!("({x})[]"),
        10 => format!("({x}).*"),
        11 => format!("({x})[?{y}]"),
        12 => {
            let mut end = || {
                if rng.bool() {
                    rng.i8(-9..9).to_string()
                } else {
                    String::new()
                }
            };
            let (start, stop) = (end(), end());
            format!(
                "({x})[{start}:{stop}:{}]",
                rng.choice(["1", "2", "-1", "-2", "9"]).unwrap()
            )
        }
        13 => format!("map(&{y}, {x})"),
        14 => format!(
            "{}({x}, &{y})",
            rng.choice(["sort_by", "max_by", "min_by"]).unwrap()
        ),
        15 => format!(
            "{}({x})",
            rng.choice(["keys", "values", "length", "reverse", "sort"])
                .unwrap()
        ),
        16 => format!(
            "{}({x})",
            rng.choice(["type", "to_string", "to_array", "to_number"])
                .unwrap()
        ),
        17 => format!("contains({x}, {y})"),
        18 => format!(
            "{}({x}, {y})",
            rng.choice(["starts_with", "ends_with", "join"]).unwrap()
        ),
        19 => format!("merge({x}, {y})"),
        20 => format!("not_null({x}, {y})"),
        _ => format!("({x})[*].[{y}]"),
    }
}

#[test]
fn the_results_are_those_of_jpx_core() {
    let mut rng = Rng::with_seed(5);
    let mut runtime = jpx_core::Runtime::new();
    runtime.register_builtin_functions();
    let (mut same, mut failed) = (0, 0);
    for _ in 0..cases(20_000) {
        let depth = rng.usize(1..4);
        let text = random_expression(&mut rng, depth);
        let json = random_json(&mut rng, 3);
        let Ok(path) = JmesPath::compile(&text) else {
            continue;
        };
        let ours = path.search(&json, &mut EvaluationSteps::default());
        let theirs = runtime.compile(&text).unwrap().search(&json);
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => {
                assert_eq!(ours, theirs, "{text} of {json}");
                same += 1;
            }
            (Err(_), Err(_)) => failed += 1,
            // Results of functions are limited, which matters for texts of many escapes.
            (Err("the result of a function is too large"), Ok(_)) => {}
            (ours, theirs) => panic!("{text} of {json}: {ours:?}, but {theirs:?}"),
        }
    }
    assert!(same > failed && failed > 0, "{same} and {failed}");
}

/// As many parts as an expression may have.
fn repeated(part: &str, between: &str, room: usize) -> String {
    let count = room / (part.len() + between.len());
    vec![part; count].join(between)
}

/// Expressions whose cost is in the number of elements, on the secret with the most of them.
#[test]
fn what_an_expression_costs_is_bounded() {
    let ones = json!(vec![1; 32_000]);
    let lists = json!(vec![Value::Array(Vec::new()); 21_000]);
    let names: Vec<_> = (0..8_000).map(|i| json!({"a": i})).collect();
    let long = "a.".repeat(150) + "a";
    for (text, json) in [
        (format!("[*].map(&{long}, [@,@])"), &lists),
        (format!("[*].[{}]", ["@"; 60].join(",")), &ones),
        (format!("[*].[{}]", ["!@"; 60].join(",")), &ones),
        (format!("[?{}]", ["@ == `2`"; 40].join(" || ")), &ones),
        (format!("[*].['{}']", "x".repeat(400)), &ones),
        (format!("[?contains('{}', 'y')]", "x".repeat(400)), &ones),
        (repeated("sort(@)", " | ", 500), &ones),
        (repeated("reverse(@)", " | ", 500), &ones),
        (repeated("[]", " | ", 500), &ones),
        (repeated("[:]", " | ", 500), &ones),
        (repeated("[::-1]", " | ", 500), &ones),
        (format!("[{}]", repeated("length(@)", ",", 500)), &ones),
        (["sort_by(@, &a)"; 30].join(" | "), &json!(names)),
        (
            format!("max_by(@, &[{}][0])", ["a"; 50].join(",")),
            &json!(names),
        ),
    ] {
        assert!(text.len() <= MAX_JMESPATH_BYTES, "{text}");
        let Ok(path) = JmesPath::compile(&text) else {
            continue;
        };
        let mut steps = EvaluationSteps::default();
        let result = path.search(json, &mut steps);
        assert!(
            matches!(&result, Err(why) if why.contains("too many steps")),
            "{text}: {:.100}",
            format!("{result:?}")
        );
    }
    // What each may cost is what all of a volume may cost, a few times over.
    let path = JmesPath::compile(&format!("[?{}]", ["@ == `2`"; 40].join(" || "))).unwrap();
    let mut steps = EvaluationSteps::default();
    let evaluations = std::iter::repeat_with(|| path.search(&ones, &mut steps));
    let used_up = evaluations.take(20).last().unwrap();
    assert!(
        matches!(used_up, Err(why) if why.contains("of this volume")),
        "{used_up:?}"
    );
    let simple = JmesPath::compile("[0]").unwrap();
    assert!(
        simple
            .search(&ones, &mut EvaluationSteps::default())
            .is_ok()
    );
}

/// An index or step at the end of its range.
#[test]
fn extreme_numbers_are_harmless() {
    for text in [
        "[1::2147483647]",
        "[::2147483647]",
        "[::-2147483648]",
        "[-2147483648:2147483647]",
        "[2147483647:-2147483648:-1]",
        "[-2147483648]",
        "[2147483647]",
    ] {
        let Ok(path) = JmesPath::compile(text) else {
            continue;
        };
        for json in [
            json!([]),
            json!([1]),
            json!([1, 2, 3]),
            json!({}),
            json!(null),
        ] {
            let _ = path.search(&json, &mut EvaluationSteps::default());
        }
    }
}
