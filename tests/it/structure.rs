//! The structure of `src/`, held by a test: imports point down, among files and among rooms, without a circle.
//!
//! A room is a directory. An import counts for the file that defines the name, also if it is taken from a `mod.rs`
//! that only passes it on.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::tidy::{files, relative, root};

/// A path in the source, such as `crate::broker::record::Position`, without generics.
type Names = Vec<String>;

/// One file of `src/` without tests.
struct Source {
    /// Path below `src/` without its extension.
    path: String,
    /// Full path of each name that it imports or calls.
    imports: Vec<Names>,
    /// Names that it passes on, with the path of each.
    passed_on: BTreeMap<String, Names>,
}

/// Each file by the path of its module, which starts with `crate`.
type Modules = BTreeMap<Names, Source>;

fn names(path: &str) -> Names {
    path.split("::").map(|name| name.trim().to_owned()).collect()
}

/// The module that the file at `path` is.
fn module_of(path: &str) -> Names {
    let mut module = names("crate");
    module.extend(path.split('/').map(str::to_owned));
    if module.last().is_some_and(|last| last == "mod" || last == "lib") {
        module.pop();
    }
    module
}

/// `text` without comments and without items under `#[cfg(test)]`.
fn production(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let indent = &line[..line.len() - line.trim_start().len()];
        if line.trim_start().starts_with("#[cfg(test)]") {
            let item = lines.by_ref().find(|line| !line.trim_start().starts_with('#')).unwrap_or_default();
            if item.ends_with('{') {
                let end = format!("{indent}}}");
                lines.by_ref().find(|line| *line == end);
            }
        } else if !line.trim_start().starts_with("//") {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// The paths of a `use` tree, such as `a::{b, c::{self, d as e}}`, with the name under which each is known.
fn expand(before: &str, tree: &str) -> Vec<(String, Names)> {
    let tree = tree.trim();
    if let Some((path, group)) = tree.split_once('{') {
        let group = group.trim_end().strip_suffix('}').expect("a closed group");
        let (mut depth, mut start, mut found) = (0, 0, Vec::new());
        for (at, letter) in group.char_indices().chain([(group.len(), ',')]) {
            match letter {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' if depth == 0 => {
                    if !group[start..at].trim().is_empty() {
                        found.extend(expand(&format!("{before}{}", path.trim()), &group[start..at]));
                    }
                    start = at + 1;
                }
                _ => {}
            }
        }
        return found;
    }
    let (path, alias) = tree.split_once(" as ").unwrap_or((tree, ""));
    let mut path = names(&format!("{before}{path}"));
    if path.last().is_some_and(|last| last == "self") {
        path.pop();
    }
    let name = if alias.is_empty() { path.last().cloned().unwrap_or_default() } else { alias.to_owned() };
    vec![(name, path)]
}

/// The same path from the root of the crate, or `None` for another crate's.
fn absolute(module: &Names, path: Names, children: &BTreeSet<String>) -> Option<Names> {
    let ups = path.iter().take_while(|name| *name == "super").count();
    match path[0].as_str() {
        "crate" => Some(path),
        "super" => {
            let base = module.get(..module.len().checked_sub(ups)?)?;
            Some([base, &path[ups..]].concat())
        }
        "self" => Some([&module[..], &path[1..]].concat()),
        child if children.contains(child) => Some([&module[..], &path[..]].concat()),
        _ => None,
    }
}

/// Paths in `code` outside of `use`: those that start with `crate::`, `super::` or a module below this one.
fn inline(code: &str, children: &BTreeSet<String>) -> Vec<Names> {
    let starts = children.iter().map(String::as_str).chain(["crate", "super"]);
    let mut found = Vec::new();
    for start in starts {
        for (at, _) in code.match_indices(&format!("{start}::")) {
            let is_start = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
            if is_start {
                let end = code[at..].find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
                let path = code[at..at + end.unwrap_or(code.len() - at)].trim_end_matches(':');
                found.push(names(path));
            }
        }
    }
    found
}

fn source(path: &str, text: &str) -> (Names, Source) {
    let module = module_of(path);
    let code = production(text);
    let declared = code.lines().filter_map(|line| {
        let (before, name) = line.trim().strip_suffix(';')?.split_once("mod ")?;
        (before.is_empty() || before.starts_with("pub")).then(|| name.to_owned())
    });
    let children: BTreeSet<String> = declared.collect();
    let (mut imports, mut passed_on, mut rest) = (Vec::new(), BTreeMap::new(), String::new());
    for statement in code.split_inclusive(';') {
        let begin = statement.rfind("use ").filter(|at| {
            let before = statement[..*at].rsplit('\n').next().unwrap_or_default().trim();
            let is_path = |c: char| c.is_alphanumeric() || c.is_whitespace() || "_:{},;*".contains(c);
            (before.is_empty() || before.starts_with("pub")) && statement[*at..].chars().all(is_path)
        });
        let Some(begin) = begin else {
            rest.push_str(statement);
            continue;
        };
        rest.push_str(&statement[..begin]);
        let is_public = statement[..begin].rsplit('\n').next().unwrap_or_default().contains("pub");
        for (name, path) in expand("", statement[begin + 4..].trim_end_matches(';')) {
            let Some(path) = absolute(&module, path, &children) else { continue };
            if is_public {
                passed_on.insert(name, path);
            } else {
                imports.push(path);
            }
        }
    }
    let inline = inline(&rest, &children).into_iter();
    imports.extend(inline.filter_map(|path| absolute(&module, path, &children)));
    (module, Source { path: path.to_owned(), imports, passed_on })
}

/// The file that defines what `path` names.
fn defined_in<'a>(modules: &'a Modules, path: &[String]) -> Option<&'a str> {
    let mut length = path.len();
    while length > 0 && !modules.contains_key(&path[..length]) {
        length -= 1;
    }
    let source = modules.get(&path[..length])?;
    match path.get(length).and_then(|name| source.passed_on.get(name)) {
        Some(target) => defined_in(modules, target),
        None => Some(&source.path),
    }
}

/// Pairs of files of which the first one imports from the second one.
fn arrows(modules: &Modules) -> BTreeSet<(&str, &str)> {
    let mut found = BTreeSet::new();
    for source in modules.values() {
        for target in source.imports.iter().filter_map(|path| defined_in(modules, path)) {
            if target != source.path {
                found.insert((source.path.as_str(), target));
            }
        }
    }
    found
}

/// What `path` is within the directory `room`: a file or a directory; `None` if it is elsewhere.
fn part_of<'a>(room: &str, path: &'a str) -> Option<&'a str> {
    let inner = if room.is_empty() { path } else { path.strip_prefix(room)?.strip_prefix('/')? };
    inner.split('/').next()
}

/// Files and directories of `room` that import each other in a circle, each with what it imports.
fn circles(room: &str, arrows: &BTreeSet<(&str, &str)>) -> Vec<String> {
    let mut inner: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (from, to) in arrows {
        if let (Some(from), Some(to)) = (part_of(room, from), part_of(room, to))
            && from != to
        {
            inner.entry(from).or_default().insert(to);
        }
    }
    // Takes away what imports nothing that is left and what nothing left imports, until only circles and what
    // lies between them remain.
    loop {
        let importers: BTreeSet<&str> = inner.keys().copied().collect();
        let imported: BTreeSet<&str> = inner.values().flatten().copied().collect();
        inner.values_mut().for_each(|targets| targets.retain(|target| importers.contains(target)));
        inner.retain(|from, targets| !targets.is_empty() && imported.contains(from));
        if inner.len() == importers.len() {
            break;
        }
    }
    inner.iter().map(|(from, to)| format!("src/{room}: {from} imports {to:?}")).collect()
}

fn modules(sources: &[(&str, &str)]) -> Modules {
    sources.iter().map(|(path, text)| source(path, text)).collect()
}

/// All circles in a tree of sources.
fn all_circles(modules: &Modules) -> Vec<String> {
    let arrows = arrows(modules);
    let mut rooms = BTreeSet::from([""]);
    for source in modules.values() {
        rooms.extend(source.path.match_indices('/').map(|(at, _)| &source.path[..at]));
    }
    rooms.iter().flat_map(|room| circles(room, &arrows)).collect()
}

#[test]
fn imports_point_down_among_files_and_among_rooms() {
    let paths = files(&root().join("src"), &["rs"]);
    let texts: Vec<(String, String)> = paths
        .iter()
        .map(|path| {
            let name = relative(path);
            let name = name.trim_start_matches("src/").trim_end_matches(".rs").to_owned();
            (name, fs::read_to_string(path).expect("source"))
        })
        .filter(|(name, _)| !name.split('/').any(|part| part == "tests" || part == "bin") && name != "lib")
        .collect();
    let texts: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let modules = modules(&texts);
    assert!(arrows(&modules).len() > 300, "found only {:?}", arrows(&modules));
    let found = all_circles(&modules);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn a_circle_is_found_and_what_is_passed_on_is_none() {
    let found = |sources: &[(&str, &str)]| all_circles(&modules(sources)).len();
    let plain = ("a/mod", "mod x;\nmod y;\npub use y::{B, z::C as D};\nfn f() { x::g() }\n");
    assert_eq!(found(&[plain, ("a/x", "use super::B;\n"), ("a/y", "struct B;\n")]), 0);
    assert_eq!(found(&[plain, ("a/x", "use crate::a::{B, f};\n"), ("a/y", "")]), 2, "with mod.rs");
    assert_eq!(found(&[("a/x", "use super::y::B;\n"), ("a/y", "fn f() { crate::a::x::g() }\n")]), 2);
    let test = "#[cfg(test)]\nmod tests {\n    use crate::b::B;\n}\n";
    assert_eq!(found(&[("a", test), ("b", "use crate::a::A;\n")]), 0, "tests may import anything");
    let rooms =
        [("a/x", "use crate::b::y::Y;\n"), ("a/z", ""), ("b/y", "struct Y;"), ("b/w", "use crate::a::z;\n")];
    assert_eq!(found(&rooms), 2, "no file is in a circle, but the rooms are");
}
