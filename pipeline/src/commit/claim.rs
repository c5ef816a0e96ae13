//! One output, one plan.

use crate::{PipelineError, PutOutcome, Storage, unique_ids::hash_of};
use bytes::Bytes;
use schemas::{
    PLAN_OWNER_PATH, PackedList, Plan, PlanHash, PlannedInput, SCHEMA_VERSION, SourceAccount, from_json, left_out_path,
    plan_path, to_json,
};
use serde::{Deserialize, Serialize};
use std::io::BufReader;

/// Differing inputs that an error names, of each kind.
const INPUTS_NAMED: usize = 5;

/// What [`PLAN_OWNER_PATH`] holds.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanOwner {
    schema_version: u32,
    plan: PlanHash,
}

/// Makes `output` the output of `plan`; harmless when it already is.
///
/// The plan is put first and the owner second, both create-only: of two runs that start at once exactly one becomes the owner,
/// and whoever reads an owner can read its plan.
///
/// # Errors
/// [`PipelineError::PlanConflict`], naming what differs, when the output belongs to another plan; storage errors.
pub async fn claim_output(output: &Storage, plan: &Plan) -> Result<(), PipelineError> {
    // Before anything is written: a refused run leaves no trace.
    if let Some(owner) = read_owner(output).await? {
        check_owner(output, plan, &owner).await?;
        return check_create_only(output, plan).await;
    }
    let path = plan_path(plan.hash());
    let compressed = Bytes::from(plan.to_compressed_json_lines());
    if let PutOutcome::Different(there) = output.put_create(&path, compressed).await? {
        // Another version of the compressor may have written the same plan.
        decompress(output, &path, &there, plan.hash())?;
    }
    if let PutOutcome::Different(there) = output.put_create(PLAN_OWNER_PATH, owner_bytes(plan)?).await? {
        check_owner(output, plan, &parse_owner(&there)?).await?;
    }
    check_create_only(output, plan).await
}

fn owner_bytes(plan: &Plan) -> Result<Bytes, PipelineError> {
    let owner = PlanOwner { schema_version: SCHEMA_VERSION, plan: plan.hash().clone() };
    Ok(Bytes::from(to_json(PLAN_OWNER_PATH, &owner)?))
}

/// Everything relies on puts that refuse to overwrite, and some stores that speak S3 ignore the condition without a word: the
/// owner, which is there, is put once more with the same bytes, at every start, and must be found.
async fn check_create_only(output: &Storage, plan: &Plan) -> Result<(), PipelineError> {
    if output.is_local() {
        return Ok(());
    }
    match output.put_create(PLAN_OWNER_PATH, owner_bytes(plan)?).await? {
        PutOutcome::Created => Err(output_error(
            output,
            PLAN_OWNER_PATH,
            "the store overwrote an object that was to be created only if absent (If-None-Match); two runs could then destroy \
             each other's tables. Use a store, or a version of it, with conditional puts"
                .to_owned(),
        )),
        PutOutcome::Same | PutOutcome::Different(_) => Ok(()),
    }
}

/// Writes what the listing of the plan's source left out. Where a start before this one has written it, that stands.
///
/// # Errors
/// Storage errors.
pub(crate) async fn put_left_out(
    output: &Storage,
    plan: &PlanHash,
    left_out: &SourceAccount,
) -> Result<(), PipelineError> {
    if left_out.is_empty() {
        return Ok(());
    }
    let path = left_out_path(plan);
    let bytes = Bytes::from(to_json(&path, left_out)?);
    output.put_create(&path, bytes).await.map(drop)
}

/// What [`put_left_out`] wrote; empty where nothing was.
///
/// # Errors
/// When the document is damaged; storage errors.
pub(crate) async fn read_left_out(output: &Storage, plan: &PlanHash) -> Result<SourceAccount, PipelineError> {
    let path = left_out_path(plan);
    match output.get_if_exists(&path).await? {
        Some(bytes) => Ok(from_json(&path, &bytes)?),
        None => Ok(SourceAccount::default()),
    }
}

/// The plan that owns `output`; `None` when nothing was ever written there.
///
/// # Errors
/// When the plan is missing, damaged or newer than this program; storage errors.
pub async fn read_plan(output: &Storage) -> Result<Option<Plan>, PipelineError> {
    let Some(owner) = read_owner(output).await? else { return Ok(None) };
    let path = plan_path(&owner.plan);
    let bytes = output
        .get_if_exists(&path)
        .await?
        .ok_or_else(|| output_error(output, &path, format!("{PLAN_OWNER_PATH} names this plan, but it is missing")))?;
    decompress(output, &path, &bytes, &owner.plan).map(Some)
}

/// The hash of the plan that owns `output`, without the plan; `None` when nothing was ever written there.
///
/// # Errors
/// When the owner's document is damaged; storage errors.
pub(crate) async fn owning_plan(output: &Storage) -> Result<Option<PlanHash>, PipelineError> {
    Ok(read_owner(output).await?.map(|owner| owner.plan))
}

async fn read_owner(output: &Storage) -> Result<Option<PlanOwner>, PipelineError> {
    match output.get_if_exists(PLAN_OWNER_PATH).await? {
        Some(bytes) => parse_owner(&bytes).map(Some),
        None => Ok(None),
    }
}

fn parse_owner(bytes: &[u8]) -> Result<PlanOwner, PipelineError> {
    Ok(from_json(PLAN_OWNER_PATH, bytes)?)
}

fn decompress(output: &Storage, path: &str, bytes: &[u8], hash: &PlanHash) -> Result<Plan, PipelineError> {
    let lines = zstd::Decoder::new(bytes)
        .map_err(|error| output_error(output, path, format!("cannot decompress the plan: {error}")))?;
    let plan =
        Plan::from_json_lines(BufReader::new(lines)).map_err(|error| output_error(output, path, error.to_string()))?;
    if plan.hash() != hash {
        return Err(output_error(output, path, format!("the plan's hash is {}, expected {hash}", plan.hash())));
    }
    Ok(plan)
}

async fn check_owner(output: &Storage, plan: &Plan, owner: &PlanOwner) -> Result<(), PipelineError> {
    if owner.plan == *plan.hash() {
        return Ok(());
    }
    let differences = match read_plan(output).await? {
        Some(theirs) => differences(&theirs, plan),
        None => Vec::new(),
    };
    Err(PipelineError::PlanConflict {
        output: output.display().to_owned(),
        plan: owner.plan.short().to_owned(),
        differences,
    })
}

/// What differs between the plan of an output and the one at hand: settings, else classes, else inputs.
fn differences(theirs: &Plan, ours: &Plan) -> Vec<String> {
    let settings = theirs.settings().differences(ours.settings());
    if !settings.is_empty() {
        return settings;
    }
    let mut lines = input_differences(theirs.inputs(), ours.inputs());
    if theirs.class_names() != ours.class_names() {
        let (theirs, ours) = (theirs.class_names().len(), ours.class_names().len());
        lines.push(format!("classes: {theirs} in the output, {ours} here, or other names"));
    }
    if lines.is_empty() {
        lines.push("the division of the inputs into units".to_owned());
    }
    lines
}

/// Counts inputs that one of two plans has alone, or both with differences, and names the first few. By hashes, in 32 bytes an input: two
/// inputs with the same hash would make a count wrong by one.
fn input_differences(theirs: &PackedList<PlannedInput>, ours: &PackedList<PlannedInput>) -> Vec<String> {
    let by_place = |inputs: &PackedList<PlannedInput>| {
        let mut places: Vec<_> = inputs.iter().map(|input| (place_hash(&input), content_hash(input))).collect();
        places.sort_unstable();
        places
    };
    let (there, here) = (by_place(theirs), by_place(ours));
    // What the other plan has at the place of an input.
    let other = |places: &[(u64, u64)], input: &PlannedInput| {
        let place = places.binary_search_by_key(&place_hash(input), |&(place, _)| place).ok()?;
        Some(places[place].1)
    };
    let mut kinds = [
        ("added since", NamedInputs::default()),
        ("no longer there", NamedInputs::default()),
        ("changed (size, etag or label)", NamedInputs::default()),
    ];
    let [added, removed, changed] = kinds.each_mut().map(|(_, inputs)| inputs);
    for input in theirs.iter() {
        match other(&here, &input) {
            None => removed.add(input.uri),
            Some(hash) if hash != content_hash(input.clone()) => changed.add(input.uri),
            Some(_) => {}
        }
    }
    for input in ours.iter().filter(|input| other(&there, input).is_none()) {
        added.add(input.uri);
    }
    let told = kinds.into_iter().filter(|(_, inputs)| inputs.count > 0);
    told.map(|(what, NamedInputs { count, first, .. })| {
        let more = if count > first.len() { ", …" } else { "" };
        format!("{count} inputs {what}: {}{more}", first.join(", "))
    })
    .collect()
}

/// Some inputs: how many, and the first ones. Ranges of rows of one object are one.
#[derive(Default)]
struct NamedInputs {
    count: usize,
    first: Vec<String>,
    last: String,
}

impl NamedInputs {
    fn add(&mut self, uri: String) {
        if self.count > 0 && uri == self.last {
            return;
        }
        self.count += 1;
        if self.first.len() < INPUTS_NAMED {
            self.first.push(uri.clone());
        }
        self.last = uri;
    }
}

/// Of where an input begins.
fn place_hash(input: &PlannedInput) -> u64 {
    hash_of(&(&input.uri, input.rows.as_ref().map(|rows| rows.start)))
}

/// Of an input. Which unit reads it follows from the other inputs, so that one more file would move every input after it.
fn content_hash(input: PlannedInput) -> u64 {
    hash_of(&PlannedInput { unit: 0, ..input })
}

/// The error for an output in which nothing was ever written.
pub fn nothing_there(output: &Storage) -> PipelineError {
    PipelineError::Output {
        uri: output.display().to_owned(),
        problem: "no plan is here: is this the output of `restok tokenize`?".to_owned(),
    }
}

fn output_error(output: &Storage, path: &str, problem: String) -> PipelineError {
    PipelineError::Output { uri: output.uri(path), problem }
}
