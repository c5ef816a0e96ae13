//! What is written reads back, and what does not fit is refused by name.

use proptest::prelude::*;
use schemas::{
    Crop, GeneratorIdentity, ImageIdRule, ImageOrigin, ImageRow, Origin, PackedList, PictureFormat, Pictures, Plan,
    PlanSettings, PlannedInput, Provenance, RejectReason, Rounding, RowCounts, SampleOrigin, Sampling, SchemaError,
    SourceLayout, SourceReading, TokenBatch, TokenLevels, TokenOrigin, TokenRows, TokenizerIdentity, WriterInfo,
    image_record_batch, image_rows, read_levels, token_schema,
};

fn settings() -> PlanSettings {
    PlanSettings {
        source: "s3://bucket/imagenet/train".to_owned(),
        split: "train".to_owned(),
        tokenizer: TokenizerIdentity {
            name: "hf://owner/name".to_owned(),
            sha256: "ab".repeat(32),
            codebook_size: 8192,
            levels: TokenLevels::published(128).expect("a power of two"),
        },
        precision: "fp32".to_owned(),
        batch_size: 32,
        unit_size: 4,
        origin: Origin::Images(ImageOrigin {
            layout: SourceLayout::Folder,
            image_id: ImageIdRule::Stem,
            crop: Crop::AdmCenter { size: 256 },
            max_image_bytes: 1 << 20,
            max_image_pixels: 1 << 24,
            reading: SourceReading::default(),
        }),
    }
}

fn inputs() -> impl Strategy<Value = Vec<PlannedInput>> {
    let input =
        ("[a-z/ é\"]{1,12}", any::<u64>(), proptest::option::of("[a-f0-9-]{1,8}"), any::<Option<i32>>(), any::<bool>());
    proptest::collection::vec(input, 1..40).prop_map(|inputs| {
        let mut unit = 0;
        inputs
            .into_iter()
            .enumerate()
            .map(|(position, (path, size, etag, label, next))| {
                unit += u32::from(position > 0 && next);
                let rows = size.is_multiple_of(2).then_some(0..size);
                PlannedInput { uri: format!("s3://bucket/{path}"), size, etag, rows, label, unit }
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn a_plan_reads_back_as_itself_and_every_input_is_in_one_unit(inputs in inputs()) {
        let plan = Plan::try_new(settings(), vec!["cat".to_owned()], inputs).expect("units count up");
        let read = Plan::from_json_lines(plan.to_json_lines().as_slice()).expect("reads back");
        prop_assert_eq!(&read, &plan);
        let by_unit: PackedList<_> = (0..plan.units()).flat_map(|unit| plan.unit_inputs(unit)).collect();
        prop_assert_eq!(&by_unit, plan.inputs());
        prop_assert!(plan.unit_inputs(plan.units()).is_empty());
    }

    #[test]
    fn token_rows_survive_arrow_and_slicing(codes in proptest::collection::vec(0_i16..8192, 0..64), skip in 0_usize..8) {
        let rows = codes.len() / 8;
        let table = TokenRows {
            image_ids: (0..rows).map(|row| format!("image_{row}")).collect(),
            views: (0..rows).map(|row| (row % 10) as i8).collect(),
            labels: (0..rows).map(|row| (row % 3 != 0).then_some(row as i32)).collect(),
            tokens: TokenBatch::try_new(codes[..rows * 8].to_vec(), 8).expect("eight a row"),
        };
        let batch = table.to_record_batch().expect("columns of one length");
        prop_assert_eq!(&TokenRows::from_record_batch(&batch, 8).expect("reads back"), &table);
        let skip = skip.min(rows);
        let tail = TokenRows::from_record_batch(&batch.slice(skip, rows - skip), 8).expect("a slice reads back");
        prop_assert_eq!(tail.tokens.codes(), &table.tokens.codes()[skip * 8..]);
        prop_assert_eq!(tail.image_ids.as_slice(), &table.image_ids[skip..]);
    }
}

#[test]
fn the_hash_of_a_plan_changes_with_every_setting_and_input() {
    let input = PlannedInput { uri: "a".to_owned(), size: 1, etag: None, rows: None, label: None, unit: 0 };
    let hash = |settings: PlanSettings, input: &PlannedInput| {
        Plan::try_new(settings, Vec::new(), vec![input.clone()]).expect("one input").hash().clone()
    };
    let base = hash(settings(), &input);
    assert_eq!(base, hash(settings(), &input));
    assert_ne!(base, hash(PlanSettings { precision: "bf16".to_owned(), ..settings() }, &input));
    assert_ne!(base, hash(settings(), &PlannedInput { etag: Some("1".to_owned()), ..input.clone() }));
    assert_eq!(base.short().len(), 8);
}

#[test]
fn a_plan_of_images_has_the_hash_it_always_had() {
    // Outputs are named by it: another order of keys would make every output that is there unreadable.
    let input = PlannedInput { uri: "a".to_owned(), size: 1, etag: None, rows: None, label: Some(3), unit: 0 };
    let plan = Plan::try_new(settings(), vec!["cat".to_owned()], vec![input]).expect("one input");
    let text = String::from_utf8(plan.to_json_lines()).expect("JSON is UTF-8");
    let keys: Vec<&str> = ["source", "layout", "split", "image_id", "tokenizer", "crop", "precision", "batch_size"]
        .into_iter()
        .chain(["unit_size", "max_image_bytes", "max_image_pixels"])
        .collect();
    let places: Vec<usize> = keys.iter().map(|key| text.find(&format!("\"{key}\":")).expect(key)).collect();
    assert!(places.is_sorted(), "{text}");
    assert!(plan.hash().as_str().starts_with("cac8c717"), "{}", plan.hash());
}

#[test]
fn rows_of_samples_say_number_and_seed_and_read_as_rows_of_images() {
    let rows = TokenRows {
        image_ids: vec!["000007".to_owned(), "000008".to_owned()],
        views: vec![0, 0],
        labels: vec![Some(3), Some(4)],
        tokens: TokenBatch::try_new(vec![1, 2, 3, 4], 2).expect("two a row"),
    };
    let batch = rows.to_sample_record_batch(11).expect("numbers");
    let column = |name: &str| format!("{:?}", batch.column_by_name(name).expect(name));
    assert!(column("sample").contains("7,\n  8,") && column("seed").contains("11,\n  11,"), "{}", column("sample"));
    assert_eq!(TokenRows::from_record_batch(&batch, 2).expect("reads"), rows);
    let named = TokenRows { image_ids: vec!["cat".to_owned(), "8".to_owned()], ..rows };
    assert!(named.to_sample_record_batch(11).expect_err("no number").to_string().contains("cat"));
}

#[test]
fn plans_of_samples_and_of_tokens_read_back_as_themselves() {
    let pictures = Pictures {
        decoder_precision: "fp32".to_owned(),
        rounding: Rounding::Truncate,
        side: 256,
        formats: [PictureFormat::Npz, PictureFormat::Parquet].into(),
    };
    let samples = SampleOrigin {
        generator: GeneratorIdentity { name: "har".to_owned(), sha256: "cd".repeat(32) },
        sampling: Sampling::paper(7),
        count: 10,
        classes: vec![0, 1, 2],
        pictures: Some(pictures.clone()),
    };
    let tokens_plan = "ef".repeat(32).try_into().expect("64 digits");
    let tokens = Origin::Tokens(TokenOrigin { tokens_plan, pictures });
    let without = Origin::Samples(SampleOrigin { pictures: None, ..samples.clone() });
    let mut hashes = Vec::new();
    for origin in [Origin::Samples(samples), without, tokens] {
        let input = PlannedInput {
            uri: PlannedInput::SAMPLES.to_owned(),
            size: 0,
            etag: None,
            rows: Some(0..10),
            label: None,
            unit: 0,
        };
        let settings = PlanSettings { origin, ..settings() };
        let plan = Plan::try_new(settings, Vec::new(), vec![input]).expect("one input");
        let read = Plan::from_json_lines(plan.to_json_lines().as_slice()).expect("reads back");
        assert_eq!(read, plan);
        hashes.push(plan.hash().clone());
    }
    hashes.dedup();
    assert_eq!(hashes.len(), 3);
}

#[test]
fn plans_that_are_no_plans_are_refused() {
    let input = PlannedInput { uri: "a".to_owned(), size: 1, etag: None, rows: None, label: None, unit: 1 };
    assert!(Plan::try_new(settings(), Vec::new(), vec![input.clone()]).is_err(), "units start at 0");
    assert!(Plan::try_new(settings(), Vec::new(), Vec::new()).is_err(), "no input");
    assert!(Plan::from_json_lines(&b""[..]).is_err());
    let plan = Plan::try_new(settings(), Vec::new(), vec![PlannedInput { unit: 0, ..input }]).expect("one input");
    let text = String::from_utf8(plan.to_json_lines()).expect("JSON is UTF-8");
    let newer = text.replace("\"schema_version\":1", "\"schema_version\":99");
    let error = Plan::from_json_lines(newer.as_bytes()).expect_err("newer").to_string();
    assert!(error.contains("schema version 99"), "{error}");
    let error = Plan::from_json_lines(&text.as_bytes()[..text.len() - 5]).expect_err("cut off").to_string();
    assert!(error.contains("line 2"), "{error}");
}

#[test]
fn differences_between_settings_are_named() {
    let Origin::Images(images) = settings().origin else { unreachable!("settings of images") };
    let origin = Origin::Images(ImageOrigin { crop: Crop::AdmCenterFlip { size: 256 }, ..images });
    let other = PlanSettings { origin, unit_size: 8, ..settings() };
    let differences = settings().differences(&other);
    assert_eq!(
        differences,
        ["crop: adm-center-256 in the output, adm-center-256-flip here", "unit_size: 4 in the output, 8 here"]
    );
}

#[test]
fn image_rows_survive_arrow() {
    let whole = ImageRow {
        image_id: "n01440764_10026".to_owned(),
        source: "s3://bucket/shard.tar#n01440764_10026.jpg".to_owned(),
        label: Some(0),
        class_name: Some("n01440764".to_owned()),
        width: Some(500),
        height: Some(375),
        bytes: 110_000,
        sha256: Some("00".repeat(32)),
        rejected: None,
        error: None,
    };
    let rejected = RejectReason::ALL.map(|reason| ImageRow {
        label: None,
        class_name: None,
        width: None,
        height: None,
        sha256: None,
        rejected: Some(reason),
        error: Some("why".to_owned()),
        ..whole.clone()
    });
    let rows: Vec<ImageRow> = std::iter::once(whole).chain(rejected).collect();
    let batch = image_record_batch(&rows).expect("columns");
    assert_eq!(image_rows(&batch).expect("reads back"), rows);
}

#[test]
fn a_table_with_another_column_type_is_refused_by_name() {
    let rows = TokenRows {
        image_ids: vec!["a".to_owned()],
        views: vec![0],
        labels: vec![None],
        tokens: TokenBatch::try_new(vec![1; 16], 16).expect("one row"),
    };
    let batch = rows.to_record_batch().expect("columns");
    let error = TokenRows::from_record_batch(&batch, 8).expect_err("16 tokens, not 8");
    assert!(matches!(&error, SchemaError::Column { column, .. } if column == "tokens"), "{error}");
    assert_eq!(token_schema(16), batch.schema());
}

#[test]
fn codes_outside_the_codebook_are_refused_with_their_row() {
    for code in [-1_i64, 512, 70_000] {
        let error = TokenBatch::try_from_codes(&[0, 1, 511, code], 2, 512).expect_err("out of range").to_string();
        assert!(error.contains("row 1") && error.contains(&code.to_string()), "{error}");
    }
    assert!(TokenBatch::try_from_codes(&[0; 4], 2, 40_000).is_err(), "a codebook beyond int16");
}

#[test]
fn provenance_states_levels_that_read_back() {
    let plan = Plan::try_new(
        settings(),
        Vec::new(),
        vec![PlannedInput { uri: "a".to_owned(), size: 1, etag: None, rows: None, label: None, unit: 0 }],
    )
    .expect("one input");
    let writer_info = WriterInfo {
        device_kind: "cpu".to_owned(),
        libtorch: "2.13.0".to_owned(),
        decoder: "libjpeg-turbo".to_owned(),
        version: "0.1.0".to_owned(),
    };
    let values = Provenance { plan: plan.hash().clone(), unit: 0, settings: settings(), writer_info }.to_key_values();
    assert_eq!(values["restok.level_offsets"], "[0,1,2,4,8,16,32,64,128]");
    assert_eq!(read_levels(&values).expect("levels"), settings().tokenizer.levels);
    assert!(values.keys().all(|key| key.starts_with("restok.")));
}

#[test]
fn row_counts_that_do_not_balance_are_refused() {
    let mut row_counts = RowCounts { listed: 3, written: 2, token_rows: 4, bytes_read: 9, ..RowCounts::default() };
    assert!(row_counts.check(2).is_err(), "one image is missing");
    row_counts.rejected.insert(RejectReason::Truncated, 1);
    row_counts.check(2).expect("3 = 2 + 1");
    assert!(row_counts.check(10).is_err(), "rows do not match views");
    assert!((row_counts.reject_rate() - 1.0 / 3.0).abs() < 1e-12);
    let mut sum = row_counts.clone();
    sum.add(&row_counts);
    assert_eq!((sum.listed, sum.rejected[&RejectReason::Truncated]), (6, 2));
}
