//! Patterns in an address: brace lists and ranges, and wildcards.

use crate::storage::{LocalKind, has_scheme, local_kind};
use glob::{MatchOptions, Pattern};
use object_store::path::Path;
use schemas::ImageExtensions;

/// More names than this in one pattern is a slip of the hand.
const MOST_NAMES: usize = 1_000_000;

/// Extensions of the files that a layout is made of, and of archives of arrays; an address that ends so names one file.
const FILE_EXTENSIONS: [&str; 3] = ["tar", "parquet", "npz"];

/// An address, cut where its pattern begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Patterned {
    /// The folder that all names lie in, with the address's query.
    pub(super) base: String,
    /// The pattern below it, unescaped; empty for everything in the folder.
    pub(super) pattern: String,
}

/// [`split`], but a plain path that exists is itself, whatever letters it has.
pub(super) fn resolve(address: &str) -> Patterned {
    match local_kind(address) {
        Some(LocalKind::Folder) => Patterned { base: address.to_owned(), pattern: String::new() },
        // A file of such a name: its letters stand for themselves.
        Some(_) if address.contains(['*', '?', '[']) && !address.contains(['{', '}']) => {
            let cut = address.rfind('/').map_or(0, |slash| slash + 1);
            let (base, name) = address.split_at(cut);
            let base = if base.is_empty() { "." } else { base };
            Patterned { base: base.to_owned(), pattern: Pattern::escape(name) }
        }
        _ => split(address),
    }
}

/// Cuts `address` at the last slash before its first wildcard or brace, or before its name when it names a file.
fn split(address: &str) -> Patterned {
    // In a URL, `?` starts the query.
    let url = has_scheme(address);
    let (front, query) = match address.find('?').filter(|_| url) {
        Some(start) => address.split_at(start),
        None => (address, ""),
    };
    let path_starts = front.find("://").map_or(0, |colon| colon + 3);
    let special = front[path_starts..].find(['*', '?', '[', '{']).map(|at| path_starts + at);
    let names_file = || {
        super::extension(front).is_some_and(|found| {
            FILE_EXTENSIONS.contains(&found.as_str()) || ImageExtensions::Usual.contain(Some(&found))
        })
    };
    let end = match special {
        Some(special) => special,
        None if names_file() => front.len(),
        None => return Patterned { base: address.to_owned(), pattern: String::new() },
    };
    // The slash stays with the base, for `/*.tar` lies in the root. In a URL, the host is no folder.
    let cut = match front[path_starts..end].rfind('/') {
        Some(slash) => path_starts + slash + 1,
        None if url => return Patterned { base: address.to_owned(), pattern: String::new() },
        None => 0,
    };
    let (base, pattern) = front.split_at(cut);
    let base = if base.is_empty() { "." } else { base };
    let pattern = match Path::from_url_path(pattern) {
        Ok(path) if url => path.to_string(),
        _ => pattern.to_owned(),
    };
    Patterned { base: format!("{base}{query}"), pattern }
}

/// A name with wildcards: a star does not reach into folders, two stars do.
#[derive(Clone, Debug)]
pub(super) struct Wildcard(Pattern);

impl Wildcard {
    /// # Errors
    /// In words, when the name is no pattern.
    pub(super) fn new(name: &str) -> Result<Self, String> {
        Pattern::new(name).map(Self).map_err(|error| format!("{name}: {error}"))
    }

    /// Whether it stands for the object at `path`.
    pub(super) fn matches(&self, path: &str) -> bool {
        let options =
            MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
        self.0.matches_with(path, options)
    }
}

/// Whether a name stands for several.
pub(crate) fn has_wildcard(name: &str) -> bool {
    name.contains(['*', '?', '['])
}

/// Every name that the braces of `pattern` stand for: `{a,b}` is a list, `{0000..1023}` a range of numbers as wide as its first.
///
/// # Errors
/// When a brace is not closed, holds neither list nor range, or names are too many.
pub(super) fn expand_braces(pattern: &str) -> Result<Vec<String>, String> {
    let Some(open) = pattern.find(['{', '}']) else { return Ok(vec![pattern.to_owned()]) };
    if pattern[open..].starts_with('}') {
        return Err("`}` without `{`".to_owned());
    }
    let close = matching_brace(&pattern[open..]).ok_or_else(|| "`{` is not closed".to_owned())? + open;
    let mut choices = Vec::new();
    for choice in alternatives(&pattern[open + 1..close])? {
        choices.extend(expand_braces(&choice)?);
    }
    let rests = expand_braces(&pattern[close + 1..])?;
    if choices.len().saturating_mul(rests.len()) > MOST_NAMES {
        return Err(format!("stands for more than {MOST_NAMES} names"));
    }
    let front = &pattern[..open];
    Ok(choices.iter().flat_map(|choice| rests.iter().map(move |rest| format!("{front}{choice}{rest}"))).collect())
}

/// Where the brace that `text` starts with is closed.
fn matching_brace(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    text.bytes().position(|byte| {
        match byte {
            b'{' => depth += 1,
            b'}' => depth -= 1,
            _ => {}
        }
        depth == 0
    })
}

/// What a pair of braces holds.
fn alternatives(inside: &str) -> Result<Vec<String>, String> {
    let mut depth = 0_usize;
    let mut parts = vec![String::new()];
    for letter in inside.chars() {
        match letter {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(letter);
        }
    }
    if parts.len() > 1 {
        return Ok(parts);
    }
    let wrong = || format!("{{{inside}}} is neither a list such as {{train,val}} nor a range such as {{0000..1023}}");
    let (first, last) = inside.split_once("..").ok_or_else(wrong)?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u64>().ok().filter(|_| digits).ok_or_else(wrong)
    };
    let (start, end) = (number(first)?, number(last)?);
    if start > end {
        return Err(format!("{{{inside}}} counts down; write the smaller number first"));
    }
    if end - start >= MOST_NAMES as u64 {
        return Err(format!("{{{inside}}} stands for more than {MOST_NAMES} names"));
    }
    // As a shell does it: padded when either end is.
    let padded = |text: &str| text.len() > 1 && text.starts_with('0');
    let width = if padded(first) || padded(last) { first.len().max(last.len()) } else { 0 };
    Ok((start..=end).map(|value| format!("{value:0width$}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_address_is_cut_where_its_pattern_begins() {
        for (address, base, pattern) in [
            ("s3://bucket/train", "s3://bucket/train", ""),
            ("s3://bucket/a/x-{00..63}.tar", "s3://bucket/a/", "x-{00..63}.tar"),
            ("s3://bucket/a/b.tar", "s3://bucket/a/", "b.tar"),
            ("s3://bucket/*/x.parquet", "s3://bucket/", "*/x.parquet"),
            ("https://host/a%20b/c%20{0..1}.tar?sig=x", "https://host/a%20b/?sig=x", "c {0..1}.tar"),
            ("https://host/a/b.tar?sig=x", "https://host/a/?sig=x", "b.tar"),
            ("images", "images", ""),
            ("images/?.png", "images/", "?.png"),
            ("cat.JPEG", ".", "cat.JPEG"),
            ("/*.tar", "/", "*.tar"),
        ] {
            let expected = Patterned { base: base.to_owned(), pattern: pattern.to_owned() };
            assert_eq!(split(address), expected, "{address}");
        }
    }

    #[test]
    fn braces_are_lists_and_ranges_and_may_nest() {
        let expand = |pattern| expand_braces(pattern).expect(pattern);
        assert_eq!(expand("x-{08..11}.tar"), ["x-08.tar", "x-09.tar", "x-10.tar", "x-11.tar"]);
        assert_eq!(expand("{8..10}"), ["8", "9", "10"]);
        assert_eq!(expand("{a,b{1..2},}/{x,y}"), ["a/x", "a/y", "b1/x", "b1/y", "b2/x", "b2/y", "/x", "/y"]);
        assert_eq!(expand("plain.tar"), ["plain.tar"]);
    }

    #[test]
    fn broken_braces_are_refused_in_words() {
        for (pattern, hint) in [
            ("{0..3", "not closed"),
            ("a}", "without"),
            ("{}", "neither"),
            ("{a..c}", "neither"),
            ("{3..1}", "counts down"),
            ("{0..99999999}", "more than"),
            ("{0..9999}{0..9999}", "more than"),
        ] {
            let error = expand_braces(pattern).expect_err(pattern);
            assert!(error.contains(hint), "{pattern}: {error}");
        }
    }

    proptest! {
        #[test]
        fn a_range_names_every_number_once_and_equally_wide(start in 0_u64..2000, length in 0_u64..300, width in 4_usize..7) {
            let names = expand_braces(&format!("s-{{{start:0width$}..{:0width$}}}.tar", start + length)).expect("a range");
            let expected: Vec<String> = (start..=start + length).map(|number| format!("s-{number:0width$}.tar")).collect();
            prop_assert_eq!(names, expected);
        }

        #[test]
        fn names_multiply_and_any_text_is_answered(first in 1_usize..6, second in 1_usize..6, noise in "[{},.0-9a]{0,24}") {
            let list = |count: usize| (0..=count).map(|at| format!("v{at}")).collect::<Vec<_>>().join(",");
            let names = expand_braces(&format!("{{{}}}/{{{}}}", list(first), list(second))).expect("two lists");
            prop_assert_eq!(names.len(), (first + 1) * (second + 1));
            if let Ok(names) = expand_braces(&noise) {
                let left = names.iter().filter(|name| name.contains(['{', '}'])).count();
                prop_assert_eq!(left, 0);
            }
        }
    }
}
