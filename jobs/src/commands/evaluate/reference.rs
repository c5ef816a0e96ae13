//! What a set is compared with: read from an archive, or made of a set's own features.

use super::{
    extractors::Extractors,
    generated::check_rejects,
    rules::refuse,
    scoring::Scoring,
    totals::{KeptFeatures, SetTotals, VariantTotals},
};
use report::text::{count, counted, named};

use anyhow::Result;
use models::FeatureDistribution;
use pipeline::{
    FeatureMoments, ImageSet, NewReference, Reference, ScoredTables, SourceOptions, Storage, read_reference,
    write_reference,
};
use schemas::{Crop, Deviation, DeviationKind, ReferenceProvenance, SchemaError, ScoredImages};
use std::sync::Arc;

/// Images of a reference whose features are kept, as many as the ADM evaluator's archive has.
const IMAGES_WITH_FEATURES: usize = 10_000;

/// A reference, ready to be compared with any number of sets.
#[derive(Debug)]
pub(crate) struct ComparedWith {
    /// Its address; absent where nothing is compared.
    pub(super) name: Option<String>,
    pub(super) sha256: Option<String>,
    /// Images that its statistics are of, where it says so.
    pub(super) images: Option<u64>,
    pub(super) pool: Option<FeatureDistribution>,
    pub(super) spatial: Option<FeatureDistribution>,
    /// Pool features of its images, for scores that compare images.
    pub(super) features: Option<Vec<f32>>,
    deviations: Vec<Deviation>,
    /// Height and width of its images, where they are known.
    shape: Option<(usize, usize)>,
}

impl ComparedWith {
    /// Nothing to compare with: only scores that need nothing.
    pub(crate) fn nothing() -> Self {
        Self {
            name: None,
            sha256: None,
            images: None,
            pool: None,
            spatial: None,
            features: None,
            deviations: Vec::new(),
            shape: None,
        }
    }

    /// Rules that it breaks as a reference of a set whose images are of this height and width.
    pub(crate) fn deviations_for(&self, shape: (usize, usize)) -> Vec<Deviation> {
        let mut deviations = self.deviations.clone();
        if let Some((height, width)) = self.shape.filter(|of_reference| *of_reference != shape) {
            deviations
                .push(broken(format!("a reference of images of {width}x{height}"), "one of images of the set's size"));
        }
        deviations
    }

    /// Reads an archive. Of one with images in it, features are extracted, once.
    ///
    /// # Errors
    /// When it cannot be read, holds nothing to compare with, or breaks a rule that is not allowed.
    pub(crate) async fn read(url: &str, scoring: &Scoring, extractors: &Extractors) -> Result<Self> {
        let Reference { sha256, pool, spatial, features, has_images, provenance } =
            read_reference(url, &scoring.limits).await?;
        let mut deviations = match &provenance {
            Some(provenance) => of_ours(provenance, extractors),
            None if has_images && pool.is_some() && spatial.is_some() => Vec::new(),
            None => vec![broken("an archive that does not say what it was made of and how".to_owned(), KNOWN)],
        };
        // What can be known is said before its images are looked at.
        refuse(scoring.protocol, &deviations, &scoring.allow)?;
        let images = provenance.as_ref().map(|provenance| provenance.images);
        let distribution = |moments: Option<FeatureMoments>| {
            let distribution =
                |moments: FeatureMoments| FeatureDistribution::try_new(moments.mean, moments.covariance, images);
            moments.map(distribution).transpose()
        };
        let shape = provenance.as_ref().map(|provenance| (provenance.height as usize, provenance.width as usize));
        let (folder, name) = folder_and_name(url);
        let address = Storage::open(folder, &scoring.limits)?.uri(name);
        let mut compared = Self {
            name: Some(pipeline::without_secrets(&address)),
            sha256: Some(sha256),
            images,
            pool: distribution(pool)?,
            spatial: distribution(spatial)?,
            features,
            deviations: Vec::new(),
            shape,
        };
        tracing::info!(
            reference = compared.name,
            statistics = compared.pool.is_some(),
            spatial_statistics = compared.spatial.is_some(),
            images = has_images,
            "reference read"
        );
        if has_images && compared.features.is_none() {
            let set = scoring.open(SourceOptions::new(url), None).await?;
            compared.shape = Some(set.shape());
            if provenance.is_none() && set.images() != Some(IMAGES_WITH_FEATURES as u64) {
                let found = format!("an archive of {}", counted(set.images().unwrap_or_default(), "image"));
                deviations.push(broken(found, KNOWN));
                refuse(scoring.protocol, &deviations, &scoring.allow)?;
            }
            let totals = read_features(&set, KeptFeatures::All(Vec::new()), scoring, extractors).await?;
            check_rejects(&totals, scoring)?;
            compared.images = compared.images.or_else(|| compared.pool.is_none().then_some(totals.images));
            let (totals, result) = finished(totals).await?;
            // As the ADM evaluator: statistics that are stored win over those of the images beside them.
            if compared.pool.is_none() {
                (compared.pool, compared.spatial) = (result.pool, result.spatial);
            }
            compared.features = Some(totals.features.finish());
        }
        compared.deviations = deviations;
        Ok(compared)
    }
}

/// What a reference should be.
const KNOWN: &str = "statistics of both features and 10,000 images, as the ADM evaluator's archives have them, or an archive of \
                     --make-reference with this network";

fn broken(found: String, expected: &str) -> Deviation {
    Deviation { kind: DeviationKind::Reference, found, expected: expected.to_owned() }
}

/// What speaks against an archive of ours.
fn of_ours(provenance: &ReferenceProvenance, extractors: &Extractors) -> Vec<Deviation> {
    let mut deviations = Vec::new();
    if provenance.extractor_sha256 != extractors.sha256() {
        let digits = |sha256: &str| sha256.get(..12).unwrap_or(sha256).to_owned();
        let (there, here) = (digits(&provenance.extractor_sha256), digits(extractors.sha256()));
        deviations.push(broken(format!("an archive made with another network (sha256 {there}, here {here})"), KNOWN));
    }
    if provenance.extractor_precision != extractors.precision().name() {
        deviations.push(broken(format!("an archive made in {}", provenance.extractor_precision), KNOWN));
    }
    if provenance.rejected > 0 {
        let found = format!("an archive for which {} could not be read", counted(provenance.rejected, "image"));
        deviations.push(broken(found, "every image of its source"));
    }
    if provenance.images < IMAGES_WITH_FEATURES as u64 {
        let found = format!("an archive of {}", counted(provenance.images, "image"));
        deviations.push(broken(found, "10,000 or more"));
    }
    deviations
}

/// An address as that of a folder, and the name below it.
fn folder_and_name(address: &str) -> (&str, &str) {
    match address.rsplit_once('/') {
        Some(("", name)) => ("/", name),
        Some((folder, name)) => (folder, name),
        None => (".", address),
    }
}

/// The features of a set and their statistics.
async fn read_features(
    set: &Arc<ImageSet>,
    features: KeptFeatures,
    scoring: &Scoring,
    extractors: &Extractors,
) -> Result<SetTotals> {
    let tables = super::generated::features(set, scoring, extractors).await?;
    let variants = vec![(None, VariantTotals::with_features(extractors, None, true)?)];
    SetTotals::new(variants, None, features).read(&tables).await
}

/// What the one variant of a set comes to.
async fn finished(mut totals: SetTotals) -> Result<(SetTotals, super::totals::VariantResult)> {
    let variant = totals.variants.pop().unwrap_or_default();
    let result = tokio::task::spawn_blocking(move || variant.finish()).await??;
    Ok((totals, result))
}

/// The features that [`make`] needs, for those that make it later.
///
/// # Errors
/// When the set cannot be read, and whatever else ended it.
pub(super) async fn features(
    source: SourceOptions,
    crop: Option<Crop>,
    scoring: &Scoring,
    extractors: &Extractors,
) -> Result<ScoredTables> {
    let made_by = super::made_by::MadeBy::find(source, &scoring.limits).await?;
    let set = scoring.open(made_by.source, crop).await?;
    super::generated::features(&set, scoring, extractors).await
}

/// Makes an archive of a set, and says what it did.
///
/// # Errors
/// Whatever ended it.
pub(super) async fn make(
    archive: &str,
    source: SourceOptions,
    crop: Option<Crop>,
    scoring: &Scoring,
    extractors: &Extractors,
) -> Result<String> {
    let (folder, name) = folder_and_name(archive);
    let storage = Storage::open_output(folder, &scoring.limits)?;
    let made_by = super::made_by::MadeBy::find(source, &scoring.limits).await?;
    let set = scoring.open(made_by.source.clone(), crop).await?;
    let kept = KeptFeatures::spread(IMAGES_WITH_FEATURES);
    let totals = read_features(&set, kept, scoring, extractors).await?;
    check_rejects(&totals, scoring)?;
    let (totals, result) = finished(totals).await?;
    let (height, width) = set.shape();
    let moments = |found: FeatureDistribution| FeatureMoments {
        mean: found.mean().to_vec(),
        covariance: found.covariance().to_vec(),
    };
    let pool = result.pool.ok_or_else(|| SchemaError::Shape {
        what: "statistics of a reference",
        found: "none".to_owned(),
        expected: "those of its pool features".to_owned(),
    })?;
    let features = totals.features.finish();
    let kept = features.len() / ScoredImages::POOL;
    let reference = NewReference {
        pool: moments(pool),
        spatial: result.spatial.map(moments),
        features: Some(features),
        provenance: ReferenceProvenance {
            protocol: scoring.protocol,
            source: set.display().to_owned(),
            source_digest: set.digest().to_owned(),
            images: totals.images,
            rejected: totals.rejected,
            height: height as u64,
            width: width as u64,
            crop: crop.map(|crop| crop.to_string()),
            extractor_sha256: extractors.sha256().to_owned(),
            extractor_precision: extractors.precision().name().to_owned(),
            restok: env!("CARGO_PKG_VERSION").to_owned(),
        },
    };
    let written = write_reference(&storage, name, reference).await?;
    let cut = crop.map_or_else(|| "as they are".to_owned(), |crop| crop.to_string());
    Ok(format!(
        "Reference\n{}",
        named(
            2,
            &[
                ("archive", format!("{} (sha256 {})", written.uri, written.sha256)),
                ("protocol", scoring.protocol.to_string()),
                ("images", format!("{} of {width}x{height} ({cut}) from {}", count(totals.images), set.display())),
                ("left out", counted(totals.rejected, "broken image")),
                ("for recall", format!("features of {}, spread evenly", counted(kept as u64, "image"))),
                ("extractor", format!("sha256 {}, {}", extractors.sha256(), extractors.precision().name())),
            ]
        )
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_cut_at_their_last_slash() {
        assert_eq!(folder_and_name("cats.npz"), (".", "cats.npz"));
        assert_eq!(folder_and_name("/cats.npz"), ("/", "cats.npz"));
        assert_eq!(folder_and_name("s3://bucket/references/cats.npz"), ("s3://bucket/references", "cats.npz"));
    }
}
