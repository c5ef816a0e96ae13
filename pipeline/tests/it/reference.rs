//! What a set is compared with: written, read back, and refused where it is something else.

use crate::scoring_support::{archive, limits, memory, npy, npz_stored, put};
use pipeline::{FeatureMoments, NewReference, Storage, read_reference, write_reference};
use schemas::{Protocol, ReferenceProvenance, ScoredImages, sha256_hex};
use zip::CompressionMethod;

const POOL: usize = ScoredImages::POOL;
const SPATIAL: usize = ScoredImages::SPATIAL;

/// A symmetric matrix and a mean of numbers that float32 has too.
fn moments(features: usize) -> FeatureMoments {
    let mean = (0..features).map(|place| place as f64 / 8.0).collect();
    let value = |row: usize, column: usize| (row * column % 509) as f64 / 4.0;
    let covariance = (0..features * features).map(|place| value(place / features, place % features)).collect();
    FeatureMoments { mean, covariance }
}

fn provenance() -> ReferenceProvenance {
    ReferenceProvenance {
        protocol: Protocol::GfidAdm,
        source: "s3://imagenet/val/".to_owned(),
        source_digest: "ab".repeat(32),
        images: 50_000,
        rejected: 1,
        height: 256,
        width: 320,
        extractor_sha256: "cd".repeat(32),
        extractor_precision: "float32".to_owned(),
        crop: Some("adm-center-256".to_owned()),
        restok: "0.1.0".to_owned(),
    }
}

fn doubles(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

async fn refused(storage: &Storage, name: &str, bytes: Vec<u8>) -> String {
    let url = put(storage, name, bytes).await;
    let told = read_reference(&url, &limits()).await.expect_err("refused").to_string();
    assert!(told.starts_with(&url), "{told}");
    told
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_reads_back_and_is_never_replaced_by_something_else() {
    let storage = memory("reference-written");
    let features: Vec<f32> = (0..3 * POOL).map(|place| place as f32 / 3.0).collect();
    let reference = NewReference {
        pool: moments(POOL),
        spatial: Some(moments(SPATIAL)),
        features: Some(features.clone()),
        provenance: provenance(),
    };
    let written = write_reference(&storage, "reference.npz", reference.clone()).await.expect("written");
    assert!(written.created);
    let bytes = storage.get("reference.npz").await.expect("there");
    assert_eq!(written.sha256, sha256_hex(&bytes));
    let again = write_reference(&storage, "reference.npz", reference.clone()).await.expect("there");
    assert!(!again.created && again.sha256 == written.sha256, "the same bytes");

    let found = read_reference(&written.uri, &limits()).await.expect("reads");
    assert_eq!(found.sha256, written.sha256);
    assert!(found.pool == Some(moments(POOL)) && found.spatial == Some(moments(SPATIAL)));
    assert!(found.features == Some(features) && !found.has_images);
    assert_eq!(found.provenance, Some(provenance()));

    let other = ReferenceProvenance { images: 7, ..provenance() };
    let other = NewReference { provenance: other, features: None, ..reference.clone() };
    let told = write_reference(&storage, "reference.npz", other).await.expect_err("another one").to_string();
    assert!(told.starts_with(&written.uri) && told.contains("another file"), "{told}");
    assert_eq!(storage.get("reference.npz").await.expect("there"), bytes);
    let short = NewReference { spatial: None, pool: moments(5), ..reference };
    let told = write_reference(&storage, "short.npz", short).await.expect_err("too short").to_string();
    assert!(told.contains("mean of pool features: found 5, expected 2048"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn references_of_other_programs_are_read_in_any_of_their_forms() {
    let storage = memory("reference-forms");
    let FeatureMoments { mean, covariance } = moments(POOL);
    let singles = |values: &[f64]| values.iter().flat_map(|&value| (value as f32).to_le_bytes()).collect::<Vec<_>>();
    let big = |values: &[f64]| values.iter().flat_map(|value| value.to_be_bytes()).collect::<Vec<_>>();
    for (name, mu, sigma, method) in [
        (
            "float32-deflated.npz",
            npy("<f4", false, &[POOL], &singles(&mean)),
            npy("<f4", false, &[POOL, POOL], &singles(&covariance)),
            CompressionMethod::Deflated,
        ),
        (
            "fortran.npz",
            npy("<f8", false, &[POOL], &doubles(&mean)),
            npy("<f8", true, &[POOL, POOL], &doubles(&covariance)),
            CompressionMethod::Stored,
        ),
        (
            "big-endian.npz",
            npy(">f8", false, &[POOL], &big(&mean)),
            npy(">f8", false, &[POOL, POOL], &big(&covariance)),
            CompressionMethod::Stored,
        ),
    ] {
        let url = put(&storage, name, archive(&[("mu.npy", mu), ("sigma.npy", sigma)], method)).await;
        let found = read_reference(&url, &limits()).await.expect(name);
        assert!(found.pool == Some(moments(POOL)), "{name}");
        assert!(found.spatial.is_none() && found.features.is_none() && found.provenance.is_none(), "{name}");
    }
    // Images alone: whoever asks computes the moments.
    let bytes = npz_stored(2, 8);
    let url = put(&storage, "images.npz", bytes.clone()).await;
    let found = read_reference(&url, &limits()).await.expect("images");
    assert!(found.has_images && found.pool.is_none());
    assert_eq!(found.sha256, sha256_hex(&bytes));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_reference_is_refused_with_what_was_found() {
    let storage = memory("reference-refused");
    let mean = npy("<f8", false, &[POOL], &[0; POOL * 8]);
    let sigma = npy("<f8", false, &[POOL, POOL], &vec![0; POOL * POOL * 8]);
    let stored = |members: &[(&str, Vec<u8>)]| archive(members, CompressionMethod::Stored);
    let mut infinite = doubles(&[0.0; POOL]);
    infinite[80..88].copy_from_slice(&f64::INFINITY.to_le_bytes());
    let mut damaged = stored(&[("mu.npy", mean.clone()), ("sigma.npy", sigma.clone())]);
    damaged[1000] ^= 1;
    let features = |shape: &[usize], bytes: usize| npy("<f4", false, shape, &vec![0; bytes]);
    for (name, bytes, words) in [
        ("other.npz", stored(&[("x.npy", mean.clone())]), "neither mu and sigma nor images (arr_0); found x.npy"),
        ("nothing.npz", stored(&[]), "found nothing"),
        ("half.npz", stored(&[("mu.npy", mean.clone())]), "mu.npy: it is there without sigma.npy"),
        ("rest.npz", stored(&[("sigma.npy", sigma.clone())]), "sigma.npy: it is there without mu.npy"),
        (
            "short.npz",
            stored(&[("mu.npy", npy("<f8", false, &[64], &[0; 64 * 8])), ("sigma.npy", sigma.clone())]),
            "mu.npy: shape [64], expected [2048]",
        ),
        (
            "flat.npz",
            stored(&[("mu.npy", mean.clone()), ("sigma.npy", mean.clone())]),
            "sigma.npy: shape [2048], expected [2048, 2048]",
        ),
        (
            "integers.npz",
            stored(&[("mu.npy", npy("<i8", false, &[POOL], &[0; POOL * 8])), ("sigma.npy", sigma.clone())]),
            "mu.npy: elements of type \"<i8\"",
        ),
        (
            "infinite.npz",
            stored(&[("mu.npy", npy("<f8", false, &[POOL], &infinite)), ("sigma.npy", sigma.clone())]),
            "mu.npy: inf among its elements",
        ),
        (
            "ends.npz",
            stored(&[("mu.npy", mean[..mean.len() - 8].to_vec()), ("sigma.npy", sigma.clone())]),
            "mu.npy: it is damaged: its bytes end before it does",
        ),
        (
            "longer.npz",
            stored(&[("mu.npy", [mean.clone(), vec![0]].concat()), ("sigma.npy", sigma)]),
            "mu.npy: it goes on behind the array's end",
        ),
        ("damaged.npz", damaged, "mu.npy: it is damaged: its CRC-32"),
        ("features.npz", stored(&[("features.npy", features(&[3, 5], 60))]), "features.npy: shape [3, 5]"),
        (
            "claims.npz",
            stored(&[("features.npy", features(&[1 << 40, POOL], 16))]),
            "which are no array of shape [1099511627776, 2048]",
        ),
        ("text.npz", b"a reference".to_vec(), "not a whole archive"),
        ("account.npz", stored(&[("restok.json", b"{}".to_vec())]), "restok.json: missing field `protocol`"),
    ] {
        let told = refused(&storage, name, bytes).await;
        assert!(told.contains(words), "{name}: {told}");
    }
    let told = read_reference("memory:///scoring/reference.txt", &limits()).await.expect_err("no archive").to_string();
    assert!(told.contains("ends in .npz"), "{told}");
}
