//! Which of several processes this one is.
//!
//! Scheduling, restarts and placement belong to whatever started the process; all that is needed from it is a rank and a
//! world size. They only order the work (see [`super::leases`]): no name and no byte of a table depends on them.

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
    /// `AWS_BATCH_JOB_ARRAY_INDEX` of an array job of AWS Batch.
    AwsBatch,
    /// `BATCH_TASK_INDEX` of a task group of Google Batch.
    GoogleBatch,
    /// `PBS_ARRAY_INDEX` of a PBS array, and `world_size`.
    PbsArray,
    /// `OMPI_COMM_WORLD_RANK` and `OMPI_COMM_WORLD_SIZE` of Open MPI's mpirun.
    OpenMpi,
    /// `SLURM_PROCID` and `SLURM_NTASKS` of a Slurm step.
    SlurmStep,
    /// `RANK` and `WORLD_SIZE` of torchrun.
    Torchrun,
    /// `SKYPILOT_NODE_RANK` and `SKYPILOT_NUM_NODES` of SkyPilot.
    SkyPilot,
    /// An engine, which hands out the units: as if alone.
    Engine,
    /// Nothing: one process alone.
    Alone,
}

/// The variables by which a scheduler or a launcher tells a process its number.
struct Variables {
    origin: RankOrigin,
    /// Number of the process.
    rank: &'static str,
    /// Number of the first process, where that need not be 0.
    first: Option<&'static str>,
    /// Number of processes.
    count: Count,
}

/// How a process learns how many there are.
enum Count {
    /// By a variable.
    Told(&'static str),
    /// Not at all: who says it instead, for the error.
    Untold { scheduler: &'static str, known_as: &'static str },
}

/// In the order in which they are looked for. An array or a job of many comes first, because each of its tasks may start a launcher; then the
/// launchers, and at the end who numbers machines, for a launcher may start several processes on each.
const VARIABLES: [Variables; 9] = [
    // kubernetes.io/docs/concepts/workloads/controllers/job, "Completion mode".
    Variables {
        origin: RankOrigin::Kubernetes,
        rank: "JOB_COMPLETION_INDEX",
        first: None,
        count: Count::Untold { scheduler: "Kubernetes", known_as: "the job's `completions`" },
    },
    // slurm.schedmd.com/job_array.html, "Job ID and Environment Variables".
    Variables {
        origin: RankOrigin::SlurmArray,
        rank: "SLURM_ARRAY_TASK_ID",
        first: Some("SLURM_ARRAY_TASK_MIN"),
        count: Count::Told("SLURM_ARRAY_TASK_COUNT"),
    },
    // docs.aws.amazon.com/batch/latest/userguide/job_env_vars.html: from 0.
    Variables {
        origin: RankOrigin::AwsBatch,
        rank: "AWS_BATCH_JOB_ARRAY_INDEX",
        first: None,
        count: Count::Told("AWS_BATCH_JOB_ARRAY_SIZE"),
    },
    // cloud.google.com/batch/docs/reference/rest/v1/projects.locations.jobs, TaskGroup: "0 through BATCH_TASK_COUNT - 1".
    Variables {
        origin: RankOrigin::GoogleBatch,
        rank: "BATCH_TASK_INDEX",
        first: None,
        count: Count::Told("BATCH_TASK_COUNT"),
    },
    // PBS Professional User's Guide, "Job Arrays". The numbers are those of `qsub -J`, which tells neither first nor last.
    Variables {
        origin: RankOrigin::PbsArray,
        rank: "PBS_ARRAY_INDEX",
        first: None,
        count: Count::Untold {
            scheduler: "PBS",
            known_as: "the number of subjobs, with an array from 0 (qsub -J 0-7)",
        },
    },
    // docs.open-mpi.org/en/v5.0.x/tuning-apps/environment-var.html. Before srun's, for mpirun starts its daemons by srun.
    Variables {
        origin: RankOrigin::OpenMpi,
        rank: "OMPI_COMM_WORLD_RANK",
        first: None,
        count: Count::Told("OMPI_COMM_WORLD_SIZE"),
    },
    // slurm.schedmd.com/srun.html, "Output environment variables".
    Variables { origin: RankOrigin::SlurmStep, rank: "SLURM_PROCID", first: None, count: Count::Told("SLURM_NTASKS") },
    // docs.pytorch.org/docs/stable/elastic/run.html, "Environment Variables".
    Variables { origin: RankOrigin::Torchrun, rank: "RANK", first: None, count: Count::Told("WORLD_SIZE") },
    // docs.skypilot.co/en/stable/running-jobs/distributed-jobs.html.
    Variables {
        origin: RankOrigin::SkyPilot,
        rank: "SKYPILOT_NODE_RANK",
        first: None,
        count: Count::Told("SKYPILOT_NUM_NODES"),
    },
];

impl fmt::Display for RankOrigin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match VARIABLES.iter().find(|variables| variables.origin == *self) {
            Some(Variables { rank, count: Count::Told(count), .. }) => write!(formatter, "{rank} and {count}"),
            Some(Variables { rank, count: Count::Untold { .. }, .. }) => write!(formatter, "{rank} and `world-size`"),
            None => formatter.write_str(match self {
                Self::Options => "`rank` and `world-size`",
                Self::Engine => "an engine, which hands out the units",
                _ => "nothing set: one process",
            }),
        }
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

    /// A worker of an engine, which hands out the units: any number of them are this.
    pub const OF_ENGINE: Self = Self { origin: RankOrigin::Engine, ..Self::ALONE };

    /// Finds rank and world size: the options `rank` and `world_size` first, then the variables of schedulers and launchers in the order of
    /// [`RankOrigin`].
    ///
    /// `lookup` reads one environment variable; an empty one counts as absent. `world_size` may be given alone where the
    /// scheduler gives the rank: Kubernetes and PBS tell an index but not how many there are.
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
        for Variables { origin, rank: name, first, count } in &VARIABLES {
            let Some(index) = number(name)? else { continue };
            let world_size = match (world_size, count) {
                (Some(world_size), _) => world_size,
                (None, Count::Told(count)) => number(count)?
                    .ok_or_else(|| settings(format!("{name} is set, {count} is not: add `world-size`")))?,
                (None, Count::Untold { scheduler, known_as }) => {
                    return Err(settings(format!(
                        "{name}={index} gives this process's index, but {scheduler} does not say how many there are: add \
                         `world-size` with {known_as}"
                    )));
                }
            };
            let rank = match first {
                None => index,
                Some(first_name) => {
                    let first = number(first_name)?.unwrap_or(0);
                    let below = || settings(format!("{name}={index} is below {first_name}={first}"));
                    index.checked_sub(first).ok_or_else(below)?
                }
            };
            return Self::checked(rank, world_size, *origin);
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
    fn flags_win_over_arrays_over_launchers_over_machines() {
        let mut variables = vec![
            ("JOB_COMPLETION_INDEX", "3"),
            ("SLURM_ARRAY_TASK_ID", "7"),
            ("SLURM_ARRAY_TASK_MIN", "5"),
            ("SLURM_ARRAY_TASK_COUNT", "4"),
            ("AWS_BATCH_JOB_ARRAY_INDEX", "9"),
            ("AWS_BATCH_JOB_ARRAY_SIZE", "10"),
            ("BATCH_TASK_INDEX", "0"),
            ("BATCH_TASK_COUNT", "1"),
            ("PBS_ARRAY_INDEX", "4"),
            ("OMPI_COMM_WORLD_RANK", "6"),
            ("OMPI_COMM_WORLD_SIZE", "7"),
            ("SLURM_PROCID", "1"),
            ("SLURM_NTASKS", "2"),
            ("RANK", "5"),
            ("WORLD_SIZE", "6"),
            ("SKYPILOT_NODE_RANK", "1"),
            ("SKYPILOT_NUM_NODES", "3"),
        ];
        let options = detect(Some(0), Some(9), &variables).expect("options");
        assert_eq!((options.rank, options.world_size, options.origin), (0, 9, RankOrigin::Options));
        for (variables_of_it, world_option, (rank, world_size, origin)) in [
            (1, Some(8), (3, 8, RankOrigin::Kubernetes)),
            (3, None, (2, 4, RankOrigin::SlurmArray)),
            (2, None, (9, 10, RankOrigin::AwsBatch)),
            (2, None, (0, 1, RankOrigin::GoogleBatch)),
            (1, Some(5), (4, 5, RankOrigin::PbsArray)),
            (2, None, (6, 7, RankOrigin::OpenMpi)),
            (2, None, (1, 2, RankOrigin::SlurmStep)),
            (2, None, (5, 6, RankOrigin::Torchrun)),
            (2, None, (1, 3, RankOrigin::SkyPilot)),
        ] {
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
            (None, None, vec![("JOB_COMPLETION_INDEX", "0")], "`completions`"),
            (None, None, vec![("PBS_ARRAY_INDEX", "0")], "`world-size` with the number of subjobs"),
            (None, Some(8), vec![("PBS_ARRAY_INDEX", "8")], "below the world size of 8"),
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
        assert_eq!(ProcessRank::ALONE.to_string(), "rank 0 of 1 (from nothing set: one process)");
        let of_engine = ProcessRank::OF_ENGINE.to_string();
        assert_eq!(of_engine, "rank 0 of 1 (from an engine, which hands out the units)");
    }
}
