//! Plans: every input in exactly one unit, in order, within bounds, and the same listing always the same plan.

use crate::source_support::settings;
use pipeline::{ListedInput, SourceListing, plan_units};
use proptest::prelude::*;
use schemas::{ImageIdRule, PackedList, Plan, SourceAccount, SourceLayout};

fn listing() -> impl Strategy<Value = SourceListing> {
    let layouts = proptest::sample::select(SourceLayout::ALL.to_vec());
    let objects = proptest::collection::vec((1_u64..1000, proptest::option::of("[a-f0-9]{4}"), 1_u64..300), 1..20);
    (layouts, objects).prop_map(|(layout, objects)| {
        let inputs = objects.into_iter().enumerate().map(|(index, (size, etag, rows))| ListedInput {
            uri: format!("s3://bucket/{index:05}"),
            size,
            etag,
            label: (layout == SourceLayout::Folder).then_some(index as i32 / 7),
            rows: (layout == SourceLayout::Parquet).then_some(rows),
        });
        SourceListing {
            source: "s3://bucket/".to_owned(),
            layout,
            inputs: inputs.collect(),
            class_names: vec!["cat".to_owned()],
            images: None,
            left_out: SourceAccount::default(),
        }
    })
}

proptest! {
    #[test]
    fn every_image_is_in_exactly_one_unit_in_order_and_units_are_bounded(listing in listing(), unit_size in 1_usize..100) {
        let plan = plan_units(settings(unit_size, ImageIdRule::Stem), listing.clone()).expect("a plan");
        prop_assert_eq!((&plan.settings().source, plan.settings().origin.images().map(|images| images.layout)), (&listing.source, Some(listing.layout)));
        let mut expected = listing.inputs.iter();
        let mut current: Option<(ListedInput, u64)> = None;
        for input in plan.inputs().iter() {
            // The next part of the current object, or the first of the next one.
            let (listed, start) = match current {
                Some((listed, start)) if listed.rows.is_some_and(|rows| start < rows) => (listed, start),
                _ => (expected.next().expect("no more inputs than listed"), 0),
            };
            prop_assert_eq!((&input.uri, input.size, &input.etag, input.label), (&listed.uri, listed.size, &listed.etag, listed.label));
            match (listing.layout, &input.rows) {
                (SourceLayout::Parquet, Some(rows)) => {
                    prop_assert!(rows.start == start && rows.end - rows.start <= unit_size as u64 && rows.start < rows.end);
                    current = Some((listed, rows.end));
                }
                (_, rows) => {
                    prop_assert_eq!(rows, &None);
                    current = Some((listed, 0));
                }
            }
        }
        prop_assert!(expected.next().is_none(), "every listed object is planned");
        for unit in 0..plan.units() {
            let inputs = plan.unit_inputs(unit);
            match listing.layout {
                SourceLayout::Folder => prop_assert!((1..=unit_size).contains(&inputs.len())),
                _ => prop_assert_eq!(inputs.len(), 1),
            }
        }
    }

    #[test]
    fn the_same_listing_gives_the_same_plan_and_reads_back(listing in listing(), unit_size in 1_usize..100) {
        let plan = plan_units(settings(unit_size, ImageIdRule::Stem), listing.clone()).expect("a plan");
        let again = plan_units(settings(unit_size, ImageIdRule::Stem), listing.clone()).expect("a plan");
        prop_assert_eq!(plan.hash(), again.hash());
        let lines = plan.to_json_lines();
        prop_assert_eq!(&Plan::from_json_lines(lines.as_slice()).expect("reads back"), &plan);
        let mut inputs: Vec<_> = listing.inputs.iter().collect();
        inputs[0].size += 1;
        let other = SourceListing { inputs: inputs.into_iter().collect(), ..listing };
        let other = plan_units(settings(unit_size, ImageIdRule::Stem), other).expect("a plan");
        prop_assert!(plan.hash() != other.hash(), "another size is another plan");
    }
}

#[test]
fn units_have_their_inputs_wherever_these_are_packed() {
    let input = |index: u64| ListedInput {
        uri: format!("s3://bucket/{index:09}/{:016x}", index.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        size: index,
        etag: None,
        label: None,
        rows: None,
    };
    for unit_size in [1, 3, 5_000] {
        let listing = SourceListing {
            source: "s3://bucket/".to_owned(),
            layout: SourceLayout::Folder,
            inputs: (0..10_000).map(input).collect(),
            class_names: vec![],
            images: None,
            left_out: SourceAccount::default(),
        };
        let plan = plan_units(settings(unit_size, ImageIdRule::Path), listing).expect("a plan");
        // Some units of each frame, the first and the last.
        let some = (0..plan.units()).step_by(97).chain([plan.units() - 1]);
        let all: Vec<_> = plan.inputs().iter().collect();
        for unit in some {
            let expected: Vec<_> = all.iter().filter(|input| input.unit == unit).cloned().collect();
            assert_eq!(plan.unit_inputs(unit), expected, "unit {unit} of {unit_size}");
        }
    }
}

#[test]
fn a_sampled_tar_is_read_as_far_as_it_was_sampled() {
    let input = ListedInput { uri: "s3://bucket/a.tar".to_owned(), size: 9, etag: None, label: None, rows: Some(3) };
    let source = "s3://bucket/".to_owned();
    let listing = SourceListing {
        source,
        layout: SourceLayout::Webdataset,
        inputs: PackedList::from_iter([input]),
        class_names: vec![],
        images: Some(3),
        left_out: SourceAccount::default(),
    };
    let plan = plan_units(settings(10, ImageIdRule::Stem), listing).expect("a plan");
    assert_eq!(plan.unit_inputs(0)[0].rows, Some(0..3));
}

#[test]
fn nothing_to_plan_and_units_of_nothing_are_refused() {
    let listing = SourceListing {
        source: "s3://bucket/".to_owned(),
        layout: SourceLayout::Folder,
        inputs: PackedList::default(),
        class_names: vec![],
        images: Some(0),
        left_out: SourceAccount::default(),
    };
    plan_units(settings(10, ImageIdRule::Stem), listing.clone()).expect_err("no inputs");
    let error = plan_units(settings(0, ImageIdRule::Stem), listing).expect_err("no size");
    assert!(error.to_string().contains("unit size"), "{error}");
}
