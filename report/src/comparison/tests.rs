//! Lines beside each other: what compares, what is best, and how it is written.

use super::{super::score_lines::ScoreColumn, Comparison, RowOrder, mark};
use schemas::{ConfidenceInterval, EvaluationRecord, Protocol, ScoreIntervals, Scores};

/// A set that keeps the protocol, with an inception score.
fn line(source: &str, fid: f64) -> EvaluationRecord {
    EvaluationRecord {
        evaluation: format!("evaluation of {source}"),
        images: 50_000,
        height: 256,
        width: 256,
        reference: Some("imagenet.npz".to_owned()),
        reference_sha256: Some("a".repeat(64)),
        extractor_sha256: Some("b".repeat(64)),
        extractor_precision: Some("float32".to_owned()),
        scores: Scores { fid: Some(fid), inception_score: Some(100.0 - fid), ..Scores::default() },
        ..EvaluationRecord::new(Protocol::GfidAdm, source)
    }
}

/// The same with an interval of the FID.
fn with_interval(source: &str, fid: f64, half: f64, confidence: f64) -> EvaluationRecord {
    let mut record = line(source, fid);
    let interval = ConfidenceInterval { lower: fid - half, upper: fid + half };
    record.scores.intervals = Some(ScoreIntervals { confidence, fid: Some(interval), ..ScoreIntervals::default() });
    record
}

fn reconstruction(tokenizer: &str, kept: u16, psnr: f64) -> EvaluationRecord {
    EvaluationRecord {
        kept_tokens: Some(kept),
        tokenizer: Some(tokenizer.to_owned()),
        reference: Some("the originals".to_owned()),
        reference_sha256: Some("d".repeat(64)),
        images: 50_000,
        crop: Some("torchvision-center-256".to_owned()),
        scores: Scores { psnr: Some(psnr), ..Scores::default() },
        ..EvaluationRecord::new(Protocol::Rfid, "s3://bucket/validation")
    }
}

fn column(key: &str) -> &'static ScoreColumn {
    ScoreColumn::all().iter().find(|column| column.key() == key).expect("a score")
}

fn compared(records: &[EvaluationRecord]) -> Comparison {
    Comparison::new(records.to_vec(), None, RowOrder::FirstScore)
}

/// The names of the sets, as sorted.
fn sets(comparison: &Comparison) -> Vec<&str> {
    comparison.rows.iter().map(|row| row.set.as_str()).collect()
}

/// Sets and scores that are marked as best.
fn best(comparison: &Comparison) -> Vec<(&str, &str)> {
    let of_row = |row| {
        let marked = comparison.columns.iter().filter(move |column| comparison.best_of(row).contains(&column.field));
        marked.map(move |column| (row.set.as_str(), column.key))
    };
    comparison.rows.iter().flat_map(of_row).collect()
}

#[test]
fn lines_on_equal_terms_are_sorted_and_the_best_of_each_score_is_marked() {
    let comparison = compared(&[line("b", 3.0), line("a", 2.25), line("c", 2.5)]);
    let expected = "\
set  images   FID ↓  inception score ↑
a    50,000  2.25 *            97.75 *
c    50,000  2.50              97.50
b    50,000  3.00              97.00

* the best of those that compare

Compared under gfid-adm: 50,000 images, 256x256, imagenet.npz (sha256 aaaaaaaaaaaa), the Inception network with sha256 bbbbbbbbbbbb in float32.
";
    assert_eq!(comparison.text(), expected);
    let given = Comparison::new(vec![line("b", 3.0), line("a", 2.25)], None, RowOrder::Given);
    assert_eq!(sets(&given), ["b", "a"]);
    let by_score = |key| Comparison::new(vec![line("b", 3.0), line("a", 2.25)], None, RowOrder::Score(column(key)));
    assert_eq!((sets(&by_score("fid")), sets(&by_score("is"))), (vec!["a", "b"], vec!["a", "b"]));
    let asked = Comparison::new(vec![line("b", 3.0), line("a", 2.25)], Some(vec![column("is")]), RowOrder::FirstScore);
    assert!(!asked.text().contains("FID") && asked.text().contains("inception score"), "{}", asked.text());
}

#[test]
fn another_number_of_images_is_no_rank_and_says_which_scores_depend_on_it() {
    let mut few = line("few", 1.0);
    few.images = 5_000;
    few.scores.kid = Some(0.001);
    let comparison = compared(&[few, line("a", 3.0), line("b", 2.0)]);
    assert_eq!(sets(&comparison), ["b", "a", "few"], "what does not compare stands last");
    assert_eq!(best(&comparison), [("b", "fid"), ("b", "is")]);
    let text = comparison.text();
    for part in [
        "few   5,000  1.00 [a]          99.00 [a]  0.001000\n",
        "[a] count: 5,000 images; the others: 50,000 images. FID and inception score depend on it, KID does not.",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
}

#[test]
fn another_reference_leaves_the_inception_score_comparable() {
    let other = EvaluationRecord { reference_sha256: Some("c".repeat(64)), ..line("other", 1.0) };
    let comparison = compared(&[line("a", 3.0), line("b", 2.0), other]);
    assert_eq!(best(&comparison), [("b", "fid"), ("other", "is")]);
    assert_eq!(
        comparison.notes,
        [
            "reference: imagenet.npz (sha256 cccccccccccc); the others: imagenet.npz (sha256 aaaaaaaaaaaa). FID depends on it, \
          inception score does not."
        ]
    );
    // Without a reference there is nothing that depends on it.
    let mut without = EvaluationRecord { reference: None, reference_sha256: None, ..line("without", 0.0) };
    without.scores = Scores { inception_score: Some(300.0), ..Scores::default() };
    let comparison = compared(&[line("a", 3.0), without.clone(), line("b", 2.0)]);
    assert!(comparison.notes.is_empty(), "{:?}", comparison.notes);
    assert_eq!(best(&comparison), [("b", "fid"), ("without", "is")]);
    // Even where most have none.
    let another = EvaluationRecord { source: "another".to_owned(), ..without.clone() };
    let third = EvaluationRecord { source: "third".to_owned(), ..without.clone() };
    let comparison = compared(&[without, another, line("a", 3.0), line("b", 2.0), third]);
    assert!(comparison.notes.is_empty(), "{:?}", comparison.notes);
    assert!(best(&comparison).contains(&("b", "fid")));
}

#[test]
fn each_difference_is_told_once_and_of_another_protocol_nothing_else() {
    let extractor = |source: &str| EvaluationRecord { extractor_sha256: Some("e".repeat(64)), ..line(source, 1.0) };
    let mut sorted = line("sorted", 1.0);
    sorted.deviations = vec!["order: sorted by class, the protocol says mixed".to_owned()];
    let all = [
        line("a", 3.0),
        line("b", 2.0),
        line("c", 4.0),
        extractor("d"),
        extractor("e"),
        sorted,
        EvaluationRecord { images: 10, ..reconstruction("t", 4, 20.0) },
    ];
    let comparison = compared(&all);
    let names: Vec<&str> = comparison.notes.iter().filter_map(|note| note.split(':').next()).collect();
    assert_eq!(names, ["order", "extractor", "protocol"], "{:?}", comparison.notes);
    assert!(comparison.notes[0].ends_with(
        "sorted by class, the protocol says mixed; the others: as the protocol says. inception score depends on it, FID does not."
    ));
    assert_eq!(comparison.notes[2], "protocol: rfid; the others: gfid-adm. Every score depends on it.");
    // Fewer originals are other originals, which is one difference.
    let originals = |images, digest: &str, psnr| EvaluationRecord {
        images,
        reference_sha256: Some(digest.repeat(64)),
        ..reconstruction("t", 4, psnr)
    };
    let comparison = compared(&[originals(50, "1", 20.0), originals(50, "1", 21.0), originals(10, "2", 22.0)]);
    assert_eq!(comparison.notes, ["count: 10 images; the others: 50 images. Every score depends on it."]);
    // Of two differences, each number has the marks of those that it depends on.
    let both =
        EvaluationRecord { images: 10, reference_sha256: None, reference: Some("x".to_owned()), ..line("x", 1.0) };
    let text = compared(&[line("a", 3.0), line("b", 2.0), both]).text();
    assert!(text.contains("1.00 [a,b]") && text.contains("99.00 [a]"), "{text}");
}

#[test]
fn of_groups_alike_in_size_the_one_that_keeps_its_protocol_is_compared_and_then_the_first() {
    let few = |source: &str, fid| {
        let deviations = vec!["count: 10 images, the protocol says 50,000".to_owned()];
        EvaluationRecord { images: 10, deviations, ..line(source, fid) }
    };
    let comparison = compared(&[few("few", 1.0), line("a", 2.0)]);
    assert_eq!(comparison.notes.len(), 1);
    assert!(comparison.notes[0].starts_with("count: 10 images; the others: 50,000 images"), "{:?}", comparison.notes);
    assert!(best(&comparison).is_empty(), "who stands alone is not the best");
    let comparison = compared(&[few("a", 1.0), few("b", 2.0), line("c", 3.0)]);
    assert!(comparison.notes[0].starts_with("count: 50,000 images; the others: 10 images"), "{:?}", comparison.notes);
    assert!(comparison.text().contains(
        "gfid-adm was not kept (count: 10 images, the protocol says 50,000): these numbers do not compare with published ones."
    ));
}

#[test]
fn numbers_that_read_the_same_are_all_the_best_and_missing_ones_stand_last() {
    let mut without = line("without", 1.0);
    without.scores.fid = None;
    let comparison = compared(&[without, line("a", 2.001), line("b", 1.999), line("c", 2.2)]);
    assert_eq!(sets(&comparison), ["b", "a", "c", "without"]);
    let fid: Vec<_> = best(&comparison).into_iter().filter(|(_, key)| *key == "fid").collect();
    assert_eq!(fid, [("b", "fid"), ("a", "fid")]);
    assert!(comparison.text().contains("without  50,000     -    "), "{}", comparison.text());
    assert!(compared(&[]).text().starts_with("set  images\n"));
}

#[test]
fn intervals_stand_behind_their_numbers_and_say_whether_the_best_is_better_than_the_next() {
    let lines = [
        with_interval("a", 2.5, 0.0625, 95.0),
        with_interval("b", 2.0, 0.0625, 95.0),
        with_interval("c", 2.53, 0.0625, 95.0),
    ];
    let comparison = compared(&lines);
    let text = comparison.text();
    for part in [
        "b    50,000  2.00 (1.94–2.06) *",
        "Behind the numbers: confidence intervals of 95 %.",
        "FID of b is 0.5 lower than that of a, more than chance",
        "drawn independently",
    ] {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    assert_eq!(text.matches("more than chance").count(), 1, "the best beside the next alone: {text}");
    assert!(comparison.latex().contains(" \\textbf{2.00} {\\scriptsize [1.94, 2.06]} & "), "{}", comparison.latex());
    assert!(comparison.markdown().contains("| **2.00** (1.94–2.06) |"), "{}", comparison.markdown());
    // Of several confidences, each stands beside its interval; the sentence is about one.
    let mixed = compared(&[lines[0].clone(), with_interval("d", 2.0, 0.0625, 90.0)]).text();
    assert!(mixed.contains("2.00 (1.94–2.06, 90 %) *") && mixed.contains("2.50 (2.44–2.56, 95 %)"), "{mixed}");
    assert!(!mixed.contains("chance") && !mixed.contains("Behind the numbers"), "{mixed}");
    let negative = compared(&[with_interval("a", 0.0, 0.25, 95.0)]);
    assert!(negative.text().contains("0.00 (-0.25 to 0.25)"), "{}", negative.text());
    assert!(negative.latex().contains("[$-$0.25, 0.25]"), "{}", negative.latex());
}

#[test]
fn lines_of_one_set_are_told_apart_by_what_made_them() {
    let comparison =
        compared(&[reconstruction("x", 4, 20.0), reconstruction("y", 4, 21.0), reconstruction("y", 1, 15.0)]);
    let expected = "\
set                  images  tokenizer  tokens kept  PSNR, dB ↑
…/bucket/validation  50,000          y            4     21.00 *
…/bucket/validation  50,000          x            4     20.00
…/bucket/validation  50,000          y            1     15.00
";
    assert!(comparison.text().starts_with(expected), "{}", comparison.text());
    // Tokenizers of one name by their digests.
    let with = |sha256: &str| EvaluationRecord {
        tokenizer_sha256: Some(sha256.repeat(64)),
        evaluation: sha256.to_owned(),
        ..reconstruction("x", 4, 20.0)
    };
    let comparison = compared(&[with("1"), with("2")]);
    assert!(comparison.text().contains("tokenizer, sha256") && comparison.text().contains("  222222222222  "));
    // By the evaluation where nothing else differs, and not at all where everything is the same.
    let again = EvaluationRecord { evaluation: "again".to_owned(), ..with("1") };
    assert!(compared(&[with("1"), again]).text().contains("again"));
    let twice = compared(&[with("1"), with("1")]);
    assert_eq!(twice.rows.len(), 1);
    assert!(twice.text().contains("1 line given more than once, and shown once."), "{}", twice.text());
    // Addresses that end alike are whole.
    let comparison = compared(&[line("s3://one/a/b", 2.0), line("s3://two/a/b", 3.0), line("s3://one/a/c", 4.0)]);
    assert_eq!(sets(&comparison), ["s3://one/a/b", "s3://two/a/b", "…/a/c"]);
}

#[test]
fn names_are_no_markup_in_any_format() {
    let hostile = "[a|b]_*<i>&$x$ 50%\\{#~^\n\", \"c";
    let comparison = compared(&[line(hostile, 2.0), line("b", 3.0)]);
    let markdown = comparison.markdown();
    let row = markdown.lines().find(|line| line.contains("50%")).expect("a row");
    assert!(row.starts_with(r#"| \[a\|b\]\_\*&lt;i&gt;&amp;\$x\$ 50%\\{#\~^ ", "c | 50,000 | **2.00** |"#), "{row}");
    let latex = comparison.latex();
    let row = latex.lines().find(|line| line.contains("50\\%")).expect("a row");
    let escaped = r#"{[}a\textbar{}b{]}\_{*}\textless{}i\textgreater{}\&\$x\$ 50\%\textbackslash{}\{\#\textasciitilde{}\textasciicircum{} ", "c & 50,000"#;
    assert!(row.starts_with(escaped), "{row}");
    let csv = comparison.csv().expect("a table");
    let mut reader = ::csv::Reader::from_reader(csv.as_bytes());
    let rows: Vec<::csv::StringRecord> = reader.records().collect::<Result<_, _>>().expect("rows of one length");
    assert_eq!((rows.len(), &rows[0][2]), (2, hostile));
}

#[test]
fn every_format_has_marks_and_notes() {
    let few = EvaluationRecord { images: 5_000, ..with_interval("few_1", 1.0, 0.5, 95.0) };
    let comparison = compared(&[few, line("a", 3.0), line("b", 2.0)]);
    let markdown = comparison.markdown();
    let expected = "\
| set | images | FID ↓ | inception score ↑ |
| :-- | --: | --: | --: |
| b | 50,000 | **2.00** | **98.00** |
| a | 50,000 | 3.00 | 97.00 |
| few\\_1 | 5,000 | 1.00 (0.50–1.50) <sup>a</sup> | 99.00 <sup>a</sup> |

- <sup>a</sup> count: 5,000 images; the others: 50,000 images. Every score depends on it.
";
    assert!(markdown.starts_with(expected), "{markdown}");
    let latex = comparison.latex();
    for part in [
        "\\begin{tabular}{lrrr}\n\\toprule\nset & images & FID $\\downarrow$ & inception score $\\uparrow$ \\\\\n\\midrule\n",
        "\nfew\\_1 & 5,000 & 1.00 {\\scriptsize [0.50, 1.50]}\\textsuperscript{a} & 99.00\\textsuperscript{a} \\\\\n\\bottomrule\n",
        "\n\\textsuperscript{a} count: 5,000 images;",
    ] {
        assert!(latex.contains(part), "{part:?} is not in\n{latex}");
    }
    let csv = comparison.csv().expect("a table");
    let mut reader = ::csv::Reader::from_reader(csv.as_bytes());
    let names = reader.headers().expect("a header").clone();
    let rows: Vec<::csv::StringRecord> = reader.records().collect::<Result<_, _>>().expect("rows");
    let cell = |row: usize, name: &str| rows[row][names.iter().position(|found| found == name).expect(name)].to_owned();
    assert_eq!([cell(0, "set"), cell(0, "fid"), cell(0, "best")], ["b", "2", "fid;inception_score"]);
    assert_eq!([cell(2, "fid_lower"), cell(2, "confidence"), cell(0, "fid_upper")], ["0.5", "95", ""]);
    assert_eq!(cell(2, "not_comparable"), "fid;inception_score");
    assert_eq!(cell(2, "notes"), "count: 5,000 images; the others: 50,000 images. Every score depends on it.");
    let json = serde_json::to_value(comparison.document()).expect("a document");
    assert_eq!(json["sets"][2]["not_comparable"]["fid"], serde_json::json!(["a"]));
    assert_eq!(json["scores"][0], serde_json::json!({ "name": "fid", "better": "lower" }));
    assert_eq!(
        (json["sets"][0]["best"][0].as_str(), json["sets"][2]["record"]["images"].as_u64()),
        (Some("fid"), Some(5_000))
    );
    assert!(json["notes"]["a"].as_str().is_some_and(|note| note.starts_with("count")));
}

#[test]
fn notes_have_as_many_marks_as_they_need() {
    assert_eq!([0, 25, 26, 27, 701, 702].map(mark), ["a", "z", "aa", "ab", "zz", "aaa"]);
}
