//! Which of several processes this one is.
//!
//! Scheduling, restarts and placement belong to whatever started the process; all that is needed from it is a rank and a
//! world size. They only order the work (see [`super::order`] and [`super::leases`]): no name and no byte of a table depends on them.

use crate::PipelineError;
use std::fmt;

/// This process among those that work on the same output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessRank {
    /// Number of this process, from 0.
    pub rank: u32,
    /// Number of processes.
    pub world_size: u32,
    /// What said so.
    pub origin: RankOrigin,
}

/// What a rank and world size were taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RankOrigin {
    /// `rank` and `world_size`.
    Options,
    /// `JOB_COMPLETION_INDEX` of a Kubernetes indexed job, and `world_size`.
    Kubernetes,
    /// `SLURM_ARRAY_TASK_ID` of a Slurm array.
    SlurmArray,
    /// `SLURM_PROCID` and `SLURM_NTASKS` of a Slurm step.
    SlurmStep,
    /// `RANK` and `WORLD_SIZE` of torchrun.
    Torchrun,
    /// Nothing: one process alone.
    Alone,
}

impl fmt::Display for RankOrigin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Options => "`rank` and `world-size`",
            Self::Kubernetes => "JOB_COMPLETION_INDEX and `world-size`",
            Self::SlurmArray => "SLURM_ARRAY_TASK_ID",
            Self::SlurmStep => "SLURM_PROCID",
            Self::Torchrun => "RANK and WORLD_SIZE",
            Self::Alone => "nothing set: one process",
        })
    }
}

impl fmt::Display for ProcessRank {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "rank {} of {} (from {})", self.rank, self.world_size, self.origin)
    }
}

impl ProcessRank {
    /// One process alone.
    pub const ALONE: Self = Self { rank: 0, world_size: 1, origin: RankOrigin::Alone };

    /// Finds rank and world size: the options `rank` and `world_size` first, then Kubernetes, Slurm arrays, Slurm steps, torchrun.
    ///
    /// `lookup` reads one environment variable; an empty one counts as absent. `world_size` may be given alone where the
    /// scheduler gives the rank: Kubernetes tells an index but not how many there are.
    ///
    /// # Errors
    /// When a variable is no number, a world size is missing or 0, or the rank is not below the world size.
    pub fn detect(
        rank: Option<u32>,
        world_size: Option<u32>,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, PipelineError> {
        let number = |name: &str| -> Result<Option<u32>, PipelineError> {
            match lookup(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()) {
                None => Ok(None),
                Some(text) => text.parse().map(Some).map_err(|_| settings(format!("{name}={text:?} is not a number"))),
            }
        };
        if let Some(rank) = rank {
            let world_size =
                world_size.ok_or_else(|| settings("`rank` needs `world-size`, the number of processes".to_owned()))?;
            return Self::checked(rank, world_size, RankOrigin::Options);
        }
        if let Some(rank) = number("JOB_COMPLETION_INDEX")? {
            let world_size = world_size.ok_or_else(|| {
                settings(format!(
                    "JOB_COMPLETION_INDEX={rank} gives this process's index, but Kubernetes does not say how many there are: \
                     add `world-size` with the job's `completions`"
                ))
            })?;
            return Self::checked(rank, world_size, RankOrigin::Kubernetes);
        }
        if let Some(id) = number("SLURM_ARRAY_TASK_ID")? {
            let first = number("SLURM_ARRAY_TASK_MIN")?.unwrap_or(0);
            let count = match world_size {
                Some(world_size) => Some(world_size),
                None => number("SLURM_ARRAY_TASK_COUNT")?,
            };
            let world_size = count.ok_or_else(|| {
                settings("SLURM_ARRAY_TASK_ID is set, SLURM_ARRAY_TASK_COUNT is not: add `world-size`".to_owned())
            })?;
            let rank = id
                .checked_sub(first)
                .ok_or_else(|| settings(format!("SLURM_ARRAY_TASK_ID={id} is below SLURM_ARRAY_TASK_MIN={first}")))?;
            return Self::checked(rank, world_size, RankOrigin::SlurmArray);
        }
        for (rank_name, world_name, origin) in
            [("SLURM_PROCID", "SLURM_NTASKS", RankOrigin::SlurmStep), ("RANK", "WORLD_SIZE", RankOrigin::Torchrun)]
        {
            if let Some(rank) = number(rank_name)? {
                let world_size = match world_size {
                    Some(world_size) => Some(world_size),
                    None => number(world_name)?,
                };
                let world_size = world_size
                    .ok_or_else(|| settings(format!("{rank_name} is set, {world_name} is not: add `world-size`")))?;
                return Self::checked(rank, world_size, origin);
            }
        }
        match world_size {
            None | Some(1) => Ok(Self::ALONE),
            Some(world_size) => {
                Err(settings(format!("`world-size` {world_size} needs `rank`, and no scheduler's variable gives one")))
            }
        }
    }

    fn checked(rank: u32, world_size: u32, origin: RankOrigin) -> Result<Self, PipelineError> {
        if rank >= world_size {
            return Err(settings(format!("rank {rank} (from {origin}) must be below the world size of {world_size}")));
        }
        Ok(Self { rank, world_size, origin })
    }
}

fn settings(problem: String) -> PipelineError {
    PipelineError::Settings { problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(
        rank: Option<u32>,
        world_size: Option<u32>,
        variables: &[(&str, &str)],
    ) -> Result<ProcessRank, PipelineError> {
        ProcessRank::detect(rank, world_size, |name| {
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn flags_win_over_kubernetes_over_slurm_over_torchrun() {
        let mut variables = vec![
            ("JOB_COMPLETION_INDEX", "3"),
            ("SLURM_ARRAY_TASK_ID", "7"),
            ("SLURM_ARRAY_TASK_MIN", "5"),
            ("SLURM_ARRAY_TASK_COUNT", "4"),
            ("SLURM_PROCID", "1"),
            ("SLURM_NTASKS", "2"),
            ("RANK", "5"),
            ("WORLD_SIZE", "6"),
        ];
        let expected = [
            (3, 8, RankOrigin::Kubernetes),
            (2, 4, RankOrigin::SlurmArray),
            (1, 2, RankOrigin::SlurmStep),
            (5, 6, RankOrigin::Torchrun),
        ];
        let options = detect(Some(0), Some(9), &variables).expect("options");
        assert_eq!((options.rank, options.world_size, options.origin), (0, 9, RankOrigin::Options));
        for (variables_of_it, (rank, world_size, origin)) in [1, 3, 2, 2].into_iter().zip(expected) {
            let world_option = (origin == RankOrigin::Kubernetes).then_some(8);
            assert_eq!(
                detect(None, world_option, &variables).expect("detected"),
                ProcessRank { rank, world_size, origin }
            );
            variables.drain(..variables_of_it);
        }
        assert_eq!(detect(None, None, &variables).expect("alone"), ProcessRank::ALONE);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (rank, world_size, variables, word) in [
            (Some(1), None, vec![], "`world-size`"),
            (Some(2), Some(2), vec![], "below the world size of 2"),
            (None, Some(4), vec![], "`rank`"),
            (None, None, vec![("JOB_COMPLETION_INDEX", "0")], "`world-size`"),
            (None, None, vec![("RANK", "zero"), ("WORLD_SIZE", "2")], "RANK=\"zero\""),
            (None, None, vec![("SLURM_PROCID", "0")], "SLURM_NTASKS"),
            (
                None,
                None,
                vec![("SLURM_ARRAY_TASK_ID", "0"), ("SLURM_ARRAY_TASK_MIN", "1"), ("SLURM_ARRAY_TASK_COUNT", "1")],
                "below",
            ),
        ] {
            let error = detect(rank, world_size, &variables).expect_err(word).to_string();
            assert!(error.contains(word), "{error}");
        }
        assert_eq!(detect(None, None, &[("RANK", "")]).expect("empty is absent"), ProcessRank::ALONE);
    }

    #[test]
    fn a_rank_and_its_origin_are_shown() {
        let process = detect(None, None, &[("RANK", "1"), ("WORLD_SIZE", "2")]).expect("torchrun");
        assert_eq!(process.to_string(), "rank 1 of 2 (from RANK and WORLD_SIZE)");
    }
}
