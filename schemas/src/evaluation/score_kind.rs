//! The scores of a set by the names under which they are asked for.

use std::cmp::Ordering;

/// Which of two scores speaks for its set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScoreDirection {
    /// The lower one, as of a distance.
    Lower,
    /// The higher one.
    Higher,
}

impl ScoreDirection {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lower => "lower",
            Self::Higher => "higher",
        }
    }

    /// Orders scores, the better one first.
    pub fn order(self, one: f64, other: f64) -> Ordering {
        match self {
            Self::Lower => one.total_cmp(&other),
            Self::Higher => other.total_cmp(&one),
        }
    }
}

/// A score of a whole set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ScoreKind {
    /// Fréchet distance of pool features.
    Fid,
    /// Fréchet distance of spatial features.
    Sfid,
    /// Inception score.
    Is,
    /// Fraction of samples within the reference's manifold.
    Precision,
    /// Fraction of the reference within the samples' manifold.
    Recall,
    /// Kernel distance of pool features.
    Kid,
    /// Monge distance of pool features.
    Mind,
    /// Balls around the reference that samples lie in.
    Density,
    /// Fraction of the reference in whose ball a sample lies.
    Coverage,
    /// Fréchet distance extrapolated to infinitely many images.
    FidInfinity,
    /// Vendi score: the effective number of distinct images.
    Vendi,
    /// Samples that are no copies, in percent.
    Authpct,
}

impl ScoreKind {
    /// Every score.
    pub const ALL: [Self; 12] = [
        Self::Fid,
        Self::Sfid,
        Self::Is,
        Self::Precision,
        Self::Recall,
        Self::Kid,
        Self::Mind,
        Self::Density,
        Self::Coverage,
        Self::FidInfinity,
        Self::Vendi,
        Self::Authpct,
    ];

    /// Those of the ADM evaluator.
    pub const OF_ADM: [Self; 5] = [Self::Fid, Self::Sfid, Self::Is, Self::Precision, Self::Recall];

    /// Its name, by which it is asked for.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fid => "fid",
            Self::Sfid => "sfid",
            Self::Is => "is",
            Self::Precision => "precision",
            Self::Recall => "recall",
            Self::Kid => "kid",
            Self::Mind => "mind",
            Self::Density => "density",
            Self::Coverage => "coverage",
            Self::FidInfinity => "fid-infinity",
            Self::Vendi => "vendi",
            Self::Authpct => "authpct",
        }
    }

    /// Which of two is better.
    pub const fn direction(self) -> ScoreDirection {
        match self {
            Self::Fid | Self::Sfid | Self::Kid | Self::Mind | Self::FidInfinity => ScoreDirection::Lower,
            Self::Is
            | Self::Precision
            | Self::Recall
            | Self::Density
            | Self::Coverage
            | Self::Vendi
            | Self::Authpct => ScoreDirection::Higher,
        }
    }

    /// Whether it compares the set with a reference.
    pub const fn needs_reference(self) -> bool {
        !matches!(self, Self::Is | Self::Vendi)
    }

    /// Whether sets of different sizes have different scores though their images are alike. The kernel distance has no bias, and
    /// each sample is a copy or none whatever the others are.
    pub const fn depends_on_count(self) -> bool {
        !matches!(self, Self::Kid | Self::Authpct)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_better_score_is_the_first() {
        assert_eq!(ScoreKind::Fid.direction().order(2.0, 3.0), Ordering::Less);
        assert_eq!(ScoreKind::Recall.direction().order(0.5, 0.6), Ordering::Greater);
        let lower: Vec<&str> = ScoreKind::ALL
            .into_iter()
            .filter(|kind| kind.direction() == ScoreDirection::Lower)
            .map(ScoreKind::name)
            .collect();
        assert_eq!(lower, ["fid", "sfid", "kid", "mind", "fid-infinity"]);
    }
}
