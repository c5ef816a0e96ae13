//! Samples and decoded tokens are outputs like any other: planned, committed, resumed, verified.

use crate::run_support::*;
use object_store::{ObjectStore, memory::InMemory};
use pipeline::{
    CodeSource, DecodeLimits, GenerateRun, Limits, PipelineError, ProcessRank, RankOrigin, RunReport, Storage,
    TableReader, VerifyOptions, decode_image,
    testing::{FakeDecoder, FakeSampler, Fault, FaultRule, FaultStore, Operation, arrives},
    verify,
};
use schemas::{
    GeneratorIdentity, NPZ_PATH, Origin, PictureFormat, Pictures, Plan, PlanSettings, PlannedInput, Rounding,
    SampleOrigin, Sampling, SourceLayout, TokenOrigin, picture_path, tokens_path,
};
use std::{collections::BTreeMap, sync::Arc};

const SIDE: usize = 6;
const SEED: u64 = 7;

fn sampler() -> FakeSampler {
    FakeSampler::new(SEED, TOKENS_PER_IMAGE, CODEBOOK_SIZE)
}

fn pictures(formats: &[PictureFormat]) -> Pictures {
    Pictures {
        decoder_precision: "fp32".to_owned(),
        rounding: Rounding::Truncate,
        side: SIDE,
        formats: formats.iter().copied().collect(),
    }
}

fn origin(count: u64, formats: &[PictureFormat]) -> SampleOrigin {
    SampleOrigin {
        generator: GeneratorIdentity { name: "har".to_owned(), sha256: "1".repeat(64) },
        sampling: Sampling::paper(SEED),
        count,
        classes: vec![5, 6, 9],
        pictures: (!formats.is_empty()).then(|| pictures(formats)),
    }
}

/// `count` samples in units of `unit_size`.
fn sample_plan(count: u64, unit_size: u64, formats: &[PictureFormat]) -> Arc<Plan> {
    let settings = PlanSettings {
        source: "har".to_owned(),
        split: "generated".to_owned(),
        origin: Origin::Samples(origin(count, formats)),
        ..settings(SourceLayout::Folder)
    };
    let ranges = (0..count).step_by(unit_size as usize).map(|start| start..count.min(start + unit_size));
    let inputs = ranges.zip(0..).map(|(samples, unit)| PlannedInput {
        uri: PlannedInput::SAMPLES.to_owned(),
        size: 0,
        etag: None,
        rows: Some(samples),
        label: None,
        unit,
    });
    Arc::new(Plan::try_new(settings, Vec::new(), inputs).expect("a plan"))
}

fn limits() -> Limits {
    Limits { decode_threads: 2, ..Limits::default() }
}

fn run_with(plan: &Arc<Plan>, output: &Storage, samplers: &[FakeSampler]) -> GenerateRun {
    let named = |number: usize, sampler: &FakeSampler| (format!("fake:{number}"), sampler.factory());
    let decoder = ("fake:0".to_owned(), FakeDecoder::new(SIDE).factory());
    GenerateRun {
        codes: CodeSource::Samplers(samplers.iter().enumerate().map(|(number, it)| named(number, it)).collect()),
        decoders: if plan.settings().origin.pictures().is_some() { vec![decoder] } else { Vec::new() },
        common: run_into(plan, output, limits()),
    }
}

/// [`pipeline::generate`], which a test does not wait for for ever.
async fn generate(run: GenerateRun) -> Result<RunReport, PipelineError> {
    arrives("the end of the run", pipeline::generate(run)).await
}

async fn generate_with(plan: &Arc<Plan>, output: &Storage, sampler: &FakeSampler) -> Result<RunReport, PipelineError> {
    generate(run_with(plan, output, std::slice::from_ref(sampler))).await
}

async fn sound(output: &Storage) {
    let report = verify(output, &VerifyOptions::default()).await.expect("verifies");
    assert!(report.is_sound() && report.finished, "{:?}", report.findings);
    assert!(report.leftovers.is_empty(), "{:?}", report.leftovers);
}

#[tokio::test]
async fn every_sample_is_there_once_with_its_class_its_codes_and_its_picture() {
    use PictureFormat::*;
    let plan = sample_plan(11, 4, &[Parquet, Webdataset, Png, Npz]);
    let (_, output) = memory_output();
    let report = generate_with(&plan, &output, &sampler()).await.expect("a set");
    assert!(report.finalized);
    assert_eq!((report.row_counts_output.listed, report.row_counts_output.written, report.units_here), (11, 11, 3));
    sound(&output).await;
    let reader = TableReader::open(&output).await.expect("an output");
    let mut sample = 0;
    for unit in 0..3 {
        let tokens = reader.tokens(unit).await.expect("its tokens").rows;
        for ((image_id, label), codes) in tokens.image_ids.iter().zip(&tokens.labels).zip(tokens.tokens.iter_rows()) {
            let class = [5, 6, 9][sample as usize % 3];
            assert_eq!((image_id.as_str(), *label), (format!("{sample:06}").as_str(), Some(class)));
            assert_eq!(codes, sampler().codes(sample, class));
            let png = output.get(&picture_path(sample)).await.expect("its picture");
            let limits = DecodeLimits { max_bytes: 1 << 20, max_pixels: 1 << 20 };
            let decoded = decode_image(&png, &limits).expect("a picture");
            assert_eq!(decoded.pixels, FakeDecoder::new(SIDE).picture(codes));
            sample += 1;
        }
    }
    assert_eq!(sample, 11);
    let archive = output.get(NPZ_PATH).await.expect("the archive");
    let last = FakeDecoder::new(SIDE).picture(&sampler().codes(10, 6));
    assert!(archive.windows(last.len()).any(|bytes| bytes == last), "the last picture is in the archive");
}

#[tokio::test]
async fn any_number_of_workers_and_of_processes_makes_the_same_set() {
    let plan = sample_plan(23, 4, &[PictureFormat::Npz, PictureFormat::Parquet]);
    let (_, alone) = memory_output();
    generate_with(&plan, &alone, &sampler()).await.expect("a set");
    let (_, shared) = memory_output();
    for rank in 0..3 {
        let mut run = run_with(&plan, &shared, &[sampler(), sampler()]);
        run.common.process = ProcessRank { rank, world_size: 3, origin: RankOrigin::Options };
        run.common.limits.units_in_flight = 2;
        generate(run).await.expect("a share");
    }
    assert_eq!(contents(&alone).await, contents(&shared).await);
}

#[tokio::test]
async fn a_set_that_dies_before_any_put_and_starts_again_ends_with_the_same_bytes() {
    let plan = sample_plan(7, 3, &[PictureFormat::Png, PictureFormat::Webdataset]);
    let (_, output) = memory_output();
    generate_with(&plan, &output, &sampler()).await.expect("undisturbed");
    let reference = contents(&output).await;
    // Tokens, images, tar and marker of three units, seven PNG files, plan, owner, manifest, success; the owner once more.
    let puts = 3 * 4 + 7 + 4 + 1;
    assert_eq!(reference.len(), puts - 1);
    for survived in 0..puts {
        let memory: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let dying = FaultStore::new(Arc::clone(&memory));
        dying.inject(FaultRule::new(Operation::Put, Fault::Denied).skip(survived).forever());
        let store: Arc<dyn ObjectStore> = dying;
        let error = generate_with(&plan, &storage_over(store), &sampler()).await;
        assert!(matches!(error, Err(PipelineError::Storage { action: "write", .. })), "{survived}: {error:?}");
        let output = storage_over(memory);
        generate_with(&plan, &output, &sampler()).await.expect("started again");
        assert_eq!(contents(&output).await, reference, "after {survived} puts");
    }
}

#[tokio::test]
async fn pictures_follow_from_the_codes_that_stand_in_the_table() {
    // A worker on another kind of device wrote the tokens of unit 0 and died; this one's codes would be others.
    let plan = sample_plan(6, 3, &[PictureFormat::Png]);
    let other = sampler().device_kind("other");
    let (_, theirs) = memory_output();
    generate_with(&plan, &theirs, &other).await.expect("theirs");
    let (_, output) = memory_output();
    let path = tokens_path("generated", 0, plan.hash());
    let bytes = theirs.get(&path).await.expect("their tokens");
    output.put_create(&path, bytes).await.expect("left behind");
    let report = generate_with(&plan, &output, &sampler()).await.expect("a set");
    assert_eq!(report.adopted, 1);
    sound(&output).await;
    for sample in 0..6 {
        let drawn_by = if sample < 3 { &other } else { &sampler() };
        let expected = FakeDecoder::new(SIDE).picture(&drawn_by.codes(sample, [5, 6, 9][sample as usize % 3]));
        let png = output.get(&picture_path(sample)).await.expect("its picture");
        let limits = DecodeLimits { max_bytes: 1 << 20, max_pixels: 1 << 20 };
        assert_eq!(decode_image(&png, &limits).expect("a picture").pixels, expected, "sample {sample}");
    }
}

#[tokio::test]
async fn the_tokens_of_a_table_become_the_pictures_of_their_samples() {
    let drawn = sample_plan(7, 3, &[]);
    let (_, tokens) = memory_output();
    generate_with(&drawn, &tokens, &sampler()).await.expect("tokens");
    assert!(!contents(&tokens).await.keys().any(|path| path.starts_with("pictures/")));
    let tables = TableReader::open(&tokens).await.expect("an output");
    let mut first = 0;
    let inputs = tables.reports().iter().map(|report| {
        let rows = first..first + report.row_counts.written;
        first = rows.end;
        PlannedInput {
            uri: format!("tokens/{}", report.tokens.path),
            size: report.tokens.bytes,
            etag: None,
            rows: Some(rows),
            label: None,
            unit: report.unit,
        }
    });
    let origin = TokenOrigin { tokens_plan: drawn.hash().clone(), pictures: pictures(&[PictureFormat::Png]) };
    let settings = PlanSettings { origin: Origin::Tokens(origin), ..drawn.settings().clone() };
    let plan = Arc::new(Plan::try_new(settings, Vec::new(), inputs).expect("a plan"));
    let (_, output) = memory_output();
    let run = GenerateRun {
        codes: CodeSource::Tables(tables),
        decoders: vec![("fake:0".to_owned(), FakeDecoder::new(SIDE).factory())],
        common: run_into(&plan, &output, limits()),
    };
    generate(run).await.expect("pictures");
    sound(&output).await;
    let (_, at_once) = memory_output();
    generate_with(&sample_plan(7, 3, &[PictureFormat::Png]), &at_once, &sampler()).await.expect("a set");
    let pictures_of = |contents: BTreeMap<String, bytes::Bytes>| {
        contents.into_iter().filter(|(path, _)| path.starts_with("pictures/")).collect::<BTreeMap<_, _>>()
    };
    let (later, at_once) = (pictures_of(contents(&output).await), pictures_of(contents(&at_once).await));
    assert_eq!(later.len(), 7);
    assert_eq!(later, at_once);
}

#[tokio::test]
async fn a_device_that_fails_ends_the_run_and_the_next_start_goes_on() {
    let plan = sample_plan(12, 3, &[PictureFormat::Parquet]);
    let (_, output) = memory_output();
    let mut run = run_with(&plan, &output, &[sampler().fail_at(2)]);
    run.common.limits.units_in_flight = 1;
    let error = generate(run).await.expect_err("a planted failure");
    assert!(matches!(error, PipelineError::Encoder { temporary: true, .. }), "{error}");
    let again = sampler();
    let report = generate_with(&plan, &output, &again).await.expect("goes on");
    assert_eq!((report.units_already_done, report.units_here, again.batches()), (2, 2, 2));
    sound(&output).await;
}

#[tokio::test]
async fn a_damaged_picture_or_archive_is_found_by_name() {
    use PictureFormat::*;
    let plan = sample_plan(5, 3, &[Parquet, Npz, Png]);
    for path in [NPZ_PATH.to_owned(), picture_path(4)] {
        let (store, output) = memory_output();
        generate_with(&plan, &output, &sampler()).await.expect("a set");
        let mut bytes = output.get(&path).await.expect("it is there").to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let there = object_store::path::Path::from(format!("out/{path}"));
        store.put_opts(&there, bytes.into(), object_store::PutOptions::default()).await.expect("memory");
        let report = verify(&output, &VerifyOptions::default()).await.expect("verifies");
        let found: Vec<&str> = report.findings.iter().map(|finding| finding.path.as_str()).collect();
        assert_eq!(found, [path.as_str()]);
    }
}

#[tokio::test]
async fn an_archive_of_other_pictures_is_refused_and_one_of_these_is_kept() {
    use PictureFormat::*;
    let plan = sample_plan(5, 3, &[Parquet, Npz]);
    let (store, output) = memory_output();
    generate_with(&plan, &output, &sampler()).await.expect("a set");
    let expected = contents(&output).await;
    let path = |name: &str| object_store::path::Path::from(format!("out/{name}"));
    // As after a death between the archive and the manifest.
    for name in ["_SUCCESS", "_manifest.json"] {
        object_store::ObjectStoreExt::delete(store.as_ref(), &path(name)).await.expect("memory");
    }
    generate_with(&plan, &output, &sampler()).await.expect("finalized again");
    assert_eq!(contents(&output).await, expected);

    for name in ["_SUCCESS", "_manifest.json"] {
        object_store::ObjectStoreExt::delete(store.as_ref(), &path(name)).await.expect("memory");
    }
    let zeros = vec![0; expected[NPZ_PATH].len()];
    store.put_opts(&path(NPZ_PATH), zeros.into(), object_store::PutOptions::default()).await.expect("memory");
    let error = generate_with(&plan, &output, &sampler()).await.expect_err("another archive").to_string();
    assert!(error.contains(NPZ_PATH) && error.contains("SHA-256"), "{error}");
    assert!(!output.exists("_SUCCESS").await.expect("memory"));
}

#[tokio::test]
async fn a_manifest_without_the_archive_that_the_plan_asks_for_is_found() {
    let plan = sample_plan(5, 3, &[PictureFormat::Parquet, PictureFormat::Npz]);
    let (store, output) = memory_output();
    generate_with(&plan, &output, &sampler()).await.expect("a set");
    let bytes = output.get("_manifest.json").await.expect("it is there");
    let mut manifest: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
    manifest.as_object_mut().expect("an object").remove("archive").expect("it has one");
    let there = object_store::path::Path::from("out/_manifest.json");
    store.put_opts(&there, manifest.to_string().into(), object_store::PutOptions::default()).await.expect("memory");
    let report = verify(&output, &VerifyOptions::default()).await.expect("verifies");
    assert!(report.findings.iter().any(|finding| finding.problem.contains("archive")), "{:?}", report.findings);
}

#[tokio::test]
async fn a_set_of_another_seed_is_refused_by_name() {
    let plan = sample_plan(5, 3, &[]);
    let (_, output) = memory_output();
    generate_with(&plan, &output, &sampler()).await.expect("a set");
    let mut other = origin(5, &[]);
    other.sampling.seed = 8;
    let settings = PlanSettings { origin: Origin::Samples(other), ..plan.settings().clone() };
    let other = Arc::new(Plan::try_new(settings, Vec::new(), plan.inputs().iter()).expect("a plan"));
    let error = generate_with(&other, &output, &sampler()).await.expect_err("another plan").to_string();
    assert!(error.contains("sampling: ") && error.contains("\"seed\":7"), "{error}");
}
