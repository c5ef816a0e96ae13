//! The page as a function of what was read.

use super::super::{
    album::{LeftOut, Picture},
    gather::{Content, Metrics, Sheets, Subject, Sweep, SweepPoint, TrainingRun},
    page::page,
};
use schemas::{
    ConfidenceInterval, EvaluationRecord, GeneratorIdentity, Origin, PlanSettings, Protocol, SampleOrigin, Sampling,
    ScoreIntervals, Scores, TokenLevels, TokenizerIdentity,
};
use serde_json::Value;

fn record(source: &str, kept_tokens: Option<u16>, fid: f64, deviations: &[&str]) -> EvaluationRecord {
    let protocol = if kept_tokens.is_some() { Protocol::Rfid } else { Protocol::GfidAdm };
    EvaluationRecord {
        evaluation: "0123abcd".to_owned(),
        deviations: deviations.iter().map(ToString::to_string).collect(),
        source_digest: "d".repeat(64),
        images: 50_000,
        height: 256,
        width: 256,
        kept_tokens,
        tokenizer: Some("hf://owner/name".to_owned()),
        codebook_size: Some(1_024),
        reference: Some("VIRTUAL <reference>".to_owned()),
        device_kind: "cpu".to_owned(),
        libtorch: "2.13.0".to_owned(),
        restok: "0.1.0".to_owned(),
        scores: Scores {
            fid: Some(fid),
            psnr: kept_tokens.map(|kept| 10.0 + f64::from(kept)),
            entropy_bits_by_level: vec![5.0, 7.5],
            codes_used_by_level: vec![40, 300],
            ..Scores::default()
        },
        ..EvaluationRecord::new(protocol, source)
    }
}

fn subject(content: Content, scores: Vec<EvaluationRecord>) -> Subject {
    Subject { name: "one".to_owned(), address: "file:///data/one".to_owned(), content, scores }
}

fn point(scale: f64) -> SweepPoint {
    let mut sampling = Sampling::paper(7);
    sampling.guidance.scale = scale;
    let identity = |name: &str| (name.to_owned(), "0".repeat(64));
    let ((name, sha256), (generator, generator_sha256)) = (identity("tokenizer"), identity("<generator>"));
    let levels = TokenLevels::published(32).expect("levels");
    SweepPoint {
        name: format!("guidance-{scale}"),
        address: format!("file:///sweep/guidance-{scale}"),
        settings: PlanSettings {
            source: "generator".to_owned(),
            split: "generated".to_owned(),
            tokenizer: TokenizerIdentity { name, sha256, codebook_size: 1_024, levels },
            precision: "fp32".to_owned(),
            batch_size: 50,
            unit_size: 1_000,
            origin: Origin::Samples(SampleOrigin {
                generator: GeneratorIdentity { name: generator, sha256: generator_sha256 },
                sampling,
                count: 100,
                classes: vec![0, 1],
                pictures: None,
            }),
        },
        finished: scale < 2.0,
        samples: 100,
        codes_used: 512,
        entropy_bits: 8.5,
        pictures: vec![Picture { address: "data:,".to_owned(), width: 8, height: 8, told: "sample 0".to_owned() }],
    }
}

#[test]
fn scores_have_their_intervals_and_sets_their_difference() {
    let with = |source: &str, fid: f64| {
        let mut record = record(source, None, fid, &[]);
        let fid = Some(ConfidenceInterval { lower: fid - 0.25, upper: fid + 0.25 });
        record.scores.kid = Some(0.0125);
        record.scores.intervals = Some(ScoreIntervals { confidence: 95.0, fid, ..ScoreIntervals::default() });
        record
    };
    let html = page(&[subject(Content::Scores, vec![with("/sets/a.npz", 2.5), with("/sets/b.npz", 4.5)])]);
    assert!(html.contains("<td>2.5 [2.25, 2.75]</td>") && html.contains("<td>0.0125</td>"), "{html}");
    assert!(html.contains("FID of /sets/a.npz is 2 lower than that of /sets/b.npz, more than chance"), "{html}");
}

#[test]
fn deviations_stand_beside_the_numbers_and_protocols_apart() {
    let broken = "count: 10 images, the protocol says 50000";
    let scores = vec![record("/sets/a.npz", None, 2.345_678, &[]), record("/sets/b.npz", None, 3.5, &[broken])];
    let html = page(&[subject(Content::Scores, scores)]);
    assert!(
        html.contains("<td>2.3457</td>") && html.contains("gfid-adm kept") && html.contains("not gfid-adm"),
        "{html}"
    );
    let row = html.find("<td>3.5</td>").expect("the second line");
    assert!(html[row..].starts_with("<td>3.5</td>") && html[row..row + 400].contains(broken), "{}", &html[row..]);
    assert!(html.contains("VIRTUAL &lt;reference&gt;") && !html.contains("<reference>"));
    assert!(!html.contains("tokens kept") && !html.contains("Protocol <code>rfid</code>"));
}

#[test]
fn scores_by_tokens_kept_are_curves() {
    let scores = [1, 4, 32].map(|kept| record("/data/images", Some(kept), 100.0 / f64::from(kept), &[])).to_vec();
    let html = page(&[subject(Content::Scores, scores)]);
    for told in ["PSNR, dB", ": 14 at 4 tokens kept", ": 25 at 4 tokens kept", "Entropy of the codes by level"] {
        assert!(html.contains(told), "{told}");
    }
    assert!(html.contains("level 1: 7.500 bits, 300 codes used"));
    // Two evaluations of one set are two curves, each with its name; what broke the protocol is said beside it.
    let named = |name: &str, fid: f64, deviations: &[&str]| {
        [1, 32].map(|kept| EvaluationRecord {
            evaluation: name.to_owned(),
            ..record("/data/images", Some(kept), fid, deviations)
        })
    };
    let scores = [named("first", 9.0, &[]), named("second", 7.0, &["count: 10 images"])].concat();
    let html = page(&[subject(Content::Scores, scores)]);
    let chart = &html[html.find("<figcaption>FID").expect("a chart")..];
    let chart = &chart[..chart.find("</figure>").expect("its end")];
    assert_eq!(chart.matches("<g class=\"s").count(), 2, "{chart}");
    assert!(chart.contains("/data/images by …/owner/name · first</li>"), "{chart}");
    assert!(chart.contains(" · second, not rfid</li>"), "{chart}");
    // A single number of tokens is a line of the table and no curve.
    let html = page(&[subject(Content::Scores, vec![record("/data/images", Some(32), 3.0, &[])])]);
    assert!(!html.contains("at 32 tokens kept") && html.contains("<td>32</td>"));
}

#[test]
fn a_sweep_is_a_table_with_the_scores_of_its_sets() {
    let points = vec![point(1.0), point(3.0)];
    let scored = record("file:///sweep/guidance-3/pictures/samples.npz", None, 4.25, &["count: 100 images"]);
    let html = page(&[subject(Content::Sweep(Sweep { points, left_out: LeftOut::default() }), vec![scored])]);
    assert!(html.contains("1 of 2 sets finished"));
    let table = &html[html.find("<table>").expect("a table")..html.find("</table>").expect("its end")];
    assert!(table.contains("<th scope=\"col\">FID</th>") && table.matches("<td>4.25</td>").count() == 1, "{table}");
    assert!(html.contains("guidance-3: not the protocol gfid-adm. count: 100 images."));
    assert!(html.contains("<td title=\"file:///sweep/guidance-3/pictures/samples.npz\">…/sweep/guidance-3</td>"));
    assert!(html.contains("Codes used") && html.contains("&lt;generator&gt;"));
    // What differs is in the table, what all have in common below.
    assert!(html.contains("<dt>sampling · top p</dt>") && !html.contains("<dt>sampling · guidance · scale</dt>"));
}

#[test]
fn scores_of_a_sweep_are_of_one_kind() {
    let sets = || Sweep { points: vec![point(1.0), point(2.0), point(3.0)], left_out: LeftOut::default() };
    let of = |scale: u32, fid: f64, reference: &str| EvaluationRecord {
        reference: Some(reference.to_owned()),
        ..record(&format!("file:///sweep/guidance-{scale}"), None, fid, &[])
    };
    // One set was scored against something else before, and stands first.
    let scores = vec![of(1, 91.0, "small"), of(1, 11.0, "large"), of(2, 12.0, "large"), of(3, 13.0, "large")];
    let html = page(&[subject(Content::Sweep(sets()), scores.clone())]);
    let own = &html[..html.find("<h3>Scores</h3>").expect("the scores")];
    for shown in ["<td>11</td>", "<td>12</td>", "<td>13</td>", "against large", "1 other line of these sets"] {
        assert!(own.contains(shown), "{shown}: {own}");
    }
    assert!(!own.contains("91") && html.contains("<td>91</td>"), "{own}");
    // Another number of images, another extractor and another protocol do not mix either.
    for change in [
        |record: &mut EvaluationRecord| record.images = 7,
        |record: &mut EvaluationRecord| record.extractor_sha256 = Some("other".to_owned()),
        |record: &mut EvaluationRecord| record.protocol = Protocol::Rfid,
    ] {
        let mut scores = scores[1..].to_vec();
        change(&mut scores[0]);
        let html = page(&[subject(Content::Sweep(sets()), scores)]);
        let own = &html[..html.find("<h3>Scores</h3>").expect("the scores")];
        assert!(!own.contains("<td>11</td>") && own.contains("<td>12</td>"), "{own}");
    }
    // A path that means this set only from some working directory is not taken for it.
    let mut elsewhere = of(1, 11.0, "large");
    elsewhere.source = "/sweep/guidance-1".to_owned();
    let html = page(&[subject(Content::Sweep(sets()), vec![elsewhere])]);
    assert!(!html[..html.find("<h3>Scores</h3>").expect("the scores")].contains("<td>11</td>"));
}

#[test]
fn a_training_shows_what_it_has_and_nothing_else() {
    let run = TrainingRun {
        published: "generator",
        finished: false,
        steps: 1_500,
        steps_planned: Some(2_000),
        checkpoints: vec![1_000, 1_500],
        best: None,
        machine: "cpu <x>".to_owned(),
        settings: serde_json::json!({ "recipe": { "seed": 3 }, "source": "https://me:secret@host/a?key=secret" }),
        changes: vec![(700, vec!["batch_size: 8 then, 4 now".to_owned()])],
        scores: Value::Null,
        metrics: Metrics {
            columns: vec![("loss".to_owned(), vec![(1.0, 5.0), (2.0, 4.0)]), ("empty".to_owned(), Vec::new())],
        },
        sheets: Sheets::default(),
    };
    let html = page(&[subject(Content::Training(Box::new(run)), Vec::new())]);
    assert!(html.contains("<strong>1,500</strong><span>of 2,000 steps</span>") && html.contains("cpu &lt;x&gt;"));
    assert!(html.contains("<h3>Curves</h3>") && html.contains("training: 4 at 2 step") && !html.contains("empty"));
    assert!(html.contains("after step 700: batch_size: 8 then, 4 now") && !html.contains("<h3>Sheets</h3>"));
    assert!(html.contains("https://host/a") && !html.contains("secret"));
    assert!(!html.contains("<script") && html.starts_with("<!DOCTYPE html>"));
}
