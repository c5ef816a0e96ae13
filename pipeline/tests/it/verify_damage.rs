//! Verify finds each kind of damage, and names the file it is in.

use crate::run_support::*;
use bytes::Bytes;
use object_store::{ObjectStoreExt, PutPayload, memory::InMemory, path::Path};
use pipeline::{Finding, Storage, VerifyOptions, VerifyReport, finalize, verify};
use schemas::{MANIFEST_PATH, Plan, SUCCESS_PATH, UnitReport, images_path, marker_path, sha256_hex, tokens_path};
use std::sync::Arc;

struct Damaged {
    store: Arc<InMemory>,
    output: Storage,
    plan: Arc<Plan>,
}

impl Damaged {
    async fn new() -> Self {
        let (store, output, plan) = finished_output(14).await;
        Self { store, output, plan }
    }

    async fn replace(&self, path: &str, bytes: impl Into<PutPayload>) {
        self.store.put(&Path::from(format!("out/{path}")), bytes.into()).await.expect("memory");
    }

    async fn remove(&self, path: &str) {
        self.store.delete(&Path::from(format!("out/{path}"))).await.expect("memory");
    }

    fn tokens(&self, unit: u32) -> String {
        tokens_path("train", unit, self.plan.hash())
    }

    fn images(&self, unit: u32) -> String {
        images_path("train", unit, self.plan.hash())
    }

    fn marker(&self, unit: u32) -> String {
        marker_path(unit, self.plan.hash())
    }

    /// Changes a marker.
    async fn edit_marker(&self, unit: u32, edit: impl FnOnce(&mut UnitReport)) {
        let path = self.marker(unit);
        let mut report = schemas::from_json(&path, &self.output.get(&path).await.expect("memory")).expect("a marker");
        edit(&mut report);
        self.replace(&path, schemas::to_json(&path, &report).expect("JSON")).await;
    }

    /// Puts other bytes in place of a tokens file, and makes its marker agree, as damage before the commit would.
    async fn plant_tokens(&self, unit: u32, bytes: Bytes) {
        self.replace(&self.tokens(unit), bytes.clone()).await;
        self.edit_marker(unit, |report| {
            report.tokens.bytes = bytes.len() as u64;
            report.tokens.sha256 = sha256_hex(&bytes);
        })
        .await;
    }

    async fn verify(&self) -> VerifyReport {
        verify(&self.output, &VerifyOptions::default()).await.expect("verify reads on")
    }

    async fn findings(&self) -> Vec<Finding> {
        self.verify().await.findings
    }
}

/// A tokens file as an undisturbed run would write it, changed.
async fn rewritten(damaged: &Damaged, unit: u32, edit: impl FnOnce(&mut schemas::TokenRows)) -> Bytes {
    rewritten_tokens(&damaged.output, unit, edit).await
}

#[tokio::test]
async fn a_sound_output_has_no_findings_and_no_leftovers() {
    let damaged = Damaged::new().await;
    let report = damaged.verify().await;
    assert!(report.is_sound(), "{:?}", report.findings);
    assert!(report.finished && report.leftovers.is_empty());
    assert_eq!((report.units_total, report.units_done, report.files), (3, 3, 6));
}

#[tokio::test]
async fn damaged_missing_and_resized_files_are_all_named_at_once() {
    let damaged = Damaged::new().await;
    let mut flipped = damaged.output.get(&damaged.tokens(0)).await.expect("memory").to_vec();
    flipped[100] ^= 1;
    damaged.replace(&damaged.tokens(0), flipped).await;
    damaged.remove(&damaged.images(1)).await;
    damaged.replace(&damaged.tokens(2), b"short".to_vec()).await;
    let findings = damaged.findings().await;
    let of = |path: &str| -> Vec<&str> {
        findings.iter().filter(|finding| finding.path == path).map(|finding| finding.problem.as_str()).collect()
    };
    assert!(of(&damaged.tokens(0)).iter().any(|problem| problem.contains("SHA-256")), "{findings:?}");
    assert!(of(&damaged.images(1)).iter().any(|problem| problem.contains("is missing")), "{findings:?}");
    assert!(
        of(&damaged.tokens(2)).iter().any(|problem| problem.contains("5 bytes, but its marker says")),
        "{findings:?}"
    );
    let quick = VerifyOptions { read_files: false, ..VerifyOptions::default() };
    let quick = verify(&damaged.output, &quick).await.expect("sizes alone");
    assert_eq!(quick.findings.len(), 2, "a flipped bit needs reading: {:?}", quick.findings);
}

#[tokio::test]
async fn codes_outside_the_codebook_are_counted() {
    let damaged = Damaged::new().await;
    let bytes = rewritten(&damaged, 0, |rows| {
        let mut codes = rows.tokens.codes().to_vec();
        codes[TOKENS_PER_IMAGE * 2 + 1] = CODEBOOK_SIZE as i16;
        codes[TOKENS_PER_IMAGE * 3] = -7;
        rows.tokens = schemas::TokenBatch::try_new(codes, TOKENS_PER_IMAGE).expect("codes");
    })
    .await;
    damaged.plant_tokens(0, bytes).await;
    let findings = damaged.findings().await;
    let problem = &findings.iter().find(|finding| finding.path == damaged.tokens(0)).expect("found").problem;
    assert!(problem.contains("2 rows hold codes outside the codebook of 97, first row 2"), "{findings:?}");
}

#[tokio::test]
async fn rows_of_other_images_or_in_another_order_are_found() {
    for swap in [0, 1] {
        let damaged = Damaged::new().await;
        let bytes =
            rewritten(&damaged, 1, |rows| if swap == 0 { rows.image_ids.swap(0, 2) } else { rows.views.swap(0, 1) });
        let bytes = bytes.await;
        damaged.plant_tokens(1, bytes).await;
        let findings = damaged.findings().await;
        assert!(
            findings.iter().any(|finding| finding.problem.contains("not those of the images table")),
            "{findings:?}"
        );
    }
}

#[tokio::test]
async fn a_file_of_another_unit_is_found_by_its_metadata() {
    let damaged = Damaged::new().await;
    let other = damaged.output.get(&damaged.tokens(1)).await.expect("memory");
    damaged.plant_tokens(0, other).await;
    let findings = damaged.findings().await;
    assert!(findings.iter().any(|finding| finding.problem == "metadata restok.unit is 1, expected 0"), "{findings:?}");
}

#[tokio::test]
async fn a_file_with_other_columns_is_found() {
    let damaged = Damaged::new().await;
    let images = damaged.output.get(&damaged.images(0)).await.expect("memory");
    damaged.plant_tokens(0, images).await;
    let findings = damaged.findings().await;
    assert!(findings.iter().any(|finding| finding.problem.contains("column \"view\"")), "{findings:?}");
}

#[tokio::test]
async fn an_id_in_two_units_is_found_and_keeps_an_output_from_being_finished() {
    let damaged = Damaged::new().await;
    // Unit 1 becomes a copy of unit 0, but for what its own marker and metadata say.
    let tokens = damaged.output.get(&damaged.tokens(0)).await.expect("memory");
    let images = damaged.output.get(&damaged.images(0)).await.expect("memory");
    let report: UnitReport =
        schemas::from_json("marker", &damaged.output.get(&damaged.marker(0)).await.expect("memory")).expect("a marker");
    damaged.replace(&damaged.tokens(1), tokens).await;
    damaged.replace(&damaged.images(1), images).await;
    let (tokens_path, images_path) = (damaged.tokens(1), damaged.images(1));
    damaged
        .edit_marker(1, |marker| {
            marker.row_counts = report.row_counts.clone();
            marker.tokens = schemas::FileRecord { path: tokens_path, ..report.tokens.clone() };
            marker.images = schemas::FileRecord { path: images_path, ..report.images.clone() };
        })
        .await;
    let findings = damaged.findings().await;
    assert!(findings.iter().any(|finding| finding.problem.ends_with("is also in unit 0")), "{findings:?}");
    damaged.remove(SUCCESS_PATH).await;
    damaged.remove(MANIFEST_PATH).await;
    let error = finalize(&damaged.output, 1.0).await.expect_err("ids twice").to_string();
    assert!(error.contains("appears in units 0 and 1") && error.contains("`image_id` path"), "{error}");
    assert!(!damaged.output.exists(SUCCESS_PATH).await.expect("memory"));
}

#[tokio::test]
async fn markers_that_lie_are_found() {
    let damaged = Damaged::new().await;
    damaged
        .edit_marker(0, |report| {
            report.row_counts.listed += 1;
            report.row_counts.written += 1;
            report.row_counts.token_rows += 2;
            report.tokens.rows += 2;
            report.images.rows += 1;
        })
        .await;
    damaged.edit_marker(1, |report| report.row_counts.written += 1).await;
    damaged.replace(&damaged.marker(2), b"{".to_vec()).await;
    let findings = damaged.findings().await;
    let found = |path: &str, words: &str| {
        findings.iter().any(|finding| finding.path == path && finding.problem.contains(words))
    };
    assert!(found(&damaged.images(0), "its rows count"), "{findings:?}");
    assert!(found(&damaged.marker(1), "images listed, but"), "{findings:?}");
    assert!(found(&damaged.marker(2), "EOF"), "{findings:?}");
    assert!(found(MANIFEST_PATH, "no readable marker: 1-2"), "{findings:?}");
}

#[tokio::test]
async fn a_manifest_that_says_something_else_is_found() {
    let damaged = Damaged::new().await;
    let manifest = damaged.output.get(MANIFEST_PATH).await.expect("memory");
    let text = String::from_utf8(manifest.to_vec()).expect("text").replace("\"listed\": 14", "\"listed\": 15");
    damaged.replace(MANIFEST_PATH, text.into_bytes()).await;
    let findings = damaged.findings().await;
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].to_string(), "_manifest.json: does not say what the markers say: row counts differ");
    damaged.remove(MANIFEST_PATH).await;
    let findings = damaged.findings().await;
    assert_eq!(findings[0].to_string(), "_SUCCESS: is there without _manifest.json");
}

#[tokio::test]
async fn an_unfinished_output_is_sound_and_its_stray_files_are_leftovers() {
    let damaged = Damaged::new().await;
    damaged.remove(SUCCESS_PATH).await;
    damaged.remove(MANIFEST_PATH).await;
    damaged.remove(&damaged.marker(1)).await;
    let report = damaged.verify().await;
    assert!(report.is_sound() && !report.finished, "{:?}", report.findings);
    assert_eq!((report.units_done, report.units_total), (2, 3));
    assert_eq!(report.leftovers, [damaged.images(1), damaged.tokens(1)]);
    let error = finalize(&damaged.output, 1.0).await.expect_err("a unit is missing");
    assert!(error.is_temporary());
    assert!(error.to_string().contains("1 units have no marker (1)"), "{error}");
}

#[tokio::test]
async fn finalize_refuses_files_that_are_not_what_their_markers_say() {
    for table in ["tokens", "images"] {
        let damaged = Damaged::new().await;
        damaged.remove(SUCCESS_PATH).await;
        damaged.remove(MANIFEST_PATH).await;
        let path = if table == "tokens" { damaged.tokens(2) } else { damaged.images(2) };
        damaged.replace(&path, b"something else".to_vec()).await;
        let error = finalize(&damaged.output, 1.0).await.expect_err("damaged").to_string();
        assert!(error.contains(&path) && error.contains("14 bytes, but its marker says"), "{error}");
        assert!(!damaged.output.exists(SUCCESS_PATH).await.expect("memory"));
    }
}

#[tokio::test]
async fn a_place_without_a_plan_is_no_output() {
    let (_, output) = memory_output();
    for error in [
        verify(&output, &VerifyOptions::default()).await.expect_err("nothing there"),
        finalize(&output, 1.0).await.expect_err("nothing there"),
        pipeline::TableReader::open(&output).await.expect_err("nothing there"),
    ] {
        assert_eq!(error.to_string(), "memory:///out: no plan is here: is this the output of `restok tokenize`?");
    }
}
