//! Scores as a table for a person.

use report::text::{aligned, count, counted, named, percent};
use schemas::{ConfidenceInterval, EvaluationRecord, Protocol, ScoreIntervals, Scores};

/// Absent numbers.
const NONE: &str = "-";

/// One evaluation: how it was made, then its numbers, a line for each record.
pub(super) fn text(records: &[EvaluationRecord]) -> String {
    let Some(first) = records.first() else { return String::new() };
    let mut pairs = vec![("protocol", protocol_text(first))];
    pairs.push((
        "set",
        format!("{} of {}x{}: {}", counted(first.images, "image"), first.width, first.height, first.source),
    ));
    let mut add = |name, value: Option<String>| pairs.extend(value.map(|value| (name, value)));
    add("crop", first.crop.clone());
    add("tokenizer", model_text(&first.tokenizer, &first.tokenizer_sha256));
    add("generator", model_text(&first.generator, &first.generator_sha256));
    add("sampling", sampling_text(first));
    add(
        "compared with",
        first.reference.as_ref().map(|reference| match first.reference_images {
            Some(images) => format!("{reference} ({})", counted(images, "image")),
            None => reference.clone(),
        }),
    );
    add(
        "extractor",
        match (&first.extractor_sha256, &first.extractor_precision) {
            (Some(sha256), Some(precision)) => Some(format!("Inception (sha256 {}), {precision}", short(sha256))),
            _ => None,
        },
    );
    let mut text = format!("Evaluation {}\n{}", first.evaluation, named(2, &pairs));
    for deviation in &first.deviations {
        text.push_str(&format!("  ! {deviation}\n"));
    }
    text.push_str(&format!("\n{}", scores_text(records)));
    if let Some(intervals) = intervals_text(&first.scores) {
        text.push_str(&format!("\n{intervals}"));
    }
    if let Some(levels) = levels_text(first) {
        text.push_str(&format!("\n{levels}"));
    }
    let missing = missing(records);
    if !missing.is_empty() {
        text.push_str(&format!("\nNot measured: {}\n", missing.join("; ")));
    }
    text
}

fn protocol_text(record: &EvaluationRecord) -> String {
    if record.protocol == Protocol::GfidAdm && record.reference.is_none() {
        return format!("{}, with nothing to compare with", record.protocol);
    }
    match record.deviations.is_empty() {
        true => format!("{}, kept to the letter", record.protocol),
        false => format!("{}, not kept (marked ! below): do not compare with published numbers", record.protocol),
    }
}

fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}

fn model_text(name: &Option<String>, sha256: &Option<String>) -> Option<String> {
    Some(format!("{} (sha256 {})", name.as_ref()?, short(sha256.as_ref()?)))
}

fn sampling_text(record: &EvaluationRecord) -> Option<String> {
    let (guidance, schedule) = (record.guidance?, record.guidance_schedule.as_ref()?);
    let (top_p, top_k) = (record.top_p?, record.top_k?);
    let (temperature, seed) = (record.temperature?, record.seed?);
    Some(format!(
        "guidance {guidance} ({schedule}), top-p {top_p}, top-k {top_k}, temperature {temperature}, seed {seed}"
    ))
}

/// Name of a column, how its numbers are written, and where they are.
type Column = (&'static str, usize, fn(&Scores) -> Option<f64>);

const COLUMNS: [Column; 17] = [
    ("FID", 4, |scores| scores.fid),
    ("sFID", 4, |scores| scores.sfid),
    ("IS", 3, |scores| scores.inception_score),
    ("precision", 4, |scores| scores.precision),
    ("recall", 4, |scores| scores.recall),
    ("KID", 6, |scores| scores.kid),
    ("KID deviation", 6, |scores| scores.kid_deviation),
    ("MIND", 4, |scores| scores.mind),
    ("density", 4, |scores| scores.density),
    ("coverage", 4, |scores| scores.coverage),
    ("FID infinity", 4, |scores| scores.fid_infinity),
    ("Vendi", 3, |scores| scores.vendi_score),
    ("AuthPct", 2, |scores| scores.authpct),
    ("PSNR, dB", 3, |scores| scores.psnr),
    ("SSIM", 4, |scores| scores.ssim),
    ("MS-SSIM", 4, |scores| scores.ms_ssim),
    ("LPIPS", 4, |scores| scores.lpips),
];

/// Only columns in which there is a number.
fn scores_text(records: &[EvaluationRecord]) -> String {
    let reconstructed = records.iter().any(|record| record.kept_tokens.is_some());
    let columns: Vec<&Column> =
        COLUMNS.iter().filter(|(.., of)| records.iter().any(|record| of(&record.scores).is_some())).collect();
    let name = |name: &'static str| if reconstructed && name == "FID" { "rFID" } else { name };
    let first = if reconstructed { "tokens" } else { "images" };
    let heading = [first.to_owned()].into_iter().chain(columns.iter().map(|(column, ..)| name(column).to_owned()));
    let mut rows = vec![heading.collect::<Vec<_>>()];
    rows.extend(records.iter().map(|record| {
        let first = match record.kept_tokens {
            Some(tokens) => tokens.to_string(),
            None => count(record.images),
        };
        let numbers = columns.iter().map(|(_, digits, of)| {
            of(&record.scores).map_or_else(|| NONE.to_owned(), |number| format!("{number:.digits$}"))
        });
        [first].into_iter().chain(numbers).collect()
    }));
    aligned(2, &rows)
}

/// Name of a column of [`COLUMNS`], and its interval.
type Interval = (&'static str, fn(&ScoreIntervals) -> Option<ConfidenceInterval>);

const INTERVALS: [Interval; 8] = [
    ("FID", |intervals| intervals.fid),
    ("sFID", |intervals| intervals.sfid),
    ("IS", |intervals| intervals.inception_score),
    ("precision", |intervals| intervals.precision),
    ("recall", |intervals| intervals.recall),
    ("KID", |intervals| intervals.kid),
    ("density", |intervals| intervals.density),
    ("coverage", |intervals| intervals.coverage),
];

/// Scores with the bounds of their intervals, a line each.
fn intervals_text(scores: &Scores) -> Option<String> {
    let intervals = scores.intervals.as_ref()?;
    let mut rows = vec![vec![format!("{} % interval", intervals.confidence), "from".to_owned(), "to".to_owned()]];
    rows.extend(INTERVALS.iter().filter_map(|(name, of)| {
        let ConfidenceInterval { lower, upper } = of(intervals)?;
        let (_, digits, _) = COLUMNS.iter().find(|(column, ..)| column == name)?;
        Some(vec![(*name).to_owned(), format!("{lower:.digits$}"), format!("{upper:.digits$}")])
    }));
    (rows.len() > 1).then(|| aligned(2, &rows))
}

/// Use of the codebook, which is the same however many tokens are kept.
fn levels_text(record: &EvaluationRecord) -> Option<String> {
    let (scores, size) = (&record.scores, record.codebook_size?);
    let (used, entropy) = (scores.codes_used?, scores.entropy_bits?);
    let row = |level: String, used: u64, entropy: f64| {
        vec![level, count(used), percent(used as f64 / size.max(1) as f64), format!("{entropy:.2}")]
    };
    let mut rows = vec![["level", "codes used", "of codebook", "entropy, bits"].map(str::to_owned).to_vec()];
    let levels = scores.codes_used_by_level.iter().zip(&scores.entropy_bits_by_level).enumerate();
    rows.extend(levels.map(|(level, (&used, &entropy))| row(level.to_string(), used, entropy)));
    rows.push(row("all".to_owned(), used, entropy));
    Some(aligned(2, &rows))
}

/// What could have been measured, and what it takes.
fn missing(records: &[EvaluationRecord]) -> Vec<&'static str> {
    let Some(first) = records.first() else { return Vec::new() };
    let absent = |of: fn(&Scores) -> Option<f64>| records.iter().all(|record| of(&record.scores).is_none());
    let mut missing = Vec::new();
    match first.kept_tokens {
        Some(_) => {
            if absent(|scores| scores.fid) {
                missing.push("rFID and IS (give --inception)");
            }
            if absent(|scores| scores.psnr) {
                missing.push("PSNR (an image was reconstructed without any error, and the mean is infinite)");
            }
            if absent(|scores| scores.lpips) {
                missing.push(match first.lpips_sha256 {
                    None => "LPIPS (give --alexnet and --lpips)",
                    Some(_) => "LPIPS (the images are too small for AlexNet)",
                });
            }
            if absent(|scores| scores.ms_ssim) {
                missing.push("MS-SSIM (needs images of more than 160 pixels a side)");
            }
        }
        // What was asked for by name is there, or was refused.
        None if asked_by_name(first) => {}
        None => {
            if first.reference.is_none() {
                missing.push("FID, sFID, precision and recall (give --reference)");
            } else {
                if absent(|scores| scores.sfid) {
                    missing.push("sFID (the reference has no statistics of spatial features)");
                }
                if absent(|scores| scores.recall) {
                    missing.push("precision and recall (the reference has no images)");
                }
            }
        }
    }
    missing
}

fn asked_by_name(record: &EvaluationRecord) -> bool {
    let settings = record.score_settings.as_ref().and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
    settings.is_some_and(|settings| settings.get("scores").is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(scores: Scores) -> EvaluationRecord {
        EvaluationRecord {
            evaluation: "0123456789ab".to_owned(),
            images: 50_000,
            height: 256,
            width: 256,
            codebook_size: Some(1_024),
            generator: Some("har".to_owned()),
            generator_sha256: Some("f".repeat(64)),
            guidance: Some(3.75),
            guidance_schedule: Some("step".to_owned()),
            top_p: Some(0.95),
            top_k: Some(0),
            temperature: Some(1.0),
            seed: Some(0),
            reference: Some("imagenet.npz".to_owned()),
            extractor_sha256: Some("a".repeat(64)),
            extractor_precision: Some("float32".to_owned()),
            scores,
            ..EvaluationRecord::new(Protocol::GfidAdm, "samples")
        }
    }

    #[test]
    fn a_protocol_that_was_kept_is_said_to_be() {
        let scores = Scores { fid: Some(2.34), inception_score: Some(260.1234), ..Scores::default() };
        let text = text(&[record(scores)]);
        let expected = "\
Evaluation 0123456789ab
  protocol       gfid-adm, kept to the letter
  set            50,000 images of 256x256: samples
  generator      har (sha256 ffffffffffff)
  sampling       guidance 3.75 (step), top-p 0.95, top-k 0, temperature 1, seed 0
  compared with  imagenet.npz
  extractor      Inception (sha256 aaaaaaaaaaaa), float32

  images     FID       IS
  50,000  2.3400  260.123

Not measured: sFID (the reference has no statistics of spatial features); precision and recall (the reference has no images)
";
        assert_eq!(text, expected);
    }

    #[test]
    fn scores_that_were_asked_for_stand_alone_and_have_their_intervals() {
        let bounds = |lower, upper| Some(ConfidenceInterval { lower, upper });
        let intervals = ScoreIntervals {
            confidence: 95.0,
            fid: bounds(2.29, 2.41),
            kid: bounds(0.0004, 0.0012),
            ..ScoreIntervals::default()
        };
        let scores = Scores {
            fid: Some(2.34),
            kid: Some(0.0008),
            density: Some(1.1),
            intervals: Some(intervals),
            ..Scores::default()
        };
        let settings = Some(r#"{"scores":["fid","kid","density"],"seed":0}"#.to_owned());
        let text = text(&[EvaluationRecord { score_settings: settings, ..record(scores) }]);
        let expected = "
  images     FID       KID  density
  50,000  2.3400  0.000800   1.1000

  95 % interval      from        to
  FID              2.2900    2.4100
  KID            0.000400  0.001200
";
        assert!(text.ends_with(expected), "{text}");
    }

    #[test]
    fn what_broke_it_is_marked_and_reconstructions_have_a_line_for_each_number_of_tokens() {
        let reconstructed = |kept_tokens, psnr| EvaluationRecord {
            protocol: Protocol::Rfid,
            deviations: vec!["count: 10 images, the protocol says 50,000".to_owned()],
            kept_tokens: Some(kept_tokens),
            ..record(Scores {
                psnr: Some(psnr),
                ssim: Some(0.5),
                codes_used: Some(512),
                entropy_bits: Some(8.5),
                codes_used_by_level: vec![10, 502],
                entropy_bits_by_level: vec![3.0, 8.75],
                ..Scores::default()
            })
        };
        let text = text(&[reconstructed(1, 14.78), reconstructed(32, 18.86)]);
        for line in [
            "  protocol       rfid, not kept (marked ! below): do not compare with published numbers",
            "  ! count: 10 images, the protocol says 50,000",
            "  tokens  PSNR, dB    SSIM",
            "  32        18.860  0.5000",
            "  level  codes used  of codebook  entropy, bits",
            "  0              10        1.0 %           3.00",
            "  all           512       50.0 %           8.50",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} in\n{text}");
        }
        assert!(text.contains("rFID and IS (give --inception); LPIPS (give --alexnet and --lpips)"), "{text}");
    }
}
