//! The rules of the protocols, and what breaks them.

use report::text::{count, counted};
use schemas::{Crop, Deviation, DeviationKind, Protocol};
use std::collections::BTreeSet;

/// Below this many images, how often neighbours are alike says nothing about their order.
const FEWEST_FOR_ORDER: u64 = 50;

/// Numbers of a broken protocol that nobody allowed.
#[derive(Debug, thiserror::Error)]
#[error(
    "the protocol {protocol} is not kept, and its numbers would not compare with those of others:\n{}\
     `--allow {}` scores nevertheless, and the result says so",
    deviations.iter().map(|deviation| format!("  {deviation}\n")).collect::<String>(),
    names(deviations)
)]
pub(crate) struct BrokenProtocol {
    protocol: Protocol,
    deviations: Vec<Deviation>,
}

fn names(deviations: &[Deviation]) -> String {
    let kinds: BTreeSet<&str> = deviations.iter().map(|deviation| deviation.kind.name()).collect();
    kinds.into_iter().collect::<Vec<_>>().join(",")
}

/// Refuses what is not allowed.
///
/// # Errors
/// [`BrokenProtocol`], with every rule that is broken and not allowed.
pub(super) fn refuse(
    protocol: Protocol,
    deviations: &[Deviation],
    allow: &BTreeSet<DeviationKind>,
) -> Result<(), BrokenProtocol> {
    let deviations: Vec<_> = deviations.iter().filter(|deviation| !allow.contains(&deviation.kind)).cloned().collect();
    match deviations.is_empty() {
        true => Ok(()),
        false => Err(BrokenProtocol { protocol, deviations }),
    }
}

/// Refuses a set that is yet to be made, by what is known of it.
///
/// # Errors
/// [`BrokenProtocol`].
pub(crate) fn check_before(
    protocol: Protocol,
    images: u64,
    shape: (usize, usize),
    reference: &[Deviation],
    allow: &BTreeSet<DeviationKind>,
) -> Result<(), BrokenProtocol> {
    let own = of_count(protocol, images).into_iter().chain(of_size(protocol, shape, None));
    refuse(protocol, &reference.iter().cloned().chain(own).collect::<Vec<_>>(), allow)
}

/// Another number of images.
pub(super) fn of_count(protocol: Protocol, images: u64) -> Option<Deviation> {
    (images != protocol.count()).then(|| Deviation {
        kind: DeviationKind::Count,
        found: counted(images, "image"),
        expected: count(protocol.count()),
    })
}

/// Another size, or another way to it. `shape` is height and width.
pub(super) fn of_size(protocol: Protocol, (height, width): (usize, usize), crop: Option<Crop>) -> Option<Deviation> {
    let side = protocol.side();
    let expected = match protocol {
        Protocol::GfidAdm => format!("images of {side}x{side}, as they were made"),
        Protocol::Rfid => Crop::TorchvisionCenter { size: side }.to_string(),
    };
    let kept = match protocol {
        Protocol::GfidAdm => crop.is_none() && (height, width) == (side, side),
        Protocol::Rfid => crop == Some(Crop::TorchvisionCenter { size: side }),
    };
    let found = match crop {
        Some(crop) => format!("images cropped by {crop}"),
        None => format!("images of {width}x{height}"),
    };
    (!kept).then_some(Deviation { kind: DeviationKind::Resize, found, expected })
}

/// Formats that hold pixels as they are; GIF has a palette, WebP may be lossy.
pub(super) const LOSSLESS: [&str; 5] = ["pixels", "png", "bmp", "tiff", "pnm"];

/// Generated images that lie in lossy files.
pub(super) fn of_files(protocol: Protocol, images: u64, lossy: u64) -> Option<Deviation> {
    (protocol == Protocol::GfidAdm && lossy > 0).then(|| Deviation {
        kind: DeviationKind::Jpeg,
        found: format!("{} of {} lie in JPEG or other lossy files", count(lossy), counted(images, "image")),
        expected: "pixels as they were made".to_owned(),
    })
}

/// Broken images that were passed over.
pub(super) fn of_rejects(rejected: u64) -> Option<Deviation> {
    (rejected > 0).then(|| Deviation {
        kind: DeviationKind::Rejects,
        found: format!("{} could not be read and were left out", counted(rejected, "image")),
        expected: "every image".to_owned(),
    })
}

/// How often neighbours of a set are of one class, and how many classes its splits have.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Neighbours {
    /// Images.
    pub(super) images: u64,
    /// Fraction of images of the class of the one before.
    pub(super) repeats: f64,
    /// What that fraction would be in a mixed order.
    pub(super) chance: f64,
    /// Whether classes are those of the set, or what the network takes the images for.
    pub(super) labelled: bool,
    /// Classes in the split of the inception score that has the fewest, and how many it would have in a mixed order; absent where the
    /// set does not say its classes, or is not of two splits.
    pub(super) poorest_split: Option<(u64, f64)>,
}

/// A set that stands sorted by class, or whose splits have few classes: the inception score is taken over splits.
pub(super) fn of_order(protocol: Protocol, neighbours: &Neighbours) -> Option<Deviation> {
    let Neighbours { images, repeats, chance, labelled, poorest_split } = *neighbours;
    if protocol != Protocol::GfidAdm || images < FEWEST_FOR_ORDER {
        return None;
    }
    let expected = "a mixed order, for the inception score is taken over consecutive splits".to_owned();
    // Five deviations of a share that was counted over so many pairs, and a twentieth for sets that are merely uneven.
    let spread = (chance * (1.0 - chance) / images as f64).max(0.0).sqrt();
    let sorted = repeats > chance + 0.05 + 5.0 * spread;
    if let Some((found, mixed)) = poorest_split.filter(|&(found, mixed)| !sorted && (found as f64) < 0.5 * mixed) {
        let found =
            format!("a split of the inception score has {found} classes, in a mixed order it would be {mixed:.0}");
        return Some(Deviation { kind: DeviationKind::Order, found, expected });
    }
    sorted.then(|| Deviation {
        kind: DeviationKind::Order,
        found: format!(
            "{:.0} % of images are of the class of the one before{}, in a mixed order it would be {:.0} %: the set is sorted by class",
            repeats * 100.0,
            if labelled { "" } else { " by what the network takes them for" },
            chance * 100.0
        ),
        expected,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_that_is_kept_has_no_deviations() {
        assert_eq!(of_count(Protocol::GfidAdm, 50_000), None);
        assert_eq!(of_size(Protocol::GfidAdm, (256, 256), None), None);
        assert_eq!(of_size(Protocol::Rfid, (256, 256), Some(Crop::TorchvisionCenter { size: 256 })), None);
        assert_eq!(of_files(Protocol::GfidAdm, 50_000, 0), None);
        assert_eq!(of_files(Protocol::Rfid, 50_000, 50_000), None, "originals are JPEG files");
        assert_eq!(of_rejects(0), None);
    }

    #[test]
    fn what_breaks_a_rule_is_refused_by_name_or_allowed() {
        let deviations: Vec<_> = [
            of_count(Protocol::GfidAdm, 10_000),
            of_size(Protocol::GfidAdm, (32, 32), None),
            of_files(Protocol::GfidAdm, 10_000, 9_999),
        ]
        .into_iter()
        .flatten()
        .collect();
        assert_eq!(deviations.len(), 3);
        let error = refuse(Protocol::GfidAdm, &deviations, &BTreeSet::new()).expect_err("three rules").to_string();
        for words in
            ["10,000 images, the protocol says 50,000", "32x32", "9,999 of 10,000", "--allow count,jpeg,resize"]
        {
            assert!(error.contains(words), "{error}");
        }
        let allow = [DeviationKind::Count, DeviationKind::Jpeg].into();
        let error = refuse(Protocol::GfidAdm, &deviations, &allow).expect_err("one rule").to_string();
        assert!(error.contains("--allow resize") && !error.contains("50,000"), "{error}");
        refuse(Protocol::GfidAdm, &deviations, &DeviationKind::ALL.into()).expect("all allowed");
    }

    #[test]
    fn a_crop_is_another_resize_for_generated_images_and_the_published_one_for_originals() {
        let adm = Some(Crop::AdmCenter { size: 256 });
        assert!(of_size(Protocol::GfidAdm, (256, 256), adm).is_some());
        let found = of_size(Protocol::Rfid, (256, 256), adm).expect("another crop");
        assert!(found.to_string().contains("adm-center-256") && found.to_string().contains("torchvision-center-256"));
    }

    #[test]
    fn a_sorted_set_is_told_from_a_mixed_one() {
        let neighbours =
            |images, repeats, chance| Neighbours { images, repeats, chance, labelled: true, poorest_split: None };
        let is_sorted = |neighbours: Neighbours| of_order(Protocol::GfidAdm, &neighbours).is_some();
        assert!(is_sorted(neighbours(50_000, 0.98, 0.001)));
        assert!(
            is_sorted(neighbours(50_000, 0.3, 0.001)),
            "as a network sees a sorted set of pictures that it hardly knows"
        );
        assert!(!is_sorted(neighbours(1_000, 0.12, 0.1)), "as chance has it");
        let poor = |found| Neighbours { poorest_split: Some((found, 993.0)), ..neighbours(50_000, 0.01, 0.001) };
        assert!(is_sorted(poor(100)) && !is_sorted(poor(990)), "mixed within a hundred classes only");
        assert!(!is_sorted(neighbours(50_000, 0.001, 0.001)) && !is_sorted(neighbours(1_000, 0.0, 0.1)));
        assert!(!is_sorted(neighbours(1_000, 1.0, 1.0)), "one class alone has no order");
        assert!(!is_sorted(neighbours(20, 0.9, 0.1)), "too few to tell");
        assert!(of_order(Protocol::Rfid, &neighbours(50_000, 0.98, 0.001)).is_none(), "one split has no order");
    }
}
