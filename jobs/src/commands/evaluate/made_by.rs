//! What made a set: of an output of ours, its plan says so.

use anyhow::Result;
use pipeline::{ImageSet, Limits, PipelineError, SourceOptions, Storage, TableReader, read_plan};
use schemas::{EvaluationRecord, Origin, PictureFormat, PlanSettings, SampleOrigin, SourceLayout};

/// A set's pictures, and what is known of their making.
#[derive(Debug)]
pub(super) struct MadeBy {
    /// Where the pictures are.
    pub(super) source: SourceOptions,
    /// The plan's settings, where the set is an output of ours.
    settings: Option<PlanSettings>,
    /// How its tokens were drawn, where that is known.
    samples: Option<SampleOrigin>,
}

impl MadeBy {
    /// Looks at what lies at the source's address: of an output of `restok generate`, its pictures are the set; anything else is a
    /// set as it is.
    ///
    /// # Errors
    /// When it is an output that has no pictures or is not finished; storage errors.
    pub(super) async fn find(source: SourceOptions, limits: &Limits) -> Result<Self> {
        let unknown = |source| Ok(Self { source, settings: None, samples: None });
        // A pattern or a file is no output.
        if source.url.contains(['*', '?', '{']) || ImageSet::is_archive(&source.url) {
            return unknown(source);
        }
        let output = Storage::open(&source.url, limits)?;
        let plan = match read_plan(&output).await {
            // A web server may refuse what it does not know, in any way.
            Err(error) if source.url.starts_with("http") => {
                tracing::debug!(source = output.display(), "not taken for an output of ours: {error}");
                None
            }
            plan => plan?,
        };
        if plan.is_none() {
            return unknown(source);
        }
        let reader = TableReader::open(&output).await?;
        let wrong =
            |problem: &str| PipelineError::Output { uri: output.display().to_owned(), problem: problem.to_owned() };
        let settings = reader.plan().settings().clone();
        let Some(pictures) = settings.origin.pictures() else {
            return Err(wrong(
                "holds tokens and no pictures. `restok generate --decode-only` makes pictures of tokens; for the scores of \
                 reconstructions give the images themselves, with --protocol rfid",
            )
            .into());
        };
        if !reader.is_finished() {
            return Err(wrong("is not finished: run the command that made it again, then score it").into());
        }
        let root = source.url.trim_end_matches('/');
        // Of an archive, the Parquet files it was assembled from: they know the classes, and are read in parts.
        let (folder, layout) = [
            (PictureFormat::Npz, "parquet", SourceLayout::Parquet),
            (PictureFormat::Parquet, "parquet", SourceLayout::Parquet),
            (PictureFormat::Webdataset, "webdataset", SourceLayout::Webdataset),
            (PictureFormat::Png, "png", SourceLayout::Folder),
        ]
        .into_iter()
        .find(|(format, ..)| pictures.formats.contains(format))
        .map(|(_, folder, layout)| (folder, layout))
        .ok_or_else(|| wrong("names no form of pictures"))?;
        let url = format!("{root}/{}{folder}", schemas::PICTURES_PREFIX);
        let source = SourceOptions { url, layout: Some(layout), ..source };
        let samples = match &settings.origin {
            Origin::Samples(samples) => Some(samples.clone()),
            Origin::Tokens(_) => drawn_as(&settings, limits).await,
            Origin::Images(_) => None,
        };
        Ok(Self { source, settings: Some(settings), samples })
    }

    /// Writes what is known into a record.
    ///
    /// # Errors
    /// When the sampling does not serialize, which its type does not give it reason to.
    pub(super) fn describe(&self, record: &mut EvaluationRecord) -> Result<()> {
        if let Some(settings) = &self.settings {
            record.tokenizer = Some(settings.tokenizer.name.clone());
            record.tokenizer_sha256 = Some(settings.tokenizer.sha256.clone());
            record.codebook_size = Some(settings.tokenizer.codebook_size as u64);
            record.network_precision = Some(settings.precision.clone());
            record.decoder_precision = settings.origin.pictures().map(|pictures| pictures.decoder_precision.clone());
        }
        if let Some(samples) = &self.samples {
            let sampling = &samples.sampling;
            record.generator = Some(samples.generator.name.clone());
            record.generator_sha256 = Some(samples.generator.sha256.clone());
            record.guidance = Some(sampling.guidance.scale);
            record.guidance_schedule = Some(sampling.guidance.schedule.name().to_owned());
            record.top_p = Some(sampling.top_p);
            record.top_k = Some(sampling.top_k as u64);
            record.temperature = Some(sampling.temperature);
            record.seed = Some(sampling.seed);
            record.classes = Some(samples.classes.len() as u64);
            record.sampling = Some(serde_json::to_string(sampling)?);
        }
        Ok(())
    }
}

/// How the tokens were drawn that these pictures were decoded from, if their output is still where it was.
async fn drawn_as(settings: &PlanSettings, limits: &Limits) -> Option<SampleOrigin> {
    let Origin::Tokens(tokens) = &settings.origin else { return None };
    let output = Storage::open(&settings.source, limits).ok()?;
    let plan = read_plan(&output).await.ok()??;
    (*plan.hash() == tokens.tokens_plan).then(|| plan.settings().origin.samples().cloned())?
}
