//! What the tests say they prove.

use std::collections::BTreeMap;

use crate::source::files;

const FOLDER: &str = "tests/conformance";

/// The tests that prove a statement, by its id. A test is named as cargo names it: `file::name`.
pub type Claims = BTreeMap<String, Vec<String>>;

/// Every claim in the sources.
pub fn claims() -> Claims {
    let mut claims = Claims::new();
    for source in files(&[FOLDER], ".rs") {
        let path = source.path.trim_start_matches(FOLDER).trim_start_matches('/');
        let module = path.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::");
        for (test, ids) in claims_in(&source.text) {
            for id in ids {
                let tests = claims.entry(id).or_default();
                let name = format!("{module}::{test}");
                assert!(!tests.contains(&name), "{name} names a statement twice");
                tests.push(name);
            }
        }
    }
    claims
}

#[test]
fn claims_are_found_in_tests_only() {
    let text = "macro_rules! proves {\n}\n#[test]\nfn one() {\n    proves!(\"a\", \"b\");\n}\n// proves!(\"c\");\n\
                #[test]\nfn two() {\n    proves!(\n        \"d\"\n    );\n}\n";
    assert_eq!(
        claims_in(text),
        [("one".to_owned(), vec!["a".to_owned(), "b".to_owned()]), ("two".to_owned(), vec!["d".to_owned()])]
    );
    for helper in ["fn x() {\n proves!(\"a\");\n}", "#[test]\n#[ignore]\nfn x() {\n proves!(\"a\");\n}"] {
        assert!(std::panic::catch_unwind(|| claims_in(helper)).is_err(), "{helper}");
    }
}

/// The tests of a file that claim something, with what they claim.
fn claims_in(text: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    let (mut attributes, mut function) = (Vec::new(), None);
    let mut lines = text.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if line.starts_with("#[") {
            attributes.push(line);
        } else if let Some(name) = line.strip_prefix("fn ") {
            let runs = attributes.contains(&"#[test]") && !attributes.iter().any(|a| a.contains("ignore"));
            function = name.split(['(', '<']).next().filter(|_| runs);
            attributes.clear();
        } else if line.starts_with("proves!(") {
            let test = function.unwrap_or_else(|| panic!("not in a test that runs: {line}"));
            let mut claim = line.to_owned();
            while !claim.ends_with(");") {
                claim.push_str(lines.next().unwrap());
            }
            found.push((test.to_owned(), claim.split('"').skip(1).step_by(2).map(str::to_owned).collect()));
        }
    }
    found
}
