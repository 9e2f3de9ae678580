//! Rules of form that a reader would otherwise have to watch over.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod source;

use source::{code, file, files, tokens};

const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 800;

/// Folders with Rust in them.
const RUST: [&str; 6] = ["src", "tests", "benches", "fuzz/src", "fuzz/bin", "fuzz/examples"];

/// Pages that people read.
const DOCS: [&str; 3] = ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"];

#[test]
fn functions_and_files_are_short() {
    let mut wrong = Vec::new();
    for source in files(&["src"], ".rs") {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{} has {lines} lines, {FILE_LINES_MAX} at most", source.path));
        }
        for (name, lines) in functions(&code(&source.text)) {
            if lines > FUNCTION_LINES_MAX {
                wrong
                    .push(format!("{}: {name} has {lines} lines, {FUNCTION_LINES_MAX} at most", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn nothing_is_left_for_later() {
    let mut wrong = Vec::new();
    for source in files(&RUST, ".rs") {
        let code = code(&source.text);
        let tokens = tokens(&code);
        for pair in tokens.windows(2) {
            if let [name @ ("todo" | "unimplemented" | "dbg"), "!"] = pair {
                wrong.push(format!("{}: {name}!", source.path));
            }
        }
        let marks = ["TODO", "FIXME", "XXX"];
        let marked = source.text.lines().filter(|line| {
            line.split_once("//").is_some_and(|(_, comment)| marks.iter().any(|mark| comment.contains(mark)))
        });
        wrong.extend(marked.map(|line| format!("{}: {}", source.path, line.trim())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn whoever_silences_a_lint_says_why() {
    let mut wrong = Vec::new();
    for source in files(&["src"], ".rs") {
        let code = code(&source.text);
        for (at, _) in code.match_indices("allow(") {
            let attribute = code[at..].split(']').next().unwrap_or_default();
            if code[..at].ends_with(['[', ' ', ',']) && !attribute.contains("reason") {
                wrong.push(format!("{}: #[{attribute}]", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_says_what_it_is() {
    let silent: Vec<_> = files(&RUST, ".rs")
        .into_iter()
        .filter(|source| !source.text.starts_with("//!"))
        .map(|source| source.path)
        .collect();
    assert!(silent.is_empty(), "a file begins with what it is for: {}", silent.join(", "));
}

#[test]
fn docs_name_no_machine() {
    let mut pages = files(&["docs", "config"], "");
    pages.extend(DOCS.map(file));
    pages.extend(files(&["src", "tests"], ".rs"));
    let mut wrong = Vec::new();
    for page in &pages {
        // In two pieces, so that this file passes its own test.
        for machine in
            [concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/wo", "rk/"), concat!("/Use", "rs/")]
        {
            if page.text.contains(machine) {
                wrong.push(format!("{} names {machine}", page.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut pages = files(&["docs"], ".md");
    pages.extend(DOCS.map(file));
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    for page in &pages {
        let folder = root.join(&page.path).parent().unwrap().to_owned();
        for link in page.text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            if !path.is_empty() && !link.contains("://") && !folder.join(path).exists() {
                wrong.push(format!("{} links to {link}", page.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_metric_of_the_bridge_is_documented() {
    let page = file("docs/operations.md").text;
    let source = file("src/bridge/metrics.rs").text;
    let quoted = source.split('"').filter(|text| text.starts_with("causeway_bridge_"));
    let missing: Vec<_> = quoted.filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "not in docs/operations.md: {}", missing.join(", "));
}

/// ARCHITECTURE.md says which tests show each of the rules that keep the promise.
#[test]
fn every_rule_has_its_tests() {
    let page = file("ARCHITECTURE.md").text;
    let (_, rules) = page.split_once("## Rules that keep the promise").unwrap();
    let rows: Vec<Vec<_>> = rules
        .lines()
        .take_while(|line| !line.starts_with("## "))
        .map(|line| line.split('|').map(str::trim).collect())
        .filter(|row: &Vec<_>| row.get(1).is_some_and(|number| number.parse::<u8>().is_ok()))
        .collect();
    let numbers = rows.iter().map(|row| row[1].parse().unwrap());
    assert_eq!(numbers.collect::<Vec<u8>>(), (1..=22).collect::<Vec<_>>());
    let tests: String = files(&["src", "tests"], ".rs").iter().map(|source| code(&source.text)).collect();
    for row in rows {
        let names: Vec<_> = row[3].split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "rule {} has no test", row[1]);
        for name in names {
            let is_there = tests.split("test]").skip(1).any(|after| {
                let signature = after.trim_start().strip_prefix("async ").unwrap_or(after.trim_start());
                signature.starts_with(&format!("fn {name}()"))
            });
            assert!(is_there, "rule {} names {name}, and there is no such test", row[1]);
        }
    }
}

#[test]
fn functions_are_measured() {
    let text = "fn one() {}\nimpl X {\n fn two(f: fn(u8) -> u8)\n where\n  Y: Z,\n {\n  if a {\n  }\n }\n fn none();\n}\n";
    assert_eq!(functions(text), [("one".to_owned(), 1), ("two".to_owned(), 7)]);
}

/// The functions of some code, with the lines they have from `fn` to the last brace.
fn functions(code: &str) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let begins = at == 0 || !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let name: String = code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if let Some(lines) = body_end(&code[at..]).filter(|_| begins && !name.is_empty()) {
            found.push((name, code[at..at + lines].lines().count()));
        }
    }
    found
}

/// Where the body ends that the function beginning here has; nothing when it is only declared.
fn body_end(code: &str) -> Option<usize> {
    let (mut braces, mut parens) = (0_usize, 0_usize);
    for (at, sign) in code.char_indices() {
        match sign {
            '(' | '[' => parens += 1,
            ')' | ']' => parens = parens.saturating_sub(1),
            ';' if braces == 0 && parens == 0 => return None,
            '{' => braces += 1,
            '}' => {
                braces = braces.checked_sub(1)?;
                if braces == 0 && parens == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}
