//! The scores of a set by the names under which they are asked for.

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
    pub fn name(self) -> &'static str {
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
}
