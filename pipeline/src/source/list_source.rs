//! What a source holds: found by pattern or by folder, its layout recognised, sorted and checked before anything is read.

use super::{
    FetchLimits, PinnedObject, classes, extension,
    foreign_files::{self, Foreign},
    parquet_footer::{self, FileFooter},
    pattern::{self, Wildcard},
    sorted_objects::SortedObjects,
};
use crate::{
    Limits, PipelineError,
    error::first_few,
    storage::{Listed, Storage, StoredObject, UnreachableReason},
    unique_ids::IdHashes,
};
use futures::{StreamExt, TryStreamExt, stream};
use schemas::{
    ImageExtensions, ImageIdRule, LabelSource, LeftOutReason, PackedList, SourceAccount, SourceLayout, SourceReading,
};
use serde::{Deserialize, Serialize};
use std::{
    cmp,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
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
    pub inputs: PackedList<ListedInput>,
    /// Names of the classes by label, where the layout gives them; else empty.
    pub class_names: Vec<String>,
    /// Images in all; unknown for tar shards until they are read.
    pub images: Option<u64>,
    /// What lies there beside the inputs.
    pub left_out: SourceAccount,
}

/// One object of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedInput {
    /// Full address, without credentials.
    pub uri: String,
    /// Size in bytes.
    pub size: u64,
    /// The store's version tag, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// Label, where the layout gives it by path.
    pub label: Option<i32>,
    /// Images to read of it, from its first: rows of a Parquet file, images of a tar that is not read to its end.
    pub rows: Option<u64>,
}

impl ListedInput {
    fn new(storage: &Storage, object: StoredObject) -> Self {
        let StoredObject { path, size, etag } = object;
        Self { uri: storage.uri(&path), size, etag, label: None, rows: None }
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
    let (layout, objects) = choose_layout(found, options, pattern.is_empty(), &mut left_out).map_err(&wrong)?;
    let (inputs, class_names, images) = match layout {
        SourceLayout::Folder => {
            let most = usize::try_from(limit).unwrap_or(usize::MAX);
            // All that a listing is looked through for, at once.
            let (mut folders, mut keys, mut deep) = (BTreeSet::new(), IdHashes::default(), None);
            for (number, StoredObject { path, .. }) in objects.iter().enumerate() {
                if let Some(class) = classes::of_path(&path).filter(|class| !folders.contains(*class)) {
                    folders.insert(class.to_owned());
                }
                if number < most {
                    keys.add([options.image_id.of_file(&path).as_str()]);
                    deep = deep.or_else(|| is_deep(&path).then_some(path));
                }
            }
            let class_names = match options.reading.labels {
                LabelSource::None => Vec::new(),
                _ => classes::of_folders(folders, options.classes.as_deref()).map_err(&wrong)?,
            };
            let paths = objects.iter().take(most).map(|object| object.path);
            check_keys(keys, paths, options.image_id).map_err(&wrong)?;
            if let Some(deep) = deep {
                tracing::warn!(
                    "{deep} lies deeper than <class>/<file>: its class is its first folder. Is the source one level too high?"
                );
            }
            let labels: HashMap<&str, i32> = class_names.iter().map(String::as_str).zip(0..).collect();
            let input = |object: StoredObject| {
                let label = classes::of_path(&object.path).and_then(|class| labels.get(class).copied());
                ListedInput { label, ..ListedInput::new(storage, object) }
            };
            let inputs: PackedList<_> = objects.into_iter().take(most).map(input).collect();
            let images = inputs.len() as u64;
            (inputs, class_names, Some(images))
        }
        SourceLayout::Webdataset => {
            let (inputs, images) = match options.max_images {
                None => (objects.into_iter().map(|object| ListedInput::new(storage, object)).collect(), None),
                Some(_) => {
                    let (inputs, images) = sample_shards(storage, objects, &options.reading, limit, limits).await?;
                    (inputs, Some(images))
                }
            };
            (inputs, options.classes.clone().unwrap_or_default(), images)
        }
        SourceLayout::Parquet => {
            let footers = read_footers(storage, &objects, &options.reading, limits).await?;
            let class_names = match (options.reading.labels, &options.classes) {
                (LabelSource::None, _) => Vec::new(),
                (_, Some(given)) => classes::named_by_list(&footers, given).map_err(&wrong)?,
                (_, None) => classes::of_files(&footers).map_err(&wrong)?,
            };
            let mut left = limit;
            let mut inputs = PackedList::default();
            for (object, footer) in objects.into_iter().zip(&footers) {
                let rows = cmp::min(footer.rows, left);
                left -= rows;
                if rows > 0 {
                    inputs.push(&ListedInput { rows: Some(rows), ..ListedInput::new(storage, object) });
                }
            }
            (inputs, class_names, Some(limit - left))
        }
    };
    if inputs.is_empty() {
        return Err(wrong("it holds no images".to_owned()));
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
                "; `image_extensions` any takes every file and tells by its first bytes what it is"
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
) -> Result<PackedList<StoredObject>, PipelineError> {
    let names = pattern::expand_braces(pattern).map_err(wrong)?;
    let wild = pattern.is_empty() || names.iter().any(|name| pattern::has_wildcard(name));
    let (found, missing) = if wild {
        let (objects, foreign) = list_folder(storage, pattern.is_empty(), options, left_out, wrong).await?;
        let in_set = objects.retain(|object| match foreign.reason(&object.path) {
            None => true,
            Some(reason) => {
                left_out.count(reason, || storage.uri(&object.path));
                false
            }
        });
        let (found, missing) = match pattern.is_empty() {
            true => (in_set, Vec::new()),
            false => matching(in_set, names).map_err(wrong)?,
        };
        if found.is_empty() && missing.is_empty() && !left_out.is_empty() {
            let shown: Vec<_> =
                left_out.iter().map(|(reason, left)| format!("{} {}", left.count, reason.describe())).collect();
            return Err(wrong(format!("nothing is there but {}", shown.join(", "))));
        }
        (found, missing)
    } else {
        look_up(storage, names, limits).await?
    };
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
    Ok(found)
}

/// Everything in a folder that can be read, sorted, and what of it is no part of the set.
async fn list_folder(
    storage: &Storage,
    whole: bool,
    options: &SourceOptions,
    left_out: &mut SourceAccount,
    wrong: &impl Fn(String) -> PipelineError,
) -> Result<(PackedList<StoredObject>, Foreign), PipelineError> {
    let mut foreign = Foreign::new(own_output(storage, options)?, whole);
    let (mut objects, mut unreachable) = (SortedObjects::default(), Vec::new());
    let mut entries = storage.list_stream("");
    while let Some(entry) = entries.try_next().await.map_err(|error| listing_error(storage, error))? {
        match entry {
            Listed::Object(object) => {
                foreign.note(&object.path);
                objects.push(object);
            }
            Listed::Unreachable(entry) => unreachable.push(entry),
        }
    }
    unreachable.sort_unstable();
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
    Ok((objects.finish(), foreign))
}

/// The objects that one of some patterns matches, and the patterns that match none.
///
/// # Errors
/// In words, when one is no pattern.
fn matching(
    objects: PackedList<StoredObject>,
    names: Vec<String>,
) -> Result<(PackedList<StoredObject>, Vec<String>), String> {
    let wildcard = |name: String| Ok::<_, String>((Wildcard::new(&name)?, name, false));
    let mut wildcards = names.into_iter().map(wildcard).collect::<Result<Vec<_>, _>>()?;
    let found = objects.retain(|object| {
        let mut any = false;
        for (wildcard, _, matched) in &mut wildcards {
            let matches = wildcard.matches(&object.path);
            *matched |= matches;
            any |= matches;
        }
        any
    });
    Ok((found, wildcards.into_iter().filter(|(.., matched)| !matched).map(|(_, name, _)| name).collect()))
}

/// The objects of some names, sorted, each once; and the names that are not there.
async fn look_up(
    storage: &Storage,
    names: Vec<String>,
    limits: &Limits,
) -> Result<(PackedList<StoredObject>, Vec<String>), PipelineError> {
    let (mut found, mut missing) = (SortedObjects::default(), Vec::new());
    let heads = stream::iter(names)
        .map(|name| async move { Ok::<_, PipelineError>((storage.head_if_exists(&name).await?, name)) });
    let mut heads = heads.buffered(limits.fetch_requests.max(1));
    while let Some((object, name)) = heads.try_next().await? {
        match object {
            Some(object) => found.push(object),
            None => missing.push(name),
        }
    }
    Ok((found.finish(), missing))
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

/// What to say where a folder cannot be listed.
fn listing_error(storage: &Storage, error: PipelineError) -> PipelineError {
    if error.is_temporary() || !storage.display().starts_with("http") {
        return error;
    }
    let problem = format!("this server cannot list a folder: {NAME_THE_FILES} ({error})");
    PipelineError::Source { uri: storage.display().to_owned(), problem }
}

/// The layout that the name of an object tells.
fn layout_of(path: &str, extensions: &ImageExtensions) -> Option<SourceLayout> {
    match extension(path).as_deref() {
        Some("tar") => Some(SourceLayout::Webdataset),
        Some("parquet") => Some(SourceLayout::Parquet),
        extension => extensions.contain(extension).then_some(SourceLayout::Folder),
    }
}

/// Keeps the objects of one layout: the one asked for, or the only one there is.
fn choose_layout(
    objects: PackedList<StoredObject>,
    options: &SourceOptions,
    whole: bool,
    left_out: &mut SourceAccount,
) -> Result<(SourceLayout, PackedList<StoredObject>), String> {
    let extensions = &options.reading.image_extensions;
    let (mut by_layout, mut others) = (BTreeMap::new(), 0_u64);
    for object in objects.iter() {
        match layout_of(&object.path, extensions) {
            Some(layout) => by_layout.entry(layout.name()).or_insert((layout, 0_u64)).1 += 1,
            None => others += 1,
        }
    }
    let found = || counts(&objects, &by_layout, extensions);
    let mut takes_any = false;
    let chosen = match (options.layout, by_layout.len()) {
        (Some(layout), _) if by_layout.contains_key(layout.name()) => layout,
        // Nothing there has an image's name, and images are what was asked for: their bytes tell.
        (Some(SourceLayout::Folder), _) if *extensions == ImageExtensions::Usual && others > 0 => {
            tracing::info!(
                files = others,
                "no file has an image's extension: all are taken, and their first bytes tell what they are"
            );
            takes_any = true;
            SourceLayout::Folder
        }
        (Some(layout), _) => {
            return Err(format!(
                "no files of the layout {layout} (.tar for webdataset, .parquet for parquet, images for folder); found {}",
                found()
            ));
        }
        (None, 1) => match by_layout.values().next() {
            Some((layout, _)) => *layout,
            None => return Err("it holds no images".to_owned()),
        },
        (None, 0) => {
            let is_archive =
                |name: String| matches!(name.as_str(), "gz" | "tgz" | "zst" | "bz2" | "xz" | "zip" | "7z" | "rar");
            let packed = objects.iter().filter_map(|object| extension(&object.path)).any(is_archive);
            let hint = match packed {
                true => ": compressed archives are not read, write them as plain .tar",
                false => {
                    ": `layout` folder takes files of any name for images, and tells by their first bytes what they are"
                }
            };
            return Err(format!("no images, .tar or .parquet files; found {}{hint}", found()));
        }
        (None, _) => {
            return Err(format!(
                "more than one layout: {}; choose one with `layout`, or narrow the address with a pattern",
                found()
            ));
        }
    };
    if chosen == SourceLayout::Parquet {
        // Shards and pictures beside them say nothing about tables.
        let beside =
            objects.iter().filter(|object| layout_of(&object.path, extensions).is_none_or(|layout| layout == chosen));
        foreign_files::refuse_logged_table(beside.map(|object| object.path))?;
    }
    let kept = objects.retain(|StoredObject { path, .. }| {
        let reason = match layout_of(path, extensions) {
            Some(SourceLayout::Parquet) if chosen == SourceLayout::Parquet => {
                foreign_files::is_leftover_of_table(path, whole).then_some(LeftOutReason::Leftover)
            }
            Some(layout) => (layout != chosen).then_some(LeftOutReason::OtherLayout),
            None if takes_any => None,
            None => Some(match ImageExtensions::Usual.contain(extension(path).as_deref()) {
                true => LeftOutReason::OtherExtension,
                false => LeftOutReason::OtherFile,
            }),
        };
        if let Some(reason) = reason {
            left_out.count(reason, || path.clone());
        }
        reason.is_none()
    });
    if kept.is_empty() {
        return Err("all of its Parquet files have an underscore in their path, as what Spark leaves behind".to_owned());
    }
    Ok((chosen, kept))
}

/// How many files there are of each layout, and of each other extension.
fn counts(
    objects: &PackedList<StoredObject>,
    by_layout: &BTreeMap<&str, (SourceLayout, u64)>,
    extensions: &ImageExtensions,
) -> String {
    let mut by_extension: BTreeMap<String, u64> = BTreeMap::new();
    for object in objects.iter().filter(|object| layout_of(&object.path, extensions).is_none()) {
        let name = extension(&object.path).map_or("without extension".to_owned(), |name| format!(".{name}"));
        *by_extension.entry(name).or_default() += 1;
    }
    let layouts = by_layout.iter().map(|(name, (_, count))| format!("{count} of {name}"));
    // The most frequent ones say what it is.
    let mut by_count: Vec<_> = by_extension.into_iter().collect();
    by_count.sort_by_key(|(_, count)| cmp::Reverse(*count));
    let rest = by_count.len().saturating_sub(NAMES_SHOWN);
    let others = by_count.into_iter().take(NAMES_SHOWN).map(|(name, count)| format!("{count} {name}"));
    let rest = (rest > 0).then(|| format!("and {rest} more extensions"));
    layouts.chain(others).chain(rest).collect::<Vec<_>>().join(", ")
}

/// Whether a path is deeper than `<class>/<file>`.
fn is_deep(path: &str) -> bool {
    path.matches('/').count() > 1
}

/// Two images of one key could not be told apart in the tables. `paths` are looked through only where two of `keys` have one hash.
fn check_keys(keys: IdHashes, paths: impl Iterator<Item = String>, rule: ImageIdRule) -> Result<(), String> {
    let mut repeated = keys.into_repeated();
    if repeated.is_empty() {
        return Ok(());
    }
    for path in paths {
        if let Some((key, other)) = repeated.add(&path, [rule.of_file(&path).as_str()]).into_iter().next() {
            let advice = match rule {
                ImageIdRule::Stem => "use `image_id` path, or position, which tells any two apart",
                ImageIdRule::Path => "use `image_id` position, which keeps the extension",
                ImageIdRule::Position => "the listing names one file twice",
            };
            return Err(format!("{other} and {path} would both be image {key:?}: {advice}"));
        }
    }
    Ok(())
}

/// Rows and class names of every file, in order.
async fn read_footers(
    storage: &Storage,
    objects: &PackedList<StoredObject>,
    reading: &SourceReading,
    limits: &Limits,
) -> Result<Vec<FileFooter>, PipelineError> {
    let warned = std::sync::Once::new();
    let warned = &warned;
    let footers = stream::iter(objects.iter()).map(|object| async move {
        let pinned = PinnedObject::of_listing(storage, &object);
        let footer = parquet_footer::read_footer(&pinned, reading).await?;
        if let Some(advice) = footer.label_advice() {
            warned.call_once(|| tracing::warn!("{}: {advice}", pinned.uri()));
        }
        Ok::<_, PipelineError>((object.path, footer.rows(), footer.class_names()))
    });
    let mut footers = footers.buffered(limits.fetch_requests.max(1));
    let mut read: Vec<FileFooter> = Vec::with_capacity(objects.len());
    while let Some((path, rows, names)) = footers.try_next().await? {
        let class_names = match read.last() {
            Some(last) if *last.class_names == *names => Arc::clone(&last.class_names),
            _ => names.into(),
        };
        read.push(FileFooter { path, rows, class_names });
    }
    Ok(read)
}

/// The shards that hold the first `limit` images, read as far as that; and how many images those are.
async fn sample_shards(
    storage: &Storage,
    objects: PackedList<StoredObject>,
    reading: &SourceReading,
    limit: u64,
    limits: &Limits,
) -> Result<(PackedList<ListedInput>, u64), PipelineError> {
    let fetch = FetchLimits::new(limits);
    let (mut sampled, mut left) = (PackedList::default(), limit);
    for object in objects {
        if left == 0 {
            break;
        }
        let pinned = PinnedObject::of_listing(storage, &object);
        let found = super::read_webdataset::count_images(storage, pinned, fetch.clone(), reading, left).await?;
        // A shard of which all are wanted is read to its end, whatever follows its last sample.
        let rows = (found == left).then_some(found);
        left -= found;
        sampled.push(&ListedInput { rows, ..ListedInput::new(storage, object) });
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
        let files = |paths: &[&str]| paths.iter().map(|path| object(path)).collect::<PackedList<_>>();
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
        assert!(error.contains("`layout`") && error.contains("1 of parquet, 1 of webdataset"), "{error}");
        let (layout, ..) = choose(&["a.tar", "b.parquet"], Some(SourceLayout::Parquet)).expect("as asked");
        assert_eq!(layout, SourceLayout::Parquet);
        let error = choose(&["a.tar.gz"], None).expect_err("packed");
        assert!(error.contains("plain .tar"), "{error}");
        let error = choose(&["a.png"], Some(SourceLayout::Webdataset)).expect_err("not there");
        assert!(error.contains("1 of folder"), "{error}");
        let error = choose(&["a", "b"], None).expect_err("no extension");
        assert!(error.contains("`layout` folder"), "{error}");
        let (_, kept, left_out) = choose(&["a", "b"], Some(SourceLayout::Folder)).expect("told by their bytes");
        assert!(kept.len() == 2 && left_out.is_empty(), "{kept:?}");
    }

    #[test]
    fn images_of_one_key_are_refused_by_name() {
        let check_keys = |paths: [&str; 2], rule: ImageIdRule| {
            let mut keys = IdHashes::default();
            paths.iter().for_each(|path| keys.add([rule.of_file(path).as_str()]));
            check_keys(keys, paths.map(str::to_owned).into_iter(), rule)
        };
        let paths = ["cats/001.jpg", "dogs/001.jpg"];
        let error = check_keys(paths, ImageIdRule::Stem).expect_err("one stem twice");
        assert!(error.contains("cats/001.jpg and dogs/001.jpg") && error.contains("`image_id` path"), "{error}");
        check_keys(paths, ImageIdRule::Path).expect("paths differ");
        let paths = ["cats/001.jpg", "cats/001.png"];
        let error = check_keys(paths, ImageIdRule::Path).expect_err("one path without extension");
        assert!(error.contains("`image_id` position"), "{error}");
        check_keys(paths, ImageIdRule::Position).expect("any two differ");
    }
}
