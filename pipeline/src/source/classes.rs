//! The classes of a source and their numbers: from a list that somebody gives, else from folders or from what files say.

use super::parquet_footer::FileFooter;
use crate::error::first_few;
use std::collections::{BTreeSet, HashSet};

/// Names that an error shows.
const NAMES_SHOWN: usize = 10;

/// An image's class: the first folder below the source; none for images in the source itself.
pub(super) fn of_path(path: &str) -> Option<&str> {
    path.split_once('/').map(|(class, _)| class)
}

/// The classes of a folder by label: those of `given`, else the folders in text order.
///
/// # Errors
/// In words, when a folder is not in `given`, or there are more classes than labels.
pub(super) fn of_folders(folders: BTreeSet<String>, given: Option<&[String]>) -> Result<Vec<String>, String> {
    if i32::try_from(folders.len()).is_err() {
        return Err(format!("{} classes are too many", folders.len()));
    }
    if let Some(given) = given {
        let known: HashSet<&str> = given.iter().map(String::as_str).collect();
        let unknown: Vec<_> = folders.iter().filter(|folder| !known.contains(folder.as_str())).collect();
        return match unknown.is_empty() {
            true => Ok(given.to_vec()),
            false => Err(format!(
                "{} of its folders are not in the list of classes: {}",
                unknown.len(),
                first_few(&unknown, NAMES_SHOWN)
            )),
        };
    }
    // 0, 1, 10, 100: a number as a name is no label.
    let numbers: Option<Vec<u64>> = folders.iter().map(|folder| folder.parse().ok()).collect();
    if numbers.is_some_and(|numbers| !numbers.iter().copied().eq(0..numbers.len() as u64)) {
        tracing::warn!(
            "its folders are called by numbers, and labels are their places in text order, not these numbers; `classes` fixes the numbering"
        );
    }
    Ok(folders.into_iter().collect())
}

/// The classes that the files of a Parquet source agree on: where one names more than another and begins alike, the longer list.
///
/// # Errors
/// In words, with the two files that do not agree.
pub(super) fn of_files(files: &[FileFooter]) -> Result<Vec<String>, String> {
    let mut agreed: Option<(&str, &[String])> = None;
    for FileFooter { path, class_names: names, .. } in files.iter().filter(|file| !file.class_names.is_empty()) {
        let Some((first, known)) = agreed else {
            agreed = Some((path, names));
            continue;
        };
        let differs = known.iter().zip(names.iter()).position(|(known, name)| known != name);
        if let Some(label) = differs {
            return Err(format!(
                "label {label} is {:?} in {first} and {:?} in {path}: `classes` fixes the numbering, and each file's numbers are \
                 then read by its own names",
                known[label], names[label]
            ));
        }
        if names.len() > known.len() {
            agreed = Some((path, names));
        }
    }
    Ok(agreed.map(|(_, names)| names.to_vec()).unwrap_or_default())
}

/// `given`, if it has every name that the files have.
///
/// # Errors
/// In words, with the first file that has another.
pub(super) fn named_by_list(files: &[FileFooter], given: &[String]) -> Result<Vec<String>, String> {
    let known: HashSet<&String> = given.iter().collect();
    for FileFooter { path, class_names: names, .. } in files {
        let unknown: Vec<_> = names.iter().filter(|name| !known.contains(name)).collect();
        if !unknown.is_empty() {
            return Err(format!(
                "{} classes of {path} are not in the list of classes: {}",
                unknown.len(),
                first_few(&unknown, NAMES_SHOWN)
            ));
        }
    }
    Ok(given.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn folders_are_numbered_in_text_order_or_by_the_list() {
        let folders = || BTreeSet::from(["dogs", "cats"].map(str::to_owned));
        assert_eq!(of_folders(folders(), None).expect("sorted"), names(&["cats", "dogs"]));
        let list = names(&["birds", "dogs", "cats"]);
        assert_eq!(of_folders(folders(), Some(&list)).expect("as given"), list);
        let error = of_folders(folders(), Some(&names(&["cats"]))).expect_err("one is missing");
        assert!(error.contains("dogs"), "{error}");
    }

    #[test]
    fn files_agree_or_are_named() {
        let (short, long, other) = (names(&["cat"]), names(&["cat", "dog"]), names(&["dog", "cat"]));
        let file = |(path, names): (&str, &Vec<String>)| FileFooter {
            path: path.to_owned(),
            rows: 1,
            class_names: names.as_slice().into(),
        };
        let agreed = of_files(&[("a", &short), ("b", &Vec::new()), ("c", &long), ("d", &short)].map(file));
        assert_eq!(agreed.expect("one begins the other"), long);
        let error = of_files(&[("a", &short), ("b", &other)].map(file)).expect_err("they differ");
        assert!(error.contains("\"cat\" in a and \"dog\" in b") && error.contains("`classes`"), "{error}");
        assert_eq!(named_by_list(&[("a", &other)].map(file), &long).expect("all are there"), long);
        let error = named_by_list(&[("a", &other)].map(file), &short).expect_err("dog is not");
        assert!(error.contains("classes of a") && error.contains("dog"), "{error}");
    }
}
