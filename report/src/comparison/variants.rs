//! What lines are called: their sets, and what tells lines of one set apart.

use crate::score_lines::end_of;
use schemas::EvaluationRecord;
use std::collections::HashSet;

/// Digits of a digest that are shown.
const DIGITS: usize = 12;

/// Something that made a set and differs from line to line.
pub(super) struct Variant {
    /// Its column in a scores table.
    pub(super) field: &'static str,
    /// What it is called.
    pub(super) name: &'static str,
    /// Its value, whole.
    pub(super) of: fn(&EvaluationRecord) -> Option<String>,
    shown: Shown,
}

/// When a variant is shown to a reader.
enum Shown {
    /// Where any line has it.
    Known,
    /// Where lines differ in it.
    Different,
    /// A digest, where lines differ in it that are the same in this one.
    Within(fn(&EvaluationRecord) -> Option<String>),
}

const TOKENIZER: fn(&EvaluationRecord) -> Option<String> = |record| record.tokenizer.clone();
const GENERATOR: fn(&EvaluationRecord) -> Option<String> = |record| record.generator.clone();

/// All of them, in their order.
pub(super) static VARIANTS: [Variant; 11] = [
    Variant { field: "tokenizer", name: "tokenizer", of: TOKENIZER, shown: Shown::Different },
    Variant {
        field: "tokenizer_sha256",
        name: "tokenizer, sha256",
        of: |record| record.tokenizer_sha256.clone(),
        shown: Shown::Within(TOKENIZER),
    },
    Variant { field: "generator", name: "generator", of: GENERATOR, shown: Shown::Different },
    Variant {
        field: "generator_sha256",
        name: "generator, sha256",
        of: |record| record.generator_sha256.clone(),
        shown: Shown::Within(GENERATOR),
    },
    Variant {
        field: "kept_tokens",
        name: "tokens kept",
        of: |record| record.kept_tokens.map(|kept| kept.to_string()),
        shown: Shown::Known,
    },
    Variant {
        field: "guidance",
        name: "guidance",
        of: |record| record.guidance.map(|scale| scale.to_string()),
        shown: Shown::Known,
    },
    Variant {
        field: "guidance_schedule",
        name: "schedule",
        of: |record| record.guidance_schedule.clone(),
        shown: Shown::Different,
    },
    Variant {
        field: "top_p",
        name: "top-p",
        of: |record| record.top_p.map(|fraction| fraction.to_string()),
        shown: Shown::Different,
    },
    Variant {
        field: "top_k",
        name: "top-k",
        of: |record| record.top_k.map(|number| number.to_string()),
        shown: Shown::Different,
    },
    Variant {
        field: "temperature",
        name: "temperature",
        of: |record| record.temperature.map(|temperature| temperature.to_string()),
        shown: Shown::Different,
    },
    Variant {
        field: "seed",
        name: "seed",
        of: |record| record.seed.map(|seed| seed.to_string()),
        shown: Shown::Different,
    },
];

/// What names a line where all else is the same.
static EVALUATION: Variant = Variant {
    field: "evaluation",
    name: "evaluation",
    of: |record| Some(record.evaluation.clone()),
    shown: Shown::Different,
};

impl Variant {
    /// Its value for a reader; empty where a line has none.
    pub(super) fn text(&self, record: &EvaluationRecord) -> String {
        let value = (self.of)(record).unwrap_or_default();
        match self.shown {
            Shown::Within(_) => value.chars().take(DIGITS).collect(),
            Shown::Known | Shown::Different => one_line(&value),
        }
    }

    fn is_shown(&self, records: &[&EvaluationRecord]) -> bool {
        let different = |of: &dyn Fn(&EvaluationRecord) -> Vec<Option<String>>| {
            records.iter().map(|record| of(record)).collect::<HashSet<_>>().len()
        };
        match self.shown {
            Shown::Known => records.iter().any(|record| (self.of)(record).is_some()),
            Shown::Different => different(&|record| vec![(self.of)(record)]) > 1,
            Shown::Within(other) => {
                different(&|record| vec![other(record), (self.of)(record)]) > different(&|record| vec![other(record)])
            }
        }
    }
}

/// What is shown of some lines, whose sets are called `names`: no two of them are told alike.
pub(super) fn shown(records: &[&EvaluationRecord], names: &[String]) -> Vec<&'static Variant> {
    let mut shown: Vec<&Variant> = VARIANTS.iter().filter(|variant| variant.is_shown(records)).collect();
    let told = |(record, name): (&&EvaluationRecord, &String)| {
        let values = shown.iter().map(|variant| variant.text(record));
        std::iter::once(name.clone()).chain(values).collect::<Vec<_>>()
    };
    let different: HashSet<_> = records.iter().zip(names).map(told).collect();
    if different.len() < records.len() {
        shown.push(&EVALUATION);
    }
    shown
}

/// What the sets of some lines are called: the ends of their addresses, or the whole of those that end alike.
pub(super) fn set_names(records: &[&EvaluationRecord]) -> Vec<String> {
    let name = |record: &&EvaluationRecord| {
        let end = end_of(&record.source);
        let alike = |other: &&EvaluationRecord| other.source != record.source && end_of(&other.source) == end;
        one_line(if records.iter().any(alike) { &record.source } else { &end })
    };
    records.iter().map(name).collect()
}

/// A text that breaks no line of a table.
fn one_line(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}
