//! The same pictures in any form give the same rows; what is no set of pictures is refused with what was found.

use crate::{run_support::memory_output, sample_files::pixels_of, scoring_support::*};
use pipeline::{
    ImageSet, ImageSetOptions, Limits, PipelineError, ProcessRank, RankOrigin, SourceOptions, testing::FakeScorer,
};
use schemas::{Crop, ScoredUnit};
use std::sync::Arc;
use zip::CompressionMethod;

const COUNT: u64 = 11;
const SIZE: usize = 20;

async fn scored(url: &str, unit_size: usize) -> ScoredUnit {
    let (_, output) = memory_output();
    let set = open(url, unit_size).await;
    assert_eq!(set.shape(), (SIZE, SIZE), "{url}");
    let report = score_with(&set, &output, &FakeScorer::new()).await.expect("scored");
    assert_eq!((report.images_here, report.units_here), (COUNT, set.units()), "{url}");
    joined(read_all(&set, &output).await)
}

fn deflated(count: u64, size: usize) -> Vec<u8> {
    let array = npy("|u1", false, &[count as usize, size, size, 3], &pixels(count, size));
    archive(&[("arr_0.npy", array)], CompressionMethod::Deflated)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_pictures_give_the_same_rows_in_every_form_and_division() {
    let folder = scored(&png_folder("forms-folder", COUNT, SIZE).await, 4).await;
    let scorer = FakeScorer::new();
    let expected: Vec<f32> = (0..COUNT).flat_map(|number| scorer.pool(&pixels_of(number, SIZE))).collect();
    assert!(folder.variants[0].pool == expected, "features in the order of the set");
    assert!(folder.rows.iter().zip(0..).all(|(row, number)| {
        (row.image_id.as_str(), row.label, row.format.as_str()) == (format!("{number:06}").as_str(), None, "png")
    }));
    let archives = memory("forms-npz");
    for (form, url, unit_size) in [
        ("tar", tar_shards("forms-tar", COUNT, SIZE).await, 4),
        ("parquet", parquet_file("forms-parquet", COUNT, SIZE).await, 3),
        ("stored", put(&archives, "stored.npz", npz_stored(COUNT, SIZE)).await, 4),
        ("deflated", put(&archives, "deflated.npz", deflated(COUNT, SIZE)).await, 2),
        ("in one unit", archives.uri("deflated.npz"), 100),
    ] {
        let found = scored(&url, unit_size).await;
        assert!(found.variants == folder.variants, "{form}: other features");
        let labelled = matches!(form, "tar" | "parquet");
        for (row, number) in found.rows.iter().zip(0_i32..) {
            assert_eq!(row.image_id, format!("{number:06}"), "{form}");
            assert_eq!(row.label, labelled.then_some(number % 3), "{form}");
            assert_eq!(row.format, if labelled { "png" } else { "pixels" }, "{form}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_larger_than_a_piece_are_read_from_any_unit_on() {
    let storage = memory("pieces");
    // Pieces are of 64 KiB here: one holds several pictures of the first size, and less than one of the second.
    for (count, size) in [(30, 60), (5, 160)] {
        let expected: Vec<f32> =
            (0..count).flat_map(|number| FakeScorer::new().pool(&pixels_of(number, size))).collect();
        for (name, bytes) in [("stored", npz_stored(count, size)), ("deflated", deflated(count, size))] {
            let url = put(&storage, &format!("{name}-{size}.npz"), bytes).await;
            let set = open(&url, 2).await;
            let (_, output) = memory_output();
            // Odd units first, then even ones: what is inflated must be begun anew.
            let mut run = run_of(&set, &output, &FakeScorer::new());
            run.process = ProcessRank { rank: 1, world_size: 2, origin: RankOrigin::Options };
            run.limits.units_in_flight = 1;
            assert_eq!(score(run).await.expect("scored").images_here, count, "{name}");
            assert!(joined(read_all(&set, &output).await).variants[0].pool == expected, "{name} of {size} pixels");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crop_is_taken_of_files_and_of_arrays_alike_and_makes_mixed_sizes_one() {
    let folder = png_folder("crop-folder", 5, SIZE).await;
    let npz = put(&memory("crop-npz"), "a.npz", npz_stored(5, SIZE)).await;
    let crop = Some(Crop::TorchvisionCenter { size: 12 });
    let mut variants = Vec::new();
    for url in [folder, npz] {
        let options = ImageSetOptions { crop, ..ImageSetOptions::new(url) };
        let set = ImageSet::open(&options, &limits()).await.expect("a set").into();
        let (_, output) = memory_output();
        score_with(&set, &output, &FakeScorer::new()).await.expect("scored");
        assert_eq!(set.shape(), (12, 12));
        variants.push(joined(read_all(&set, &output).await).variants);
    }
    assert!(variants[0] == variants[1] && !variants[0].is_empty());

    let mixed = memory("mixed");
    for (number, size) in [(0, SIZE), (1, SIZE), (2, SIZE + 4)] {
        put(&mixed, &format!("{number:06}.png"), png(number, size)).await;
    }
    let url = format!("{}/", mixed.display());
    let (_, output) = memory_output();
    let error = score_with(&open(&url, 2).await, &output, &FakeScorer::new()).await.expect_err("mixed sizes");
    let told = error.to_string();
    assert!(told.contains("000002.png: 24x24 pixels") && told.contains("has 20x20"), "{told}");
    let options = ImageSetOptions { crop, ..ImageSetOptions::new(url) };
    let set = ImageSet::open(&options, &limits()).await.expect("a set").into();
    let (_, output) = memory_output();
    assert_eq!(score_with(&set, &output, &FakeScorer::new()).await.expect("one size").images_here, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_pictures_are_counted_and_passed_over_and_the_first_whole_one_gives_the_size() {
    let folder = memory("broken");
    for number in 0..7 {
        let mut bytes = png(number, SIZE);
        match number {
            0 => bytes.truncate(40),
            3 | 4 => bytes = b"<html>404</html>".to_vec(),
            _ => {}
        }
        put(&folder, &format!("{number:06}.png"), bytes).await;
    }
    let set = open(&format!("{}/", folder.display()), 2).await;
    assert_eq!((set.shape(), set.units(), set.images()), ((SIZE, SIZE), 4, Some(7)));
    let (_, output) = memory_output();
    let report = score_with(&set, &output, &FakeScorer::new()).await.expect("scored");
    assert_eq!((report.images_here, report.rejected_here), (4, 3));
    let units = read_all(&set, &output).await;
    assert_eq!(
        units.iter().map(|unit| (unit.rows.len(), unit.rejected)).collect::<Vec<_>>(),
        [(1, 1), (1, 1), (1, 1), (1, 0)]
    );
    let ids: Vec<_> = joined(units).rows.into_iter().map(|row| row.image_id).collect();
    assert_eq!(ids, ["000001", "000002", "000005", "000006"]);

    let nothing = memory("all-broken");
    put(&nothing, "a.png", "text").await;
    let told = refused(&ImageSetOptions::new(format!("{}/", nothing.display()))).await;
    assert!(told.contains("not one of its images"), "{told}");
    // With a crop the size is known, and a unit without a row is a unit.
    let crop = Some(Crop::AdmCenter { size: 8 });
    let options = ImageSetOptions { crop, ..ImageSetOptions::new(format!("{}/", nothing.display())) };
    let set = ImageSet::open(&options, &limits()).await.expect("a set").into();
    let (_, output) = memory_output();
    score_with(&set, &output, &FakeScorer::new()).await.expect("nothing to score");
    let expected = ScoredUnit { rows: Vec::new(), variants: Vec::new(), tokens: None, rejected: 1 };
    assert_eq!(read_all(&set, &output).await, [expected]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_digest_follows_what_decides_the_scores_and_not_the_division_or_the_place() {
    let npz = npz_stored(6, SIZE);
    let url = put(&memory("digest-npz"), "a.npz", npz.clone()).await;
    let digest = async |options: ImageSetOptions, limits: Limits| {
        ImageSet::open(&options, &limits).await.expect("a set").digest().to_owned()
    };
    let plain = digest(ImageSetOptions::new(&url), limits()).await;
    assert_eq!(plain.len(), 64);
    let divided = ImageSetOptions { unit_size: 2, ..ImageSetOptions::new(&url) };
    assert_eq!(digest(divided, limits()).await, plain);
    let cropped = ImageSetOptions { crop: Some(Crop::AdmCenter { size: 8 }), ..ImageSetOptions::new(&url) };
    let few = SourceOptions { max_images: Some(4), ..SourceOptions::new(&url) };
    let few = ImageSetOptions { source: few, ..ImageSetOptions::new("") };
    let others = [
        digest(cropped, limits()).await,
        digest(few, limits()).await,
        digest(ImageSetOptions::new(&url), Limits { max_image_pixels: 1 << 19, ..limits() }).await,
        digest(ImageSetOptions::new(put(&memory("digest-npz"), "b.npz", npz).await), limits()).await,
        digest(ImageSetOptions::new(png_folder("digest-folder", 6, SIZE).await), limits()).await,
    ];
    for (index, other) in others.iter().enumerate() {
        assert!(*other != plain && !others[..index].contains(other), "{index}");
    }

    // A copy elsewhere is another set, whatever its dates: dates and sizes are all that a local disk tells of a file's version.
    let (one, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let date = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    for folder in [&one, &other] {
        let path = folder.path().join("000000.png");
        std::fs::write(&path, png(0, SIZE)).expect("written");
        std::fs::File::options().append(true).open(&path).expect("open").set_modified(date).expect("dated");
    }
    let local = |folder: &tempfile::TempDir| ImageSetOptions::new(format!("{}/", folder.path().display()));
    assert_ne!(digest(local(&one), limits()).await, digest(local(&other), limits()).await);
    assert_eq!(digest(local(&one), limits()).await, digest(local(&one), limits()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_on_disk_is_named_by_its_path_and_a_limit_takes_its_first_pictures() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a set.npz");
    std::fs::write(&path, npz_stored(7, SIZE)).expect("written");
    let source = SourceOptions { max_images: Some(5), ..SourceOptions::new(path.display().to_string()) };
    let options = ImageSetOptions { source, unit_size: 2, ..ImageSetOptions::new("") };
    let set = ImageSet::open(&options, &limits()).await.expect("a set").into();
    let (_, output) = memory_output();
    let report = score_with(&set, &output, &FakeScorer::new()).await.expect("scored");
    assert_eq!((report.units, report.images_here, set.images()), (3, 5, Some(5)));
    assert!(set.display().starts_with("file:///") && set.display().ends_with("/a%20set.npz"), "{}", set.display());
    let ids: Vec<_> = joined(read_all(&set, &output).await).rows.into_iter().map(|row| row.image_id).collect();
    assert_eq!(ids, ["000000", "000001", "000002", "000003", "000004"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cannot_be_are_refused() {
    let url = put(&memory("settings"), "a.npz", npz_stored(2, SIZE)).await;
    for (crop, unit_size, words) in [
        (Some(Crop::AdmCenterFlip { size: 8 }), 10, "gives 2 views"),
        (Some(Crop::AdmTenCrop { resize: 10, size: 8 }), 10, "gives 10 views"),
        (None, 0, "a unit of 0 images"),
    ] {
        let told = refused(&ImageSetOptions { crop, unit_size, ..ImageSetOptions::new(&url) }).await;
        assert!(told.contains(words), "{told}");
    }
    let none = SourceOptions { max_images: Some(0), ..SourceOptions::new(&url) };
    let told = refused(&ImageSetOptions { source: none, ..ImageSetOptions::new("") }).await;
    assert!(told.contains("0 images"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_of_something_else_are_refused_with_file_member_and_what_was_found() {
    let storage = memory("wrong-npz");
    let elements = pixels(2, SIZE);
    let shape = [2, SIZE, SIZE, 3];
    let stored = |name: &'static str, array: Vec<u8>| archive(&[(name, array)], CompressionMethod::Stored);
    let whole = npz_stored(3, SIZE);
    let floats = vec![0; elements.len() * 4];
    let cases = [
        (
            "dtype",
            stored("arr_0.npy", npy("<f4", false, &shape, &floats)),
            "arr_0.npy: elements of type \"<f4\", expected \"|u1\"",
        ),
        ("order", stored("arr_0.npy", npy("|u1", true, &shape, &elements)), "arr_0.npy: an array in Fortran order"),
        (
            "shape",
            stored("arr_0.npy", npy("|u1", false, &[2, SIZE * SIZE * 3], &elements)),
            "arr_0.npy: shape [2, 1200]",
        ),
        ("planes", stored("arr_0.npy", npy("|u1", false, &[2, 3, SIZE, SIZE], &elements)), "shape [2, 3, 20, 20]"),
        ("none", stored("arr_0.npy", npy("|u1", false, &[0, 8, 8, 3], &[])), "it holds no images"),
        (
            "short",
            stored("arr_0.npy", npy("|u1", false, &shape, &elements[1..])),
            "of an array of shape [2, 20, 20, 3]",
        ),
        (
            "member",
            stored("mu.npy", npy("<f8", false, &[1], &[0; 8])),
            "no member arr_0.npy with the pixels; it holds mu.npy",
        ),
        ("text", stored("arr_0.npy", b"not an array of anything".to_vec()), "arr_0.npy: it is no array"),
        ("half", whole[..whole.len() / 2].to_vec(), "not a whole archive"),
        ("empty", Vec::new(), "not a whole archive"),
    ];
    for (name, bytes, words) in cases {
        let url = put(&storage, &format!("{name}.npz"), bytes).await;
        let told = refused(&ImageSetOptions::new(&url)).await;
        assert!(told.starts_with(&url) && told.contains(words), "{name}: {told}");
    }
    let told = refused(&ImageSetOptions::new(storage.uri("missing.npz"))).await;
    assert!(told.contains("missing.npz"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_damaged_or_changed_within_ends_the_run_by_name() {
    let storage = memory("damaged-npz");
    let mut damaged = deflated(9, SIZE);
    let (start, end) = (damaged.len() / 2, damaged.len() * 3 / 4);
    damaged[start..end].fill(0xFF);
    let url = put(&storage, "a.npz", damaged).await;
    let (_, output) = memory_output();
    let error = score_with(&open(&url, 3).await, &output, &FakeScorer::new()).await.expect_err("damaged");
    assert!(matches!(error, PipelineError::Source { .. }), "{error:?}");
    assert!(error.to_string().contains("a.npz: arr_0.npy: it is damaged"), "{error}");

    let url = put(&storage, "b.npz", npz_stored(9, SIZE)).await;
    let set = open(&url, 3).await;
    storage.put_replace("b.npz", npz_stored(8, SIZE).into()).await.expect("replaced");
    let error = score_with(&set, &output, &FakeScorer::new()).await.expect_err("changed");
    assert!(matches!(error, PipelineError::SourceChanged { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pixels_that_are_not_those_of_the_archives_checksum_are_not_scored() {
    let storage = memory("checksum-npz");
    for (name, archive) in [("stored", npz_stored(9, SIZE)), ("deflated", deflated(9, SIZE))] {
        // What the directory says of the array: numpy writes it, and nothing else can tell that a stored pixel has changed.
        let mut damaged = archive.clone();
        let entry = archive.windows(4).rposition(|bytes| bytes == b"PK\x01\x02").expect("a directory");
        damaged[entry + 16] ^= 1;
        let (sound, url) = (
            put(&storage, &format!("{name}.npz"), archive).await,
            put(&storage, &format!("{name}-damaged.npz"), damaged).await,
        );
        let (_, output) = memory_output();
        score_with(&open(&sound, 3).await, &output, &FakeScorer::new()).await.expect("sound");
        let (_, output) = memory_output();
        let error = score_with(&open(&url, 3).await, &output, &FakeScorer::new()).await.expect_err(name);
        assert!(error.to_string().contains("damaged.npz: arr_0.npy: it is damaged: its CRC-32"), "{error}");
        assert!(output.list("").await.expect("a listing").is_empty(), "nothing was scored");
        // A trial of the first pictures does not read the others.
        let source = SourceOptions { max_images: Some(2), ..SourceOptions::new(url) };
        let options = ImageSetOptions { source, ..ImageSetOptions::new("") };
        let few = Arc::new(ImageSet::open(&options, &limits()).await.expect("opened"));
        score_with(&few, &output, &FakeScorer::new()).await.expect("the first two");
    }
}
