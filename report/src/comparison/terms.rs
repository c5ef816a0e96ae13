//! What must be alike before numbers of two lines compare, and which numbers it matters to.

use crate::{
    score_lines::{Measured, ScoreColumn, end_of},
    text::{count, counted},
};
use schemas::{DeviationKind, EvaluationRecord, Protocol, ScoreKind};

/// Digits of a digest that are shown.
const DIGITS: usize = 12;

const PROTOCOL: &str = "protocol";
const REFERENCE: &str = "reference";

/// Something that must be alike.
pub(super) struct Term {
    /// What it is called.
    pub(super) name: &'static str,
    /// What must be equal; `None` of a line that has nothing of the kind, and no number that depends on it.
    value: fn(&EvaluationRecord) -> Option<String>,
    /// The same for a reader.
    pub(super) text: fn(&EvaluationRecord) -> String,
    /// Whether a number under this protocol depends on it.
    pub(super) matters_to: fn(&ScoreColumn, Protocol) -> bool,
    /// Whether it is part of what a comparison says of itself.
    is_told: bool,
}

const EVERY_SCORE: fn(&ScoreColumn, Protocol) -> bool = |_, _| true;

/// All terms. The protocol is the first, for another one is another of everything.
static TERMS: [Term; 13] = [
    Term {
        name: PROTOCOL,
        value: |record| Some(record.protocol.to_string()),
        text: |record| record.protocol.to_string(),
        matters_to: EVERY_SCORE,
        is_told: false,
    },
    Term {
        name: "count",
        value: |record| Some(record.images.to_string()),
        text: |record| counted(record.images, "image"),
        // Of reconstructions, fewer originals are other originals.
        matters_to: |column, protocol| match column.measured {
            // Subsets of the deviation have more images in common in a small set.
            Measured::Features(kind) => {
                kind.depends_on_count() || column.field == "kid_deviation" || protocol == Protocol::Rfid
            }
            Measured::Pixels | Measured::Lpips | Measured::Codes => true,
        },
        is_told: true,
    },
    Term { name: "size", value: |record| Some(size(record)), text: size, matters_to: EVERY_SCORE, is_told: true },
    Term { name: "crop", value: |record| Some(crop(record)), text: crop, matters_to: EVERY_SCORE, is_told: false },
    Term {
        name: REFERENCE,
        value: |record| record.reference_sha256.clone().or_else(|| record.reference.clone()),
        text: reference,
        // All numbers of reconstructions are about the originals.
        matters_to: |column, protocol| match column.measured {
            Measured::Features(kind) => kind.needs_reference() || protocol == Protocol::Rfid,
            Measured::Pixels | Measured::Lpips | Measured::Codes => true,
        },
        is_told: true,
    },
    Term {
        name: "extractor",
        value: |record| Some(format!("{:?} {:?}", record.extractor_sha256.as_ref()?, record.extractor_precision)),
        text: |record| {
            let (sha256, precision) = (&record.extractor_sha256, &record.extractor_precision);
            let named = format!("the Inception network with sha256 {}", short(sha256.as_deref().unwrap_or_default()));
            precision.as_ref().map_or(named.clone(), |precision| format!("{named} in {precision}"))
        },
        matters_to: |column, _| matches!(column.measured, Measured::Features(_)),
        is_told: true,
    },
    Term {
        name: "networks of LPIPS",
        value: |record| record.lpips_sha256.clone(),
        text: |record| {
            let digests = record.lpips_sha256.as_deref().unwrap_or_default().split('+').map(short);
            format!("sha256 {}", digests.collect::<Vec<_>>().join(" and "))
        },
        matters_to: |column, _| column.measured == Measured::Lpips,
        is_told: false,
    },
    Term {
        name: "order",
        value: |record| Some(is_broken(record, DeviationKind::Order)),
        text: |record| rule(record, DeviationKind::Order),
        // The only score that is taken over consecutive splits.
        matters_to: |column, _| column.measured == Measured::Features(ScoreKind::Is),
        is_told: false,
    },
    Term {
        name: "files",
        value: |record| Some(is_broken(record, DeviationKind::Jpeg)),
        text: |record| rule(record, DeviationKind::Jpeg),
        matters_to: EVERY_SCORE,
        is_told: false,
    },
    Term {
        name: "rejects",
        value: |record| Some(is_broken(record, DeviationKind::Rejects)),
        text: |record| rule(record, DeviationKind::Rejects),
        matters_to: EVERY_SCORE,
        is_told: false,
    },
    Term {
        name: "precision of the tokenizer",
        value: |record| Some(is_broken(record, DeviationKind::Precision)),
        text: |record| rule(record, DeviationKind::Precision),
        matters_to: EVERY_SCORE,
        is_told: false,
    },
    Term {
        name: "neighbours",
        value: |record| setting(record, "density_coverage_neighbours"),
        text: |record| setting(record, "density_coverage_neighbours").unwrap_or_default(),
        matters_to: |column, _| matches!(column.measured, Measured::Features(ScoreKind::Density | ScoreKind::Coverage)),
        is_told: false,
    },
    Term {
        name: "subsets of KID",
        value: |record| setting(record, "kid_subset_size"),
        text: |record| format!("{} images each", setting(record, "kid_subset_size").unwrap_or_default()),
        // The mean over subsets has no bias, whatever their size.
        matters_to: |column, _| column.field == "kid_deviation",
        is_told: false,
    },
];

/// The terms of a comparison.
pub(super) struct Terms<'a> {
    /// Lines on these terms, the first of those that were given first.
    pub(super) common: Vec<&'a EvaluationRecord>,
    /// For each term, a line that is on it.
    yardsticks: Vec<&'a EvaluationRecord>,
}

/// What a line has otherwise than the comparison.
pub(super) struct Difference<'a> {
    pub(super) term: &'static Term,
    /// A line on the comparison's term.
    pub(super) expected: &'a EvaluationRecord,
}

/// A line with its value for each term.
type Valued<'a> = (&'a EvaluationRecord, Vec<Option<String>>);

impl<'a> Terms<'a> {
    /// The terms of the line that agrees with most others: of several, one whose group keeps its protocol most often, then the
    /// first. `None` without lines.
    pub(super) fn of(records: &[&'a EvaluationRecord]) -> Option<Self> {
        let values = |record: &EvaluationRecord| TERMS.iter().map(|term| (term.value)(record)).collect();
        let lines: Vec<Valued<'_>> = records.iter().map(|record| (*record, values(record))).collect();
        let merit = |(_, values): &&Valued<'_>| {
            let like = || lines.iter().filter(|(_, other)| agree(values, other));
            (like().count(), like().filter(|(record, _)| record.deviations.is_empty()).count())
        };
        // The last of equals is taken.
        let (first, terms) = lines.iter().rev().max_by_key(merit)?;
        let yardstick = |(place, value): (usize, &Option<String>)| match value {
            Some(_) => *first,
            // Nothing of the line depends on it, and what does elsewhere is compared with its like.
            None => {
                let like = lines.iter().filter(|(_, other)| agree(terms, other));
                let of_protocol = lines.iter().filter(|(record, _)| record.protocol == first.protocol);
                most_common(like, place).or_else(|| most_common(of_protocol, place)).unwrap_or(first)
            }
        };
        let yardsticks: Vec<&EvaluationRecord> = terms.iter().enumerate().map(yardstick).collect();
        let mut found = Self { common: Vec::new(), yardsticks };
        found.common = records.iter().copied().filter(|record| found.differences(record).is_empty()).collect();
        Some(found)
    }

    /// On which terms a line differs. Another protocol is another of everything, and the one difference that is told.
    pub(super) fn differences(&self, record: &EvaluationRecord) -> Vec<Difference<'a>> {
        let mut differences = Vec::new();
        for (term, expected) in TERMS.iter().zip(&self.yardsticks) {
            // Fewer originals, or otherwise cropped ones, are other originals, and were told.
            let is_told = term.name == REFERENCE && record.protocol == Protocol::Rfid && !differences.is_empty();
            if !is_told && !is_alike(&(term.value)(record), &(term.value)(expected)) {
                differences.push(Difference { term, expected });
                if term.name == PROTOCOL {
                    break;
                }
            }
        }
        differences
    }

    /// What the comparison is of, in words.
    pub(super) fn told(&self) -> Vec<String> {
        let told = TERMS.iter().zip(&self.yardsticks);
        let told = told.filter(|(term, record)| term.is_told && (term.value)(record).is_some());
        told.map(|(term, record)| (term.text)(record)).collect()
    }
}

/// Whether two lines are on the same terms.
fn agree(one: &[Option<String>], other: &[Option<String>]) -> bool {
    one.iter().zip(other).all(|(one, other)| is_alike(one, other))
}

/// Whether two values are equal, or one is that of a line with nothing that depends on it.
fn is_alike(one: &Option<String>, other: &Option<String>) -> bool {
    one.is_none() || other.is_none() || one == other
}

/// The first line with the value that most have for a term; `None` where no line has one.
fn most_common<'a, 'b>(lines: impl Iterator<Item = &'b Valued<'a>>, place: usize) -> Option<&'a EvaluationRecord>
where
    'a: 'b,
{
    let mut groups: Vec<(&str, &EvaluationRecord, usize)> = Vec::new();
    for (record, values) in lines {
        let Some(value) = values[place].as_deref() else { continue };
        match groups.iter_mut().find(|(other, ..)| *other == value) {
            Some((_, _, lines)) => *lines += 1,
            None => groups.push((value, record, 1)),
        }
    }
    groups.into_iter().rev().max_by_key(|(_, _, lines)| *lines).map(|(_, record, _)| record)
}

fn short(sha256: &str) -> &str {
    sha256.get(..DIGITS).unwrap_or(sha256)
}

fn size(record: &EvaluationRecord) -> String {
    format!("{}x{}", record.width, record.height)
}

fn crop(record: &EvaluationRecord) -> String {
    record.crop.clone().unwrap_or_else(|| "images as they are".to_owned())
}

fn reference(record: &EvaluationRecord) -> String {
    let name = match record.protocol {
        Protocol::GfidAdm => end_of(record.reference.as_deref().unwrap_or_default()),
        Protocol::Rfid => format!("the originals in {}", end_of(&record.source)),
    };
    let images = record.reference_images.filter(|_| record.protocol == Protocol::GfidAdm);
    let images = images.map_or(String::new(), |images| format!(", {} images", count(images)));
    match &record.reference_sha256 {
        Some(sha256) => format!("{name} (sha256 {}{images})", short(sha256)),
        None => name,
    }
}

/// What a line says of a rule of its protocol that it did not keep.
fn deviation(record: &EvaluationRecord, kind: DeviationKind) -> Option<&str> {
    record.deviations.iter().find_map(|told| told.strip_prefix(kind.name())?.strip_prefix(": "))
}

fn is_broken(record: &EvaluationRecord, kind: DeviationKind) -> String {
    deviation(record, kind).is_some().to_string()
}

fn rule(record: &EvaluationRecord, kind: DeviationKind) -> String {
    deviation(record, kind).unwrap_or("as the protocol says").to_owned()
}

/// A number of the scores' settings.
fn setting(record: &EvaluationRecord, name: &str) -> Option<String> {
    let settings: serde_json::Value = serde_json::from_str(record.score_settings.as_ref()?).ok()?;
    settings.get(name).map(ToString::to_string)
}
