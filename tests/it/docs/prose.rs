//! Words that read like a translation and must not come back, in the documentation, the source and the scripts.

use std::fs;

use crate::tidy::{files, relative, root};

/// Each stands for a pattern that docs/STYLE.md explains.
const FOREIGN: [&str; 25] = [
    "anew",
    "for ever",
    "shall",
    "whoever",
    "mend",
    "mends",
    "mended",
    "mender",
    "doubled",
    "let in",
    "lets in",
    "greeted",
    "greets",
    "stands in",
    "stands there",
    "apart from each other",
    "as it comes",
    "told",
    "tells of",
    "of its own accord",
    "besides",
    "nobody",
    "kicker",
    "plugs",
    "shielded",
];

/// True if `word` occurs in `line` in lower case, with nothing of a longer word around it.
fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let is_part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !is_part(line[..at].chars().next_back()) && !is_part(line[at + word.len()..].chars().next())
    })
}

fn foreign_words(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let lower = line.to_lowercase();
        let words = FOREIGN.iter().filter(|word| has_word(&lower, word));
        found.extend(words.map(|word| format!("{}: `{word}` in: {}", index + 1, line.trim())));
    }
    found
}

#[test]
fn no_sentence_reads_like_a_translation() {
    let root = root();
    let mut paths = vec![root.join("README.md"), root.join("CHANGELOG.md")];
    for (dir, extension) in [("docs", "md"), ("src", "rs"), ("scripts", "sh")] {
        paths.extend(files(&root.join(dir), &[extension]));
    }
    assert!(paths.len() > 100, "found only {paths:?}");
    let mut found = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).expect("text");
        found.extend(foreign_words(&text).into_iter().map(|word| format!("{}:{word}", relative(&path))));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_foreign_word_is_found_and_a_part_of_another_is_not() {
    assert_eq!(foreign_words("It is built Anew.\n").len(), 1);
    assert_eq!(foreign_words("marshall, recommend, renewed, `plugs_in`\n"), [""; 0]);
}
