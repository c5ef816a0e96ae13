//! The scores of an output: a file for each evaluation, and one text of them all.

use super::scores_table::{decode, encode, to_csv};
use crate::{PipelineError, PutOutcome, Storage};
use futures::{StreamExt, TryStreamExt, stream};
use schemas::{EvaluationRecord, SCORES_CSV_PATH, SCORES_PREFIX, scores_path};

/// Files read at once; each is a few kilobytes.
const FILES_AT_ONCE: usize = 16;

/// Where the scores are, below the output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScoresWritten {
    /// The file of this evaluation.
    pub parquet_path: String,
    /// The text with all evaluations.
    pub csv_path: String,
}

/// Writes the lines of one evaluation, once, and the text of all that are there anew.
///
/// The text is derived: when two evaluations end at once, it may lack one of them until the next is written.
///
/// # Errors
/// When there is no record, or records of more than one evaluation, or a score is no number; [`PipelineError::Output`] when other lines
/// are there under the name of this evaluation; storage errors.
pub async fn write_scores(output: &Storage, records: &[EvaluationRecord]) -> Result<ScoresWritten, PipelineError> {
    let evaluation = one_evaluation(records)?;
    let parquet_path = scores_path(evaluation);
    let uri = output.uri(&parquet_path);
    let bytes = encode(records, &uri)?;
    if let PutOutcome::Different(found) = output.put_create(&parquet_path, bytes).await? {
        let same = decode(found, &uri)? == records;
        if !same {
            let problem = "other scores are there under the same name: the same evaluation gave other numbers, perhaps on another kind \
                           of device. Delete the file, or write to another output"
                .to_owned();
            return Err(PipelineError::Output { uri, problem });
        }
    }
    let csv_path = SCORES_CSV_PATH.to_owned();
    let csv = to_csv(&read_scores(output).await?, &output.uri(&csv_path))?;
    output.put_replace(&csv_path, csv).await?;
    Ok(ScoresWritten { parquet_path, csv_path })
}

/// The lines of all evaluations of an output, by the names of their files; none where none was written.
///
/// # Errors
/// When a file is damaged, which the error names; storage errors.
pub async fn read_scores(output: &Storage) -> Result<Vec<EvaluationRecord>, PipelineError> {
    let listed = output.list(SCORES_PREFIX.trim_end_matches('/')).await?;
    let files: Vec<String> = listed
        .into_iter()
        .map(|object| object.path)
        .filter(|path| path.starts_with(&format!("{SCORES_PREFIX}score-")) && path.ends_with(".parquet"))
        .collect();
    let read = stream::iter(files).map(|path| async move {
        let bytes = output.get(&path).await?;
        decode(bytes, &output.uri(&path))
    });
    let records: Vec<_> = read.buffered(FILES_AT_ONCE).try_collect().await?;
    Ok(records.into_iter().flatten().collect())
}

/// The name that all records have.
fn one_evaluation(records: &[EvaluationRecord]) -> Result<&str, PipelineError> {
    let wrong = |problem: String| Err(PipelineError::Settings { problem });
    let Some(first) = records.first() else { return wrong("no scores to write".to_owned()) };
    let name = first.evaluation.as_str();
    if let Some(other) = records.iter().find(|record| record.evaluation != name) {
        return wrong(format!(
            "scores of two evaluations, {name:?} and {:?}: each has a file of its own",
            other.evaluation
        ));
    }
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
        return wrong(format!("the evaluation {name:?}: expected letters, digits, `-` and `_`"));
    }
    Ok(name)
}
