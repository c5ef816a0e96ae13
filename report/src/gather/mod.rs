//! Reads what the page is about: outputs, trainings, sweeps and scores, told apart by what lies in them; or scores alone.

mod pictures;
mod scores;
mod sheet;
mod sweep;
mod tables;
mod training;

pub(crate) use pictures::Pictures;
pub(crate) use sheet::SheetFile;
pub(crate) use sweep::{Sweep, SweepPoint};
pub(crate) use tables::{Logs, Tables};
pub(crate) use training::{Metrics, Sheets, TrainingRun};

use super::Album;
use anyhow::Result;
use pipeline::{Limits, PipelineError, Storage, TableReader};
use schemas::{EvaluationRecord, PLAN_OWNER_PATH, PlanSettings, SCORES_PREFIX};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};
use url::Url;

/// The contact sheet that `restok reconstruct` leaves.
const CONTACT_SHEET: &str = "contact-sheet.png";

/// One thing that the page is about.
#[derive(Debug)]
pub struct Subject {
    /// The last part of its address.
    pub(crate) name: String,
    /// Its address, without credentials.
    pub(crate) address: String,
    /// What it is.
    pub(crate) content: Content,
    /// The lines of its scores table; none where nothing was scored.
    pub(crate) scores: Vec<EvaluationRecord>,
}

/// What a subject is.
#[derive(Debug)]
pub(crate) enum Content {
    /// An output with tables.
    Tables(Box<Tables>),
    /// The folder of a training.
    Training(Box<TrainingRun>),
    /// Generated sets that differ in what a sweep varies alone.
    Sweep(Sweep),
    /// A sheet of pictures: that of a folder, or a file.
    Sheet(SheetFile),
    /// Scores alone.
    Scores,
}

impl Content {
    /// What it is, in words.
    pub(crate) fn kind(&self) -> &'static str {
        use schemas::Origin;
        match self {
            Self::Tables(tables) => match tables.inspection.settings.origin {
                Origin::Images(_) => "tokens of images",
                Origin::Samples(_) => "generated set",
                Origin::Tokens(_) => "decoded set",
            },
            Self::Training(run) => match run.published {
                "tokenizer" => "training of a tokenizer",
                "generator" => "training of a generator",
                _ => "training",
            },
            Self::Sweep(_) => "sweep",
            Self::Sheet(_) => "pictures",
            Self::Scores => "scores",
        }
    }
}

/// Reads what lies at `address`: one subject; of a folder that is none itself, one for each that lies in it, where sets that differ in
/// their sampling alone are one, a sweep.
///
/// # Errors
/// When nothing is there that the page could be about, or it is damaged; the error names it.
pub async fn gather(address: &str, limits: &Limits, album: &mut Album) -> Result<Vec<Subject>> {
    let place = Place::open(address, limits)?;
    if let Some(file) = place.folder.as_deref().filter(|path| is_png(path) && path.is_file()) {
        let sheet = SheetFile::read(file, album)?;
        return Ok(vec![place.subject(Content::Sheet(sheet), Vec::new())]);
    }
    if let Some(subject) = place.read(album).await? {
        return Ok(vec![subject]);
    }
    let scores = scores::read(&place.storage).await?;
    let mut outputs = Vec::new();
    let mut others = Vec::new();
    for name in place.names_below().await? {
        let below = place.below(&name, limits)?;
        match below.storage.exists(PLAN_OWNER_PATH).await? {
            true => outputs.push((name, TableReader::open(&below.storage).await?, below)),
            false => others.push(below),
        }
    }
    let mut subjects = Vec::new();
    let plans: Vec<&PlanSettings> = outputs.iter().map(|(_, reader, _)| reader.plan().settings()).collect();
    if sweep::is_one(&plans) {
        let sets = outputs.into_iter().map(|(name, reader, place)| (name, place.storage, reader)).collect();
        let (sweep, of_points) = Sweep::read(sets, album).await?;
        subjects.push(place.subject(Content::Sweep(sweep), scores.into_iter().chain(of_points).collect()));
    } else {
        if !scores.is_empty() {
            subjects.push(place.subject(Content::Scores, scores));
        }
        for (_, _, place) in outputs {
            subjects.extend(place.read(album).await?);
        }
    }
    for place in others {
        match place.read(album).await? {
            Some(subject) => subjects.push(subject),
            None => subjects.extend(place.scores_alone().await?),
        }
    }
    if subjects.is_empty() {
        subjects.extend(place.scores_alone().await?);
    }
    match subjects.is_empty() {
        true => Err(nothing_known(&place.storage).into()),
        false => Ok(subjects),
    }
}

/// Reads the scores tables at `address`: its own; of a folder that has none, those of every folder right below it.
///
/// # Errors
/// When there are none, or one is damaged; the error names it.
pub async fn gather_scores(address: &str, limits: &Limits) -> Result<Vec<EvaluationRecord>> {
    let place = Place::open(address, limits)?;
    let mut lines = scores::read(&place.storage).await?;
    if lines.is_empty() {
        for name in place.names_below().await? {
            lines.extend(scores::read(&place.below(&name, limits)?.storage).await?);
        }
    }
    match lines.is_empty() {
        true => Err(nothing_scored(&place.storage).into()),
        false => Ok(lines),
    }
}

/// A place that is looked at.
struct Place {
    /// As it was named, with everything that its store needs.
    address: String,
    storage: Storage,
    /// Where it is on this machine; `None` elsewhere.
    folder: Option<PathBuf>,
}

impl Place {
    fn open(address: &str, limits: &Limits) -> Result<Self, PipelineError> {
        Ok(Self {
            address: address.to_owned(),
            storage: Storage::open(address, limits)?,
            folder: local_folder(address),
        })
    }

    /// A place below this one.
    fn below(&self, name: &str, limits: &Limits) -> Result<Self, PipelineError> {
        match Url::parse(&self.address) {
            // The address itself has what its store needs and what is not shown.
            Ok(mut url) if self.address.contains("://") => {
                if let Ok(mut segments) = url.path_segments_mut() {
                    segments.pop_if_empty().push(name);
                }
                Self::open(url.as_str(), limits)
            }
            _ => Self::open(&self.storage.uri(name), limits),
        }
    }

    fn subject(&self, content: Content, scores: Vec<EvaluationRecord>) -> Subject {
        let address = self.storage.display().to_owned();
        let local = self.folder.as_deref().and_then(Path::file_name);
        let name = local.map_or_else(|| name_of(&address), |name| name.to_string_lossy().into_owned());
        Subject { name, address, content, scores }
    }

    /// The output, the training or the contact sheet that it is; `None` where it is none of them.
    async fn read(&self, album: &mut Album) -> Result<Option<Subject>> {
        if self.storage.exists(PLAN_OWNER_PATH).await? {
            let reader = TableReader::open(&self.storage).await?;
            let tables = Tables::read(&self.storage, &reader, album).await?;
            let scores = scores::read(&self.storage).await?;
            return Ok(Some(self.subject(Content::Tables(Box::new(tables)), scores)));
        }
        if let Some(folder) = self.folder.as_deref().filter(|folder| TrainingRun::is_there(folder)) {
            let run = TrainingRun::read(folder, album)?;
            let scores = scores::read(&self.storage).await?;
            return Ok(Some(self.subject(Content::Training(Box::new(run)), scores)));
        }
        if let Some(png) = self.storage.get_if_exists(CONTACT_SHEET).await? {
            let sheet = SheetFile::of(&png, &self.storage.uri(CONTACT_SHEET), album)?;
            let scores = scores::read(&self.storage).await?;
            return Ok(Some(self.subject(Content::Sheet(sheet), scores)));
        }
        Ok(None)
    }

    /// Scores alone; `None` where there is no table of them.
    async fn scores_alone(&self) -> Result<Option<Subject>> {
        Ok(match scores::are_there(&self.storage).await? {
            true => Some(self.subject(Content::Scores, scores::read(&self.storage).await?)),
            false => None,
        })
    }

    /// What lies right below it and may be a subject, by name. A folder of this machine is not searched deeper: it may be anything.
    /// In a store, everything below is listed, for want of a listing of one level; the root of one, which may hold millions of other
    /// objects, is refused.
    async fn names_below(&self) -> Result<Vec<String>> {
        let names: BTreeSet<String> = match &self.folder {
            Some(folder) => {
                let Ok(entries) = std::fs::read_dir(folder) else { return Ok(Vec::new()) };
                let folders = entries.filter_map(Result::ok).filter(|entry| entry.path().is_dir());
                folders.filter_map(|entry| entry.file_name().into_string().ok()).collect()
            }
            None => {
                if is_root(self.storage.display()) && !scores::are_there(&self.storage).await? {
                    return Err(whole_store(&self.storage).into());
                }
                let objects = self.storage.list("").await?;
                objects.iter().filter_map(|object| Some(marked_folder(&object.path)?.to_owned())).collect()
            }
        };
        Ok(names.into_iter().collect())
    }
}

/// The folder right below a place that an object marks as a subject: the owner of an output's plan, scores, or a contact sheet.
fn marked_folder(path: &str) -> Option<&str> {
    let (name, below) = path.split_once('/')?;
    let scores = below.strip_prefix(SCORES_PREFIX).is_some_and(|file| file.ends_with(".parquet"));
    (below == PLAN_OWNER_PATH || below == CONTACT_SHEET || scores).then_some(name)
}

/// The place of this machine that an address names.
fn local_folder(address: &str) -> Option<PathBuf> {
    match address.contains("://") {
        true => Url::parse(address).ok().filter(|url| url.scheme() == "file")?.to_file_path().ok(),
        false => Some(PathBuf::from(address)),
    }
}

fn is_png(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("png"))
}

/// Whether an address is that of a whole bucket, container or host.
fn is_root(address: &str) -> bool {
    Url::parse(address).is_ok_and(|url| url.path().trim_matches('/').is_empty())
}

/// The last part of an address.
fn name_of(address: &str) -> String {
    let last = address.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    if last.is_empty() { address.to_owned() } else { last.to_owned() }
}

fn nothing_known(storage: &Storage) -> PipelineError {
    PipelineError::Output {
        uri: storage.display().to_owned(),
        problem: "nothing that a report is about; expected an output of `restok tokenize`, `generate` or `evaluate`, the folder of a \
                  training, a contact sheet or another PNG file, or a folder of such things, as `restok sweep` makes"
            .to_owned(),
    }
}

fn nothing_scored(storage: &Storage) -> PipelineError {
    PipelineError::Output {
        uri: storage.display().to_owned(),
        problem: format!(
            "no scores are here; expected files {SCORES_PREFIX}score-….parquet, as `restok evaluate` and `restok sweep` write them into \
             their output, or a folder of such outputs"
        ),
    }
}

fn whole_store(storage: &Storage) -> PipelineError {
    PipelineError::Output {
        uri: storage.display().to_owned(),
        problem: "neither an output nor scores, and it is the root of a store, in which everything would have to be listed; expected \
                  the address of an output, or of a folder of outputs"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_are_decoded() {
        assert_eq!(local_folder("file:///data/a%20b"), Some(PathBuf::from("/data/a b")));
        assert_eq!(local_folder("data/100%25"), Some(PathBuf::from("data/100%25")), "a plain path is no address");
        assert_eq!(local_folder("s3://bucket/a"), None);
    }

    #[test]
    fn what_marks_a_folder_lies_right_in_it() {
        for marks in ["a/_plan/owner.json", "a/scores/score-01.parquet", "a/contact-sheet.png"] {
            assert_eq!(marked_folder(marks), Some("a"), "{marks}");
        }
        for marks_not in ["_plan/owner.json", "a/b/_plan/owner.json", "a/tokens/part.parquet", "a/scores/scores.csv"] {
            assert_eq!(marked_folder(marks_not), None, "{marks_not}");
        }
        assert!(is_root("s3://bucket") && is_root("s3://bucket/") && !is_root("s3://bucket/a"));
    }

    #[tokio::test]
    async fn the_root_of_a_store_is_not_listed() {
        let error = gather("memory:///", &Limits::default(), &mut Album::default()).await.expect_err("nothing there");
        assert!(error.to_string().contains("root of a store"), "{error}");
        let error = gather("memory:///a", &Limits::default(), &mut Album::default()).await.expect_err("nothing there");
        assert!(error.to_string().contains("nothing that a report is about"), "{error}");
    }

    #[tokio::test]
    async fn scores_are_read_of_an_output_or_of_those_right_below_a_folder() {
        let root = tempfile::tempdir().expect("a folder");
        let address = |path: &str| root.path().join(path).display().to_string();
        for (folder, evaluation) in [("all/b", "two"), ("all/a", "one"), ("all/a/deeper", "three")] {
            let storage = Storage::open_output(&address(folder), &Limits::default()).expect("a place");
            let record = EvaluationRecord {
                evaluation: evaluation.to_owned(),
                ..EvaluationRecord::new(schemas::Protocol::GfidAdm, folder)
            };
            pipeline::write_scores(&storage, &[record]).await.expect("written");
        }
        for (path, expected) in [("all", &["one", "two"][..]), ("all/a", &["one"]), ("all/a/deeper", &["three"])] {
            let lines = gather_scores(&address(path), &Limits::default()).await.expect("scores");
            let names: Vec<&str> = lines.iter().map(|line| line.evaluation.as_str()).collect();
            assert_eq!(names, expected, "{path}");
        }
        for path in ["", "nowhere"] {
            let error = gather_scores(&address(path), &Limits::default()).await.expect_err("no scores").to_string();
            assert!(error.contains(path) && error.contains("no scores are here"), "{error}");
        }
    }

    #[tokio::test]
    async fn sheets_are_subjects_alone_in_their_folder_and_below_another() {
        let root = tempfile::tempdir().expect("a folder");
        let pictures = root.path().join("pictures");
        std::fs::create_dir(&pictures).expect("a folder");
        let png = pipeline::encode_png(&[9; 12], 2, 2).expect("a picture");
        for file in ["pictures/contact-sheet.png", "pictures/one-original.png", "Grid.PNG"] {
            std::fs::write(root.path().join(file), &png).expect("written");
        }
        for (path, name) in [("pictures", "pictures"), ("Grid.PNG", "Grid.PNG"), ("", "pictures")] {
            let address = root.path().join(path).display().to_string();
            let subjects = gather(&address, &Limits::default(), &mut Album::default()).await.expect("a sheet");
            let [Subject { name: found, content: Content::Sheet(sheet), .. }] = &subjects[..] else {
                panic!("{subjects:?}")
            };
            assert_eq!(found, name);
            assert!(sheet.picture.as_ref().is_some_and(|picture| picture.width == 2), "{sheet:?}");
        }
        std::fs::write(root.path().join("Grid.PNG"), "no picture").expect("written");
        let address = root.path().join("Grid.PNG").display().to_string();
        let error = gather(&address, &Limits::default(), &mut Album::default()).await.expect_err("no picture");
        assert!(error.to_string().contains("Grid.PNG"), "{error}");
    }

    #[tokio::test]
    async fn a_folder_is_known_by_its_own_name_however_it_is_written() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().join("100% of it");
        for run in ["first run", "second"] {
            std::fs::create_dir_all(folder.join(run)).expect("a folder");
            std::fs::write(folder.join(run).join("metrics.csv"), "step,loss\n1,2.0\n").expect("written");
        }
        let url = Url::from_file_path(&folder).expect("an absolute path");
        for address in [folder.display().to_string(), url.to_string(), format!("{url}/")] {
            let subjects =
                gather(&address, &Limits::default(), &mut Album::default()).await.expect("two trainings below");
            let names: Vec<&str> = subjects.iter().map(|subject| subject.name.as_str()).collect();
            assert_eq!(names, ["first run", "second"], "{address}");
            assert!(subjects[0].address.ends_with("/100%25%20of%20it/first%20run"), "{}", subjects[0].address);
        }
    }
}
