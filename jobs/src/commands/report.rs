//! `restok report`: one page about everything that was made.

use crate::settings::ReportSettings;
use anyhow::{Context, Result};
use pipeline::Limits;
use report::{
    Album, gather, page,
    text::{bytes, counted},
};
use std::{ffi::OsString, fs, path::Path};

/// Reads the outputs one after another and writes the page.
///
/// # Errors
/// When something is not there, is damaged, or is nothing that a report is about; when the page cannot be written.
pub(crate) async fn run(settings: ReportSettings, limits: Limits) -> Result<()> {
    let mut album = Album::default();
    let mut subjects = Vec::new();
    for output in &settings.outputs {
        let shown = pipeline::without_secrets(output);
        tracing::info!(output = shown, "reading");
        subjects.extend(gather(output, &limits, &mut album).await.with_context(|| format!("no report about {shown}"))?);
    }
    let text = page(&subjects);
    let about = counted(subjects.len() as u64, "output");
    let told = format!("{}: {about}, {}", settings.to.display(), bytes(text.len() as u64));
    match is_written_through(&settings.to) {
        true => {
            fs::write(&settings.to, &text).with_context(|| format!("{} cannot be written", settings.to.display()))?;
            // Standard output may be the page.
            tracing::info!("{told}");
        }
        false => {
            replace(&settings.to, &text)?;
            crate::output::print(&format!("{told}\n"))?;
        }
    }
    Ok(())
}

/// Whether something is there that is no file of its own, a pipe, a terminal or a link to one such as `/dev/stdout`: what is put in its
/// place would not reach who reads it.
fn is_written_through(to: &Path) -> bool {
    fs::symlink_metadata(to).is_ok_and(|there| !there.is_file())
}

/// Puts the page under another name first: whoever looks sees the old page or the new one.
fn replace(to: &Path, text: &str) -> Result<()> {
    let mut name = OsString::from(".");
    name.push(to.file_name().unwrap_or_default());
    name.push(format!(".{}.partial", std::process::id()));
    let partial = to.with_file_name(name);
    let written = fs::write(&partial, text).and_then(|()| fs::rename(&partial, to));
    if written.is_err() {
        // What is half written helps nobody; the error that is told is the first.
        drop(fs::remove_file(&partial));
    }
    written.with_context(|| format!("{} cannot be written", to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_replaces_the_one_before_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let to = folder.path().join("report.html");
        replace(&to, "old").expect("written");
        replace(&to, "new").expect("written");
        assert_eq!(fs::read_to_string(&to).expect("a page"), "new");
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 1);
        assert!(!is_written_through(&to) && !is_written_through(&folder.path().join("new.html")));
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/dev/null", &link).expect("a link");
        assert!(is_written_through(&link) && is_written_through(Path::new("/dev/null")));
        let error = replace(&folder.path().join("not/there.html"), "").expect_err("no folder").to_string();
        assert!(error.contains("there.html"), "{error}");
    }
}
