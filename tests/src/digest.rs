//! What an output holds, reduced to what must be equal between two runs of the same plan.

use std::{collections::BTreeMap, os::unix::fs::FileTypeExt, path::Path};

/// Every file below `folder`, by its path with `/` between folders.
pub fn read_tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(current) = folders.pop() {
        let entries = std::fs::read_dir(&current).unwrap_or_else(|error| panic!("{}: {error}", current.display()));
        for entry in entries {
            let path = entry.expect("an entry of a folder").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            // Whoever reads a pipe that a test has put there waits for ever.
            if std::fs::metadata(&path).is_ok_and(|there| there.file_type().is_fifo()) {
                continue;
            }
            let name = path.strip_prefix(folder).expect("it lies below the folder").to_string_lossy().into_owned();
            // A temporary file of a put that is under way may vanish before it is read; no table file ever does.
            match std::fs::read(&path) {
                Ok(bytes) => files.insert(name, bytes),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
                Err(error) => panic!("{}: {error}", path.display()),
            };
        }
    }
    files
}

/// SHA-256 of every file of both tables, of the plan and of the manifest. Markers are left out: they hold the seconds a unit
/// took, and nothing else may differ. So is what the listing left out, which may change beside a set that does not.
pub fn table_digests(files: &BTreeMap<String, Vec<u8>>) -> BTreeMap<String, String> {
    files
        .iter()
        .filter(|(path, _)| is_table_file(path) || is_plan_file(path) || *path == schemas::MANIFEST_PATH)
        .map(|(path, bytes)| (path.clone(), schemas::sha256_hex(bytes)))
        .collect()
}

fn is_plan_file(path: &str) -> bool {
    path.starts_with("_plan/") && !path.ends_with(".left-out.json")
}

/// Number of units whose marker is there.
pub fn finished_units(files: &BTreeMap<String, Vec<u8>>) -> usize {
    let is_marker =
        |path: &str| path.starts_with("_state/") && !path.starts_with("_state/leases-") && path.ends_with(".json");
    files.keys().filter(|path| is_marker(path)).count()
}

/// Whether the output is finished.
pub fn is_finished(files: &BTreeMap<String, Vec<u8>>) -> bool {
    files.contains_key(schemas::SUCCESS_PATH)
}

fn is_table_file(path: &str) -> bool {
    // Whatever its name: a tool that reads the folder takes everything in it for a part of the table.
    path.starts_with("tokens/") || path.starts_with("images/")
}
