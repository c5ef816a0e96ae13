//! What a source holds: found by pattern or by folder, its layout recognised, sorted and checked before anything is read.

use super::{FetchLimits, PinnedObject, extension, is_image, parquet_footer, pattern};
use crate::{
    Limits, PipelineError,
    storage::{Storage, StoredObject},
};
use futures::{StreamExt, TryStreamExt, stream};
use glob::{MatchOptions, Pattern};
use schemas::{ImageIdRule, SourceLayout};
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
}

impl SourceOptions {
    /// Everything at `url`, its layout recognised.
    pub fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), layout: None, image_id: ImageIdRule::default(), max_images: None }
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
    /// Images to read of it, from its first: rows of a Parquet file, samples of a tar that is not read to its end.
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
    let found = find(storage, pattern, limits, &wrong).await?;
    let (layout, mut objects) = choose_layout(found, options.layout).map_err(&wrong)?;
    let limit = options.max_images.unwrap_or(u64::MAX);
    if limit == 0 {
        return Err(wrong("a limit of 0 images leaves nothing to do".to_owned()));
    }
    let (inputs, class_names, images) = match layout {
        SourceLayout::Folder => {
            let class_names = class_names(&objects);
            objects.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
            check_keys(&objects, options.image_id).map_err(&wrong)?;
            let input = |object: &StoredObject| -> Result<ListedInput, PipelineError> {
                let position = class_of(&object.path)
                    .and_then(|class| class_names.binary_search_by(|name| name.as_str().cmp(class)).ok());
                let label = position.map(i32::try_from).transpose();
                let label = label.map_err(|_| wrong(format!("{} classes are too many", class_names.len())))?;
                Ok(ListedInput { label, ..ListedInput::new(storage, object) })
            };
            let inputs = objects.iter().map(input).collect::<Result<Vec<_>, _>>()?;
            let images = inputs.len() as u64;
            (inputs, class_names, Some(images))
        }
        SourceLayout::Webdataset => {
            let mut inputs: Vec<_> = objects.iter().map(|object| ListedInput::new(storage, object)).collect();
            let mut images = None;
            if options.max_images.is_some() {
                let (sampled, counted) = sample_shards(storage, &objects, inputs, limit, limits).await?;
                inputs = sampled;
                images = Some(counted);
            }
            (inputs, Vec::new(), images)
        }
        SourceLayout::Parquet => {
            let footers = read_footers(storage, &objects, limits).await?;
            let class_names = footers.first().map(|(_, names)| names.clone()).unwrap_or_default();
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
    Ok(SourceListing { source, layout, inputs, class_names, images })
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
    limits: &Limits,
    wrong: &impl Fn(String) -> PipelineError,
) -> Result<Vec<StoredObject>, PipelineError> {
    let names = pattern::expand_braces(pattern).map_err(wrong)?;
    let wild = pattern.is_empty() || names.iter().any(|name| pattern::has_wildcard(name));
    let mut missing = Vec::new();
    let mut found = BTreeSet::new();
    if wild {
        let listed = list_folder(storage).await?;
        let listed: Vec<_> = listed.into_iter().filter(|object| !is_hidden(&object.path)).collect();
        if pattern.is_empty() {
            found.extend(listed);
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
                    listed.iter().filter(|object| glob.matches_with(&object.path, options)).cloned().peekable();
                if matches.peek().is_none() {
                    missing.push(name);
                    continue;
                }
                found.extend(matches);
                tracing::debug!(name, new = found.len() - before, "matched");
            }
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
        let shown = missing.iter().take(NAMES_SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
        let rest = missing.len().saturating_sub(NAMES_SHOWN);
        let rest = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        return Err(wrong(format!("{} of the names in the pattern match nothing: {shown}{rest}", missing.len())));
    }
    if found.is_empty() {
        let advice = if storage.display().starts_with("http") {
            NAME_THE_FILES
        } else {
            "check the address, and that the credentials may list it"
        };
        return Err(wrong(format!("nothing is there: {advice}")));
    }
    Ok(found.into_iter().collect())
}

async fn list_folder(storage: &Storage) -> Result<Vec<StoredObject>, PipelineError> {
    storage.list("").await.map_err(|error| {
        if !storage.display().starts_with("http") {
            return error;
        }
        let problem = format!("this server cannot list a folder: {NAME_THE_FILES} ({error})");
        PipelineError::Source { uri: storage.display().to_owned(), problem }
    })
}

/// Whether a name, or a folder above it, is hidden. An underscore hides nothing: cameras begin names with it, and a table's own
/// files (`_SUCCESS`, `_metadata`) have no image's extension.
fn is_hidden(path: &str) -> bool {
    path.split('/').any(|part| part.starts_with('.'))
}

/// Keeps the objects of one layout: the one asked for, or the only one there is.
fn choose_layout(
    objects: Vec<StoredObject>,
    wanted: Option<SourceLayout>,
) -> Result<(SourceLayout, Vec<StoredObject>), String> {
    let mut by_layout: BTreeMap<&str, (SourceLayout, Vec<StoredObject>)> = BTreeMap::new();
    let mut skipped: BTreeMap<String, usize> = BTreeMap::new();
    for object in objects {
        let extension = extension(&object.path).unwrap_or_default();
        let layout = match extension.as_str() {
            "tar" => SourceLayout::Webdataset,
            "parquet" => SourceLayout::Parquet,
            name if is_image(name) => SourceLayout::Folder,
            _ => {
                let name = if extension.is_empty() { "without extension".to_owned() } else { format!(".{extension}") };
                *skipped.entry(name).or_default() += 1;
                continue;
            }
        };
        by_layout.entry(layout.name()).or_insert_with(|| (layout, Vec::new())).1.push(object);
    }
    if !skipped.is_empty() {
        tracing::info!(?skipped, "passed over files of other kinds");
    }
    if let Some(wanted) = wanted {
        return by_layout.remove(wanted.name()).ok_or_else(|| {
            let counts = counts(&by_layout, &skipped);
            format!("no files of the layout {wanted} (.tar for webdataset, .parquet for parquet, images for folder); found {counts}")
        });
    }
    match (by_layout.len(), by_layout.pop_first()) {
        (1, Some((_, chosen))) => Ok(chosen),
        (_, None) => {
            let packed =
                skipped.keys().any(|name| matches!(name.as_str(), ".gz" | ".tgz" | ".zst" | ".bz2" | ".xz" | ".zip"));
            let hint = if packed { ": compressed archives are not read, write them as plain .tar" } else { "" };
            Err(format!("no images, .tar or .parquet files; found {}{hint}", counts(&by_layout, &skipped)))
        }
        (_, Some((name, first))) => {
            by_layout.insert(name, first);
            let counts = counts(&by_layout, &skipped);
            Err(format!(
                "more than one layout: {counts}; choose one with --layout, or narrow the address with a pattern"
            ))
        }
    }
}

fn counts(by_layout: &BTreeMap<&str, (SourceLayout, Vec<StoredObject>)>, skipped: &BTreeMap<String, usize>) -> String {
    let layouts = by_layout.iter().map(|(name, (_, objects))| format!("{} of {name}", objects.len()));
    let others = skipped.iter().map(|(name, count)| format!("{count} {name}"));
    layouts.chain(others).collect::<Vec<_>>().join(", ")
}

/// An image's class: the first folder below the source; none for images in the source itself.
fn class_of(path: &str) -> Option<&str> {
    path.split_once('/').map(|(class, _)| class)
}

fn class_names(objects: &[StoredObject]) -> Vec<String> {
    let names: BTreeSet<&str> = objects.iter().filter_map(|object| class_of(&object.path)).collect();
    names.into_iter().map(str::to_owned).collect()
}

/// Two images of one key could not be told apart in the tables.
fn check_keys(objects: &[StoredObject], rule: ImageIdRule) -> Result<(), String> {
    let mut seen: HashMap<String, &str> = HashMap::with_capacity(objects.len());
    for object in objects {
        let key = rule.image_id(&object.path);
        if let Some(other) = seen.insert(key.clone(), &object.path) {
            let advice = match rule {
                ImageIdRule::Stem => "use --image-id path",
                ImageIdRule::Path => "rename one of them",
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
    limits: &Limits,
) -> Result<Vec<(u64, Vec<String>)>, PipelineError> {
    let pinned: Vec<_> = objects.iter().map(|object| PinnedObject::of_listing(storage, object)).collect();
    let footers = stream::iter(pinned).map(|object| async move {
        let footer = parquet_footer::read_footer(&object).await?;
        let rows = u64::try_from(footer.metadata().file_metadata().num_rows()).unwrap_or(0);
        Ok((rows, parquet_footer::class_names(&footer)))
    });
    footers.buffered(limits.fetch_requests.max(1)).try_collect().await
}

/// The shards that hold the first `limit` samples, read as far as that.
async fn sample_shards(
    storage: &Storage,
    objects: &[StoredObject],
    inputs: Vec<ListedInput>,
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
        let found = super::read_webdataset::count_samples(storage, object, fetch.clone(), left).await?;
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
        let (layout, kept) = choose_layout(files(&["a/1.JPEG", "a/notes.txt", "LICENSE"]), None).expect("images");
        assert_eq!((layout, kept), (SourceLayout::Folder, files(&["a/1.JPEG"])));
        let error = choose_layout(files(&["a.tar", "b.parquet"]), None).expect_err("two layouts");
        assert!(error.contains("--layout") && error.contains("1 of parquet, 1 of webdataset"), "{error}");
        let (layout, _) = choose_layout(files(&["a.tar", "b.parquet"]), Some(SourceLayout::Parquet)).expect("as asked");
        assert_eq!(layout, SourceLayout::Parquet);
        let error = choose_layout(files(&["a.tar.gz"]), None).expect_err("packed");
        assert!(error.contains("plain .tar"), "{error}");
        let error = choose_layout(files(&["a.png"]), Some(SourceLayout::Webdataset)).expect_err("not there");
        assert!(error.contains("1 of folder"), "{error}");
    }

    #[test]
    fn images_of_one_key_are_refused_by_name() {
        let objects = [object("cats/001.jpg"), object("dogs/001.jpg")];
        let error = check_keys(&objects, ImageIdRule::Stem).expect_err("one stem twice");
        assert!(error.contains("cats/001.jpg and dogs/001.jpg") && error.contains("--image-id path"), "{error}");
        check_keys(&objects, ImageIdRule::Path).expect("paths differ");
    }
}
