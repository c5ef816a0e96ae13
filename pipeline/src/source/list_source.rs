//! What a source holds: found by pattern or by folder, its layout recognised, sorted and checked before anything is read.

use super::{
    FetchLimits, PinnedObject, classes, extension,
    foreign_files::{self, Foreign},
    parquet_footer, pattern,
};
use crate::{
    Limits, PipelineError,
    error::first_few,
    storage::{Listing, Storage, StoredObject, UnreachableReason},
};
use futures::{StreamExt, TryStreamExt, stream};
use glob::{MatchOptions, Pattern};
use schemas::{ImageExtensions, ImageIdRule, LabelSource, LeftOutReason, SourceAccount, SourceLayout, SourceReading};
use std::{
    cmp,
    collections::{BTreeMap, BTreeSet, HashMap},
};

/// Names shown in an error before the rest is only counted.
const NAMES_SHOWN: usize = 10;

/// What helps where a web server does not list.
const NAME_THE_FILES: &str = "name its files with a range such as {0000..1023}";

/// What to list and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceOptions {
    /// A URL or plain path: a folder, a file, or a pattern with `*`, `**`, `?` (not in URLs), `{a,b}` and `{0000..1023}`.
    pub url: String,
    /// The layout; recognised when absent.
    pub layout: Option<SourceLayout>,
    /// How keys are made, to find two files that would share one.
    pub image_id: ImageIdRule,
    /// Take only the first images, for a trial.
    pub max_images: Option<u64>,
    /// Names of the classes by label, where somebody fixes them; else they are the source's.
    pub classes: Option<Vec<String>>,
    /// How images, labels and keys are found.
    pub reading: SourceReading,
    /// Where this run writes to: what lies there is no part of the source.
    pub output: Option<String>,
}

impl SourceOptions {
    /// Everything at `url`, its layout recognised.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            layout: None,
            image_id: ImageIdRule::default(),
            max_images: None,
            classes: None,
            reading: SourceReading::default(),
            output: None,
        }
    }
}

/// What a source holds, sorted by path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceListing {
    /// The source's address without credentials; opens as the same source again.
    pub source: String,
    /// How its images lie.
    pub layout: SourceLayout,
    /// Its objects.
    pub inputs: Vec<ListedInput>,
    /// Names of the classes by label, where the layout gives them; else empty.
    pub class_names: Vec<String>,
    /// Images in all; unknown for tar shards until they are read.
    pub images: Option<u64>,
    /// What lies there beside the inputs.
    pub left_out: SourceAccount,
}

/// One object of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedInput {
    /// Full address, without credentials.
    pub uri: String,
    /// Size in bytes.
    pub size: u64,
    /// The store's version tag, where it has one.
    pub etag: Option<String>,
    /// Label, where the layout gives it by path.
    pub label: Option<i32>,
    /// Images to read of it, from its first: rows of a Parquet file, images of a tar that is not read to its end.
    pub rows: Option<u64>,
}

impl ListedInput {
    fn new(storage: &Storage, object: &StoredObject) -> Self {
        let StoredObject { path, size, etag } = object;
        Self { uri: storage.uri(path), size: *size, etag: etag.clone(), label: None, rows: None }
    }
}

/// Lists a source.
///
/// # Errors
/// When nothing matches, fewer objects than a pattern names are there (the first missing ones are named), the layout is
/// ambiguous, two files would share a key, a Parquet file has other columns, or the store fails.
pub async fn list_source(options: &SourceOptions, limits: &Limits) -> Result<SourceListing, PipelineError> {
    let (storage, pattern) = super::open_address(&options.url, limits)?;
    list_storage(&storage, &pattern, options, limits).await
}

/// Lists what matches `pattern` below a storage that is already open; all of it when the pattern is empty. The options' `url` is
/// not read.
///
/// # Errors
/// As [`list_source`].
pub async fn list_storage(
    storage: &Storage,
    pattern: &str,
    options: &SourceOptions,
    limits: &Limits,
) -> Result<SourceListing, PipelineError> {
    let source = source_address(storage, pattern);
    let wrong = |problem: String| PipelineError::Source { uri: source.clone(), problem };
    let limit = options.max_images.unwrap_or(u64::MAX);
    if limit == 0 {
        return Err(wrong("a limit of 0 images leaves nothing to do".to_owned()));
    }
    let mut left_out = SourceAccount::default();
    let found = find(storage, pattern, options, limits, &mut left_out, &wrong).await?;
    let (layout, mut objects) = choose_layout(found, options, pattern.is_empty(), &mut left_out).map_err(&wrong)?;
    let (inputs, class_names, images) = match layout {
        SourceLayout::Folder => {
            let class_names = match options.reading.labels {
                LabelSource::None => Vec::new(),
                _ => classes::of_folders(objects.iter().map(|object| object.path.as_str()), options.classes.as_deref())
                    .map_err(&wrong)?,
            };
            objects.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
            check_keys(&objects, options.image_id).map_err(&wrong)?;
            let labels: HashMap<&str, i32> = class_names.iter().map(String::as_str).zip(0..).collect();
            let input = |object: &StoredObject| {
                let label = classes::of_path(&object.path).and_then(|class| labels.get(class).copied());
                ListedInput { label, ..ListedInput::new(storage, object) }
            };
            let inputs: Vec<_> = objects.iter().map(input).collect();
            let images = inputs.len() as u64;
            (inputs, class_names, Some(images))
        }
        SourceLayout::Webdataset => {
            let mut inputs: Vec<_> = objects.iter().map(|object| ListedInput::new(storage, object)).collect();
            let mut images = None;
            if options.max_images.is_some() {
                let (sampled, counted) =
                    sample_shards(storage, &objects, inputs, &options.reading, limit, limits).await?;
                inputs = sampled;
                images = Some(counted);
            }
            (inputs, options.classes.clone().unwrap_or_default(), images)
        }
        SourceLayout::Parquet => {
            let footers = read_footers(storage, &objects, &options.reading, limits).await?;
            let names = objects.iter().map(|object| object.path.as_str()).zip(&footers);
            let names = names.map(|(path, (_, class_names))| (path, class_names.as_slice()));
            let class_names = match (options.reading.labels, &options.classes) {
                (LabelSource::None, _) => Vec::new(),
                (_, Some(given)) => classes::named_by_list(names, given).map_err(&wrong)?,
                (_, None) => classes::of_files(names).map_err(&wrong)?,
            };
            let mut left = limit;
            let mut inputs = Vec::with_capacity(objects.len());
            for (object, (rows, _)) in objects.iter().zip(&footers) {
                let rows = cmp::min(*rows, left);
                left -= rows;
                if rows > 0 {
                    inputs.push(ListedInput { rows: Some(rows), ..ListedInput::new(storage, object) });
                }
            }
            (inputs, class_names, Some(limit - left))
        }
    };
    if inputs.is_empty() {
        return Err(wrong("it holds no images".to_owned()));
    }
    if layout == SourceLayout::Folder
        && let Some(deep) = objects.iter().map(|object| &object.path).find(|path| path.matches('/').count() > 1)
    {
        tracing::warn!(
            "{deep} lies deeper than <class>/<file>: its class is its first folder. Is the source one level too high?"
        );
    }
    tracing::info!(
        source,
        layout = layout.name(),
        objects = inputs.len(),
        images,
        classes = class_names.len(),
        "listed the source"
    );
    tell(&left_out, options, layout);
    Ok(SourceListing { source, layout, inputs, class_names, images, left_out })
}

/// Says what was left out, and what would take it, where a flag does that is not given yet.
fn tell(left_out: &SourceAccount, options: &SourceOptions, layout: SourceLayout) {
    for (reason, left) in left_out.iter() {
        let (count, first, what) = (left.count, &left.first, reason.describe());
        // Beside shards and Parquet files lie readmes and the like.
        let is_usual = reason == LeftOutReason::OtherFile && layout != SourceLayout::Folder;
        let advice = match reason {
            LeftOutReason::OtherFile if !is_usual && options.reading.image_extensions == ImageExtensions::Usual => {
                "; --image-extensions any takes every file and tells by its first bytes what it is"
            }
            LeftOutReason::OwnOutput => "; what restok wrote is never its own source",
            _ => "",
        };
        if reason.is_a_worry() && !is_usual {
            tracing::warn!(count, first, "left out: {what}{advice}");
        } else {
            tracing::info!(count, first, "left out: {what}{advice}");
        }
    }
}

/// The address that opens as the same storage and pattern again.
fn source_address(storage: &Storage, pattern: &str) -> String {
    // What stands for itself in the folder's name must not be read as a wildcard.
    let folder = storage.uri("").replace('*', "%2A").replace('[', "%5B").replace('{', "%7B");
    let folder = folder.trim_end_matches('/');
    if pattern.is_empty() { format!("{folder}/") } else { format!("{folder}/{}", pattern.replace('%', "%25")) }
}

/// The objects that `pattern` names, sorted, each once.
async fn find(
    storage: &Storage,
    pattern: &str,
    options: &SourceOptions,
    limits: &Limits,
    left_out: &mut SourceAccount,
    wrong: &impl Fn(String) -> PipelineError,
) -> Result<Vec<StoredObject>, PipelineError> {
    let names = pattern::expand_braces(pattern).map_err(wrong)?;
    let wild = pattern.is_empty() || names.iter().any(|name| pattern::has_wildcard(name));
    let mut missing = Vec::new();
    let mut found = BTreeSet::new();
    if wild {
        let Listing { objects: listed, unreachable } = list_folder(storage).await?;
        let foreign = Foreign::find(&listed, own_output(storage, options)?, pattern.is_empty());
        let (mut named, mut others) = (Vec::with_capacity(listed.len()), unreachable.len() as u64);
        for entry in unreachable {
            match foreign.reason(&entry.shown) {
                Some(reason) => left_out.count(reason, || entry.shown),
                // Whoever may not look into a folder does not know what is missing.
                None if entry.reason == UnreachableReason::Closed => {
                    return Err(wrong(format!("{entry}: have it opened")));
                }
                None => left_out.count(LeftOutReason::Unreachable, || entry.to_string()),
            }
        }
        for object in listed {
            match foreign.reason(&object.path) {
                None => named.push(object),
                Some(reason) => {
                    others += 1;
                    left_out.count(reason, || storage.uri(&object.path));
                }
            }
        }
        if pattern.is_empty() {
            found.extend(named);
        } else {
            for name in names {
                let glob = Pattern::new(&name).map_err(|error| wrong(format!("{name}: {error}")))?;
                // A star does not reach into folders; two stars do.
                let options = MatchOptions {
                    case_sensitive: true,
                    require_literal_separator: true,
                    require_literal_leading_dot: true,
                };
                let before = found.len();
                let mut matches =
                    named.iter().filter(|object| glob.matches_with(&object.path, options)).cloned().peekable();
                if matches.peek().is_none() {
                    missing.push(name);
                    continue;
                }
                found.extend(matches);
                tracing::debug!(name, new = found.len() - before, "matched");
            }
        }
        if found.is_empty() && missing.is_empty() && others > 0 {
            let shown: Vec<_> =
                left_out.iter().map(|(reason, left)| format!("{} {}", left.count, reason.describe())).collect();
            return Err(wrong(format!("nothing is there but {}", shown.join(", "))));
        }
    } else {
        let heads = stream::iter(names)
            .map(|name| async move { Ok::<_, PipelineError>((storage.head_if_exists(&name).await?, name)) });
        let heads: Vec<_> = heads.buffered(limits.fetch_requests.max(1)).try_collect().await?;
        for (object, name) in heads {
            match object {
                Some(object) => drop(found.insert(object)),
                None => missing.push(name),
            }
        }
    }
    if let ([name], true) = (missing.as_slice(), found.is_empty()) {
        let hint = if wild { "" } else { "; for a folder of that name, end the address with a slash" };
        return Err(wrong(format!("{name} is not there{hint}")));
    }
    if !missing.is_empty() {
        let shown = first_few(&missing, NAMES_SHOWN);
        return Err(wrong(format!("{} of the names in the pattern match nothing: {shown}", missing.len())));
    }
    if found.is_empty() {
        return Err(wrong(nothing_there(storage).await));
    }
    Ok(found.into_iter().collect())
}

/// Where the run's own output lies below the source, if it does: empty where it is the source.
fn own_output(storage: &Storage, options: &SourceOptions) -> Result<Option<String>, PipelineError> {
    let Some(output) = &options.output else { return Ok(None) };
    let output = Storage::shown_address(output)?;
    match output.trim_end_matches('/') == storage.display().trim_end_matches('/') {
        true => Ok(Some(String::new())),
        false => Ok(storage.path_of(&output)),
    }
}

/// What to say of an address below which nothing lies.
async fn nothing_there(storage: &Storage) -> String {
    if storage.display().starts_with("http") {
        return format!("nothing is there: {NAME_THE_FILES}");
    }
    match storage.head_if_exists("").await {
        Ok(Some(object)) => format!(
            "it is one file of {} bytes, expected a folder, a file with an image's extension, .tar or .parquet",
            object.size
        ),
        _ => "nothing is there: check the address, and that the credentials may list it".to_owned(),
    }
}

async fn list_folder(storage: &Storage) -> Result<Listing, PipelineError> {
    storage.list_all("").await.map_err(|error| {
        if error.is_temporary() || !storage.display().starts_with("http") {
            return error;
        }
        let problem = format!("this server cannot list a folder: {NAME_THE_FILES} ({error})");
        PipelineError::Source { uri: storage.display().to_owned(), problem }
    })
}

/// Keeps the objects of one layout: the one asked for, or the only one there is.
fn choose_layout(
    objects: Vec<StoredObject>,
    options: &SourceOptions,
    whole: bool,
    left_out: &mut SourceAccount,
) -> Result<(SourceLayout, Vec<StoredObject>), String> {
    let extensions = &options.reading.image_extensions;
    let mut by_layout: BTreeMap<&str, (SourceLayout, Vec<StoredObject>)> = BTreeMap::new();
    let mut others: Vec<StoredObject> = Vec::new();
    for object in objects {
        let extension = extension(&object.path);
        let layout = match extension.as_deref() {
            Some("tar") => SourceLayout::Webdataset,
            Some("parquet") => SourceLayout::Parquet,
            extension if extensions.contain(extension) => SourceLayout::Folder,
            _ => {
                others.push(object);
                continue;
            }
        };
        by_layout.entry(layout.name()).or_insert_with(|| (layout, Vec::new())).1.push(object);
    }
    let chosen = match (options.layout, by_layout.len()) {
        (Some(layout), _) if by_layout.contains_key(layout.name()) => layout,
        // Nothing there has an image's name, and images are what was asked for: their bytes tell.
        (Some(SourceLayout::Folder), _) if *extensions == ImageExtensions::Usual && !others.is_empty() => {
            tracing::info!(
                files = others.len(),
                "no file has an image's extension: all are taken, and their first bytes tell what they are"
            );
            by_layout.insert(SourceLayout::Folder.name(), (SourceLayout::Folder, std::mem::take(&mut others)));
            SourceLayout::Folder
        }
        (Some(layout), _) => {
            return Err(format!(
                "no files of the layout {layout} (.tar for webdataset, .parquet for parquet, images for folder); found {}",
                counts(&by_layout, &others)
            ));
        }
        (None, 1) => match by_layout.values().next() {
            Some((layout, _)) => *layout,
            None => return Err("it holds no images".to_owned()),
        },
        (None, 0) => {
            let packed = others
                .iter()
                .filter_map(|object| extension(&object.path))
                .any(|name| matches!(name.as_str(), "gz" | "tgz" | "zst" | "bz2" | "xz" | "zip" | "7z" | "rar"));
            let hint = match packed {
                true => ": compressed archives are not read, write them as plain .tar",
                false => {
                    ": --layout folder takes files of any name for images, and tells by their first bytes what they are"
                }
            };
            return Err(format!("no images, .tar or .parquet files; found {}{hint}", counts(&by_layout, &others)));
        }
        (None, _) => {
            return Err(format!(
                "more than one layout: {}; choose one with --layout, or narrow the address with a pattern",
                counts(&by_layout, &others)
            ));
        }
    };
    let (_, kept) = by_layout.remove(chosen.name()).unwrap_or((chosen, Vec::new()));
    let kept = match chosen {
        SourceLayout::Parquet => foreign_files::tables(kept, &others, whole, left_out)?,
        _ => kept,
    };
    for object in by_layout.into_values().flat_map(|(_, objects)| objects) {
        left_out.count(LeftOutReason::OtherLayout, || object.path);
    }
    for object in others {
        let usual = ImageExtensions::Usual.contain(extension(&object.path).as_deref());
        let reason = if usual { LeftOutReason::OtherExtension } else { LeftOutReason::OtherFile };
        left_out.count(reason, || object.path);
    }
    Ok((chosen, kept))
}

/// How many files there are of each layout, and of each other extension.
fn counts(by_layout: &BTreeMap<&str, (SourceLayout, Vec<StoredObject>)>, others: &[StoredObject]) -> String {
    let mut by_extension: BTreeMap<String, usize> = BTreeMap::new();
    for object in others {
        let name = extension(&object.path).map_or("without extension".to_owned(), |name| format!(".{name}"));
        *by_extension.entry(name).or_default() += 1;
    }
    let layouts = by_layout.iter().map(|(name, (_, objects))| format!("{} of {name}", objects.len()));
    // The most frequent ones say what it is.
    let mut by_count: Vec<_> = by_extension.into_iter().collect();
    by_count.sort_by_key(|(_, count)| cmp::Reverse(*count));
    let rest = by_count.len().saturating_sub(NAMES_SHOWN);
    let others = by_count.into_iter().take(NAMES_SHOWN).map(|(name, count)| format!("{count} {name}"));
    let rest = (rest > 0).then(|| format!("and {rest} more extensions"));
    layouts.chain(others).chain(rest).collect::<Vec<_>>().join(", ")
}

/// Two images of one key could not be told apart in the tables.
fn check_keys(objects: &[StoredObject], rule: ImageIdRule) -> Result<(), String> {
    let mut seen: HashMap<String, &str> = HashMap::with_capacity(objects.len());
    for object in objects {
        let key = rule.of_file(&object.path);
        if let Some(other) = seen.insert(key.clone(), &object.path) {
            let advice = match rule {
                ImageIdRule::Stem => "use --image-id path, or position, which tells any two apart",
                ImageIdRule::Path => "use --image-id position, which keeps the extension",
                ImageIdRule::Position => "the listing names one file twice",
            };
            return Err(format!("{other} and {} would both be image {key:?}: {advice}", object.path));
        }
    }
    Ok(())
}

/// Rows and class names of every file, in order.
async fn read_footers(
    storage: &Storage,
    objects: &[StoredObject],
    reading: &SourceReading,
    limits: &Limits,
) -> Result<Vec<(u64, Vec<String>)>, PipelineError> {
    let pinned: Vec<_> = objects.iter().map(|object| PinnedObject::of_listing(storage, object)).collect();
    let warned = std::sync::Once::new();
    let warned = &warned;
    let footers = stream::iter(pinned).map(|object| async move {
        let footer = parquet_footer::read_footer(&object, reading).await?;
        if let Some(advice) = footer.label_advice() {
            warned.call_once(|| tracing::warn!("{}: {advice}", object.uri()));
        }
        Ok((footer.rows(), footer.class_names()))
    });
    footers.buffered(limits.fetch_requests.max(1)).try_collect().await
}

/// The shards that hold the first `limit` images, read as far as that.
async fn sample_shards(
    storage: &Storage,
    objects: &[StoredObject],
    inputs: Vec<ListedInput>,
    reading: &SourceReading,
    limit: u64,
    limits: &Limits,
) -> Result<(Vec<ListedInput>, u64), PipelineError> {
    let fetch = FetchLimits::new(limits);
    let (mut sampled, mut left) = (Vec::new(), limit);
    for (object, input) in objects.iter().zip(inputs) {
        if left == 0 {
            break;
        }
        let object = PinnedObject::of_listing(storage, object);
        let found = super::read_webdataset::count_images(storage, object, fetch.clone(), reading, left).await?;
        // A shard of which all are wanted is read to its end, whatever follows its last sample.
        let rows = (found == left).then_some(found);
        left -= found;
        sampled.push(ListedInput { rows, ..input });
    }
    Ok((sampled, limit - left))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(path: &str) -> StoredObject {
        StoredObject { path: path.to_owned(), size: 1, etag: None }
    }

    #[test]
    fn a_layout_is_chosen_only_when_it_is_the_only_one() {
        let files = |paths: &[&str]| paths.iter().map(|path| object(path)).collect::<Vec<_>>();
        let choose = |paths: &[&str], layout: Option<SourceLayout>| {
            let mut left_out = SourceAccount::default();
            let options = SourceOptions { layout, ..SourceOptions::new("") };
            choose_layout(files(paths), &options, true, &mut left_out).map(|(layout, kept)| (layout, kept, left_out))
        };
        let (layout, kept, left_out) =
            choose(&["a/1.JPEG", "a/notes.txt", "LICENSE", "x.tar"], Some(SourceLayout::Folder)).expect("images");
        assert_eq!((layout, kept), (SourceLayout::Folder, files(&["a/1.JPEG"])));
        assert_eq!((left_out.of(LeftOutReason::OtherFile), left_out.of(LeftOutReason::OtherLayout)), (2, 1));
        let error = choose(&["a.tar", "b.parquet"], None).expect_err("two layouts");
        assert!(error.contains("--layout") && error.contains("1 of parquet, 1 of webdataset"), "{error}");
        let (layout, ..) = choose(&["a.tar", "b.parquet"], Some(SourceLayout::Parquet)).expect("as asked");
        assert_eq!(layout, SourceLayout::Parquet);
        let error = choose(&["a.tar.gz"], None).expect_err("packed");
        assert!(error.contains("plain .tar"), "{error}");
        let error = choose(&["a.png"], Some(SourceLayout::Webdataset)).expect_err("not there");
        assert!(error.contains("1 of folder"), "{error}");
        let error = choose(&["a", "b"], None).expect_err("no extension");
        assert!(error.contains("--layout folder"), "{error}");
        let (_, kept, left_out) = choose(&["a", "b"], Some(SourceLayout::Folder)).expect("told by their bytes");
        assert!(kept.len() == 2 && left_out.is_empty(), "{kept:?}");
    }

    #[test]
    fn images_of_one_key_are_refused_by_name() {
        let objects = [object("cats/001.jpg"), object("dogs/001.jpg")];
        let error = check_keys(&objects, ImageIdRule::Stem).expect_err("one stem twice");
        assert!(error.contains("cats/001.jpg and dogs/001.jpg") && error.contains("--image-id path"), "{error}");
        check_keys(&objects, ImageIdRule::Path).expect("paths differ");
        let objects = [object("cats/001.jpg"), object("cats/001.png")];
        let error = check_keys(&objects, ImageIdRule::Path).expect_err("one path without extension");
        assert!(error.contains("--image-id position"), "{error}");
        check_keys(&objects, ImageIdRule::Position).expect("any two differ");
    }
}
