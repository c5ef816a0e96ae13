//! What lies in a folder of images and is none of the set: files of restok itself, hidden ones, what systems and tools leave behind; and
//! tables that more than a listing belongs to.

use super::is_system_folder;
use schemas::{LeftOutReason, PLAN_OWNER_PATH, is_output_path};

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
    /// Nothing but the run's own output, where that lies below the source.
    pub(super) fn new(own: Option<String>, whole: bool) -> Self {
        let own = own.map(|folder| match folder.as_str() {
            "" => folder,
            _ => format!("{}/", folder.trim_end_matches('/')),
        });
        Self { own, outputs: Vec::new(), whole }
    }

    /// Looks whether an object of the listing is the mark of another output.
    pub(super) fn note(&mut self, path: &str) {
        let folder = path.strip_suffix(PLAN_OWNER_PATH).filter(|folder| folder.is_empty() || folder.ends_with('/'));
        self.outputs.extend(folder.map(str::to_owned));
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

/// Refuses a folder that is a table of a kind that says elsewhere which of its files count: reading all of them would bring back deleted rows,
/// and double those that were rewritten. `paths` are those of its Parquet files and of what lies beside them.
///
/// # Errors
/// In words, with the kind of table.
pub(super) fn refuse_logged_table(paths: impl Iterator<Item = String>) -> Result<(), String> {
    const DELTA: &str = "_delta_log";
    let (mut delta, mut hudi, mut iceberg) = (false, false, false);
    for path in paths {
        let mut parts = path.rsplit('/');
        let name = parts.next();
        iceberg |=
            name.is_some_and(|name| name.ends_with(".metadata.json")) && parts.clone().next() == Some("metadata");
        for folder in parts {
            delta |= folder == DELTA;
            hudi |= folder == HUDI;
        }
    }
    let (kind, sign) = match () {
        () if delta => ("a Delta table", DELTA),
        () if hudi => ("a Hudi table", HUDI),
        () if iceberg => ("an Iceberg table", "metadata/*.metadata.json"),
        () => return Ok(()),
    };
    Err(format!(
        "it is {kind} ({sign} lies in it), whose log says which files count, and that log is not read: write the current \
         rows as plain Parquet and name that folder, or name the files themselves with a pattern, every row of which is then \
         read"
    ))
}

/// Whether a Parquet file is what Spark, Hive and Dask keep beside those that hold rows: in a folder that was named as a whole (`whole`), names
/// with an underscore in front.
pub(super) fn is_leftover_of_table(path: &str, whole: bool) -> bool {
    whole && path.split('/').any(|part| part.starts_with('_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_hidden_files_and_leftovers_are_none_of_the_set() {
        let mut whole = Foreign::new(Some("own".to_owned()), true);
        let mut named = Foreign::new(None, false);
        for foreign in [&mut whole, &mut named] {
            foreign.note("runs/a/_plan/owner.json");
        }
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
        let itself = Foreign::new(Some(String::new()), true);
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
    fn a_table_with_a_log_is_refused_by_its_kind() {
        let refuse = |paths: &[&str]| refuse_logged_table(paths.iter().map(|path| (*path).to_owned()));
        for (paths, kind) in [
            (["a.parquet", "_delta_log/000.json"], "a Delta table"),
            (["a.parquet", "_delta_log/010.checkpoint.parquet"], "a Delta table"),
            (["data/a.parquet", "metadata/v1.metadata.json"], "an Iceberg table"),
            (["a.parquet", ".hoodie/hoodie.properties"], "a Hudi table"),
        ] {
            let told = refuse(&paths).expect_err(kind);
            assert!(told.contains(kind) && told.contains("pattern"), "{told}");
        }
        refuse(&["a.parquet", "_SUCCESS", "metadata/a.parquet", "v1.metadata.json"]).expect("plain files");
    }

    #[test]
    fn what_spark_leaves_beside_a_table_is_told_by_its_underscore() {
        for (path, whole, named) in [
            ("_temporary/0/a.parquet", true, false),
            ("_metadata.parquet", true, false),
            ("x/a_b.parquet", false, false),
        ] {
            // Whoever names a file means it.
            assert_eq!((is_leftover_of_table(path, true), is_leftover_of_table(path, false)), (whole, named), "{path}");
        }
    }
}
