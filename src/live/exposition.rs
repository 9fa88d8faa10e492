//! Reads the text format of Prometheus, as far as our own programs use it. Pure.

use std::borrow::Cow;

/// One line with a value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample<'t> {
    /// Name of the metric; that of a histogram ends in `_bucket`, `_sum` or `_count`.
    pub name: &'t str,
    /// The value.
    pub value: f64,
    /// The text between the braces.
    labels: &'t str,
}

impl<'t> Sample<'t> {
    /// The value of the label `name`.
    pub fn label(&self, name: &str) -> Option<Cow<'t, str>> {
        let mut rest = self.labels;
        while let Some((known, after)) = rest.split_once("=\"") {
            let end = closing_quote(after)?;
            if known.trim_start_matches([',', ' ']) == name {
                return Some(unescaped(&after[..end]));
            }
            rest = &after[end + 1..];
        }
        None
    }
}

/// The samples in `text`. Comments, and lines that are not samples, are left out.
pub fn samples(text: &str) -> impl Iterator<Item = Sample<'_>> {
    text.lines().filter(|line| !line.starts_with('#')).filter_map(sample)
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        None => ("", rest),
        Some(inside) => {
            let end = closing_brace(inside)?;
            (&inside[..end], &inside[end + 1..])
        }
    };
    let value = rest.split_ascii_whitespace().next()?.parse().ok()?;
    (!name.is_empty()).then_some(Sample { name, value, labels })
}

/// Where the quoted text ends that begins at the start of `text`.
fn closing_quote(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.bytes().position(|byte| {
        let is_end = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        is_end
    })
}

/// Where the labels end; a value may contain a brace.
fn closing_brace(text: &str) -> Option<usize> {
    let mut at = 0;
    loop {
        let next = text[at..].find(['"', '}'])? + at;
        if text[next..].starts_with('}') {
            return Some(next);
        }
        at = next + 1 + closing_quote(&text[next + 1..])? + 1;
    }
}

fn unescaped(text: &str) -> Cow<'_, str> {
    if !text.contains('\\') {
        return text.into();
    }
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        plain.push(match letter {
            '\\' => match letters.next() {
                Some('n') => '\n',
                Some(other) => other,
                None => break,
            },
            other => other,
        });
    }
    plain.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_values_and_labels_are_read() {
        let text = "# HELP a_total Things\n# TYPE a_total counter\na_total 3\n\
                    b{reason=\"not_json\",client=\"shop\"} 1.5\nc_bucket{le=\"+Inf\"} 7 1700000000\n";
        let found: Vec<Sample<'_>> = samples(text).collect();
        let names: Vec<(&str, f64)> = found.iter().map(|sample| (sample.name, sample.value)).collect();
        assert_eq!(names, [("a_total", 3.0), ("b", 1.5), ("c_bucket", 7.0)]);
        assert_eq!(found[1].label("client").as_deref(), Some("shop"));
        assert_eq!(found[1].label("reason").as_deref(), Some("not_json"));
        assert_eq!(found[1].label("son"), None);
        assert_eq!(found[2].label("le").and_then(|le| le.parse().ok()), Some(f64::INFINITY));
    }

    #[test]
    fn a_label_may_contain_every_sign() {
        let text = "a{client=\"}, b=\\\"x\\\\\\n\",kind=\"y\"} 1\n";
        let found: Vec<Sample<'_>> = samples(text).collect();
        assert_eq!(found[0].label("client").as_deref(), Some("}, b=\"x\\\n"));
        assert_eq!(found[0].label("kind").as_deref(), Some("y"));
    }

    #[test]
    fn what_is_not_a_sample_is_left_out() {
        for text in
            ["", "a", "a b", "{} 1", "a{b=\"c\" 1", "a{b=\"c} 1", "<html> is not text\n", "a{ 1", "\u{e9} x"]
        {
            assert_eq!(samples(text).count(), 0, "{text}");
        }
    }
}
