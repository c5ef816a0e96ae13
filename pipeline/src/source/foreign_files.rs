//! What lies in a folder of images and is none of the set: files of restok itself, hidden ones, what systems and tools leave behind; and
//! tables that more than a listing belongs to.

use super::is_system_folder;
use crate::storage::StoredObject;
use schemas::{LeftOutReason, PLAN_OWNER_PATH, SourceAccount, is_output_path};

/// What of a listing is no part of the set, whatever its layout.
#[derive(Debug)]
pub(super) struct Foreign {
    /// The folder of the run's own output with its slash; empty where that is the source.
    own: Option<String>,
    /// Folders of other outputs, with a slash or empty.
    outputs: Vec<String>,
    /// Whether the whole folder was named, and no pattern in it: then nothing of an output is meant.
    whole: bool,
}

impl Foreign {
    /// Looks for outputs in a listing. `own` is where the run's own lies below the source.
    pub(super) fn find(listed: &[StoredObject], own: Option<String>, whole: bool) -> Self {
        let outputs = listed.iter().filter_map(|object| object.path.strip_suffix(PLAN_OWNER_PATH));
        let outputs = outputs.filter(|folder| folder.is_empty() || folder.ends_with('/')).map(str::to_owned);
        let own = own.map(|folder| match folder.as_str() {
            "" => folder,
            _ => format!("{}/", folder.trim_end_matches('/')),
        });
        Self { own, outputs: outputs.collect(), whole }
    }

    /// Why the object at `path` is none of the set; `None` where it may be one.
    pub(super) fn reason(&self, path: &str) -> Option<LeftOutReason> {
        let in_own = self.own.iter().any(|folder| match folder.as_str() {
            "" => is_output_path(path),
            folder => path.starts_with(folder),
        });
        let in_another = self.outputs.iter().any(|folder| {
            path.strip_prefix(folder.as_str())
                // Pictures may be meant, where a pattern names them or their output.
                .is_some_and(|below| (self.whole && !folder.is_empty()) || is_output_path(below))
        });
        if in_own || in_another {
            return Some(LeftOutReason::OwnOutput);
        }
        // An Apache Hudi table is known by this folder, and is refused for it.
        let hidden = |part: &str| part.starts_with('.') && part != HUDI;
        if path.split('/').any(hidden) {
            return Some(LeftOutReason::Hidden);
        }
        path.split('/').any(is_system_folder).then_some(LeftOutReason::Leftover)
    }
}

/// Folder of a Hudi table.
const HUDI: &str = ".hoodie";

/// The Parquet files that hold rows. In a folder that was named as a whole (`whole`), names with an underscore in front are what Spark, Hive and
/// Dask keep beside them.
///
/// # Errors
/// In words, when the folder is a table of a kind that says elsewhere which of its files count: reading all of them would bring back
/// deleted rows, and double those that were rewritten.
pub(super) fn tables(
    files: Vec<StoredObject>,
    others: &[StoredObject],
    whole: bool,
    left_out: &mut SourceAccount,
) -> Result<Vec<StoredObject>, String> {
    let has_folder = |name: &str| {
        let in_it = |object: &StoredObject| object.path.split('/').rev().skip(1).any(|part| part == name);
        files.iter().chain(others).any(in_it)
    };
    let is_metadata = |object: &StoredObject| {
        let mut parts = object.path.rsplit('/');
        parts.next().is_some_and(|name| name.ends_with(".metadata.json")) && parts.next() == Some("metadata")
    };
    let kind = match () {
        () if has_folder("_delta_log") => Some(("a Delta table", "_delta_log")),
        () if has_folder(HUDI) => Some(("a Hudi table", HUDI)),
        () if others.iter().any(is_metadata) => Some(("an Iceberg table", "metadata/*.metadata.json")),
        () => None,
    };
    if let Some((kind, sign)) = kind {
        return Err(format!(
            "it is {kind} ({sign} lies in it), whose log says which files count, and that log is not read: write the current \
             rows as plain Parquet and name that folder, or name the files themselves with a pattern, every row of which is then \
             read"
        ));
    }
    let mut rows = Vec::with_capacity(files.len());
    for file in files {
        match whole && file.path.split('/').any(|part| part.starts_with('_')) {
            true => left_out.count(LeftOutReason::Leftover, || file.path),
            false => rows.push(file),
        }
    }
    match rows.is_empty() {
        true => {
            Err("all of its Parquet files have an underscore in their path, as what Spark leaves behind".to_owned())
        }
        false => Ok(rows),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn objects(paths: &[&str]) -> Vec<StoredObject> {
        let object = |path: &&str| StoredObject { path: (*path).to_owned(), size: 1, etag: None };
        paths.iter().map(object).collect()
    }

    #[test]
    fn outputs_hidden_files_and_leftovers_are_none_of_the_set() {
        let listed = objects(&["runs/a/_plan/owner.json"]);
        let whole = Foreign::find(&listed, Some("own".to_owned()), true);
        let named = Foreign::find(&listed, None, false);
        use LeftOutReason::{Hidden, Leftover, OwnOutput};
        for (path, in_whole, in_named) in [
            ("own/tokens/x.parquet", Some(OwnOutput), None),
            ("owner/x.png", None, None),
            ("runs/a/pictures/png/1.png", Some(OwnOutput), None),
            ("runs/a/tokens/split=train/x.parquet", Some(OwnOutput), Some(OwnOutput)),
            ("cats/.x.png", Some(Hidden), Some(Hidden)),
            (".cache/x.png", Some(Hidden), Some(Hidden)),
            ("cats/@eaDir/x.png", Some(Leftover), Some(Leftover)),
            ("cats/_x.png", None, None),
        ] {
            assert_eq!((whole.reason(path), named.reason(path)), (in_whole, in_named), "{path}");
        }
        let itself = Foreign::find(&[], Some(String::new()), true);
        for (path, reason) in [
            ("_plan/owner.json", Some(OwnOutput)),
            ("tokens/split=train/x.parquet", Some(OwnOutput)),
            ("images/cat.png", None),
            ("_MG_1234.jpg", None),
            ("features/cat.png", None),
        ] {
            assert_eq!(itself.reason(path), reason, "{path}");
        }
    }

    #[test]
    fn a_table_with_a_log_is_refused_by_its_kind_and_leftovers_are_counted() {
        for (files, others, kind) in [
            (vec!["a.parquet"], vec!["_delta_log/000.json"], "a Delta table"),
            (vec!["a.parquet", "_delta_log/010.checkpoint.parquet"], vec![], "a Delta table"),
            (vec!["data/a.parquet"], vec!["metadata/v1.metadata.json"], "an Iceberg table"),
            (vec!["a.parquet"], vec![".hoodie/hoodie.properties"], "a Hudi table"),
        ] {
            let told = tables(objects(&files), &objects(&others), true, &mut SourceAccount::default()).expect_err(kind);
            assert!(told.contains(kind) && told.contains("pattern"), "{told}");
        }
        let mut left_out = SourceAccount::default();
        let files = objects(&["_temporary/0/a.parquet", "x/a.parquet", "_metadata.parquet"]);
        let kept = tables(files.clone(), &objects(&["_SUCCESS"]), true, &mut left_out).expect("one file has rows");
        assert_eq!((kept, left_out.of(LeftOutReason::Leftover)), (objects(&["x/a.parquet"]), 2));
        let named = tables(files.clone(), &[], false, &mut left_out).expect("whoever names a file means it");
        assert_eq!(named, files);
    }
}
