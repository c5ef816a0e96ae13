//! How a process learns that others train with it: the variables of `torchrun`, or those of Slurm beside an address to meet at.

use crate::{
    settings::SettingsError,
    workers::{available_cores, cores_for_each},
};
use anyhow::{Context, Result};
use models::{Device, DeviceChoice, ProcessGroup, Rendezvous};
use pipeline::Limits;
use std::{sync::Arc, time::Duration};

/// This process among those of a training; alone without a scheduler that says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Launch {
    /// Where the others are met, if there are any.
    rendezvous: Option<Rendezvous>,
    /// Which of the processes on this machine it is, and of how many.
    local: (usize, usize),
    /// Cores that the scheduler gives each process, where it says so.
    cores: Option<usize>,
}

impl Launch {
    /// A process that nobody trains with.
    pub(crate) const ALONE: Self = Self { rendezvous: None, local: (0, 1), cores: None };

    /// Reads the environment through `lookup`, in which an empty variable counts as absent.
    ///
    /// Work units take their ranks from more schedulers (`pipeline::ProcessRank`), which need no address: a Kubernetes job that numbers its pods,
    /// or a Slurm array, starts trainings that have nothing to do with each other.
    ///
    /// # Errors
    /// When a variable is missing beside others, or is no number.
    pub(crate) fn detect(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let number = |name: &'static str| match lookup(name) {
            Some(value) => match value.parse::<usize>() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(SettingsError::invalid(name, value, "a number of at least 0")),
            },
            None => Ok(None),
        };
        let (names, cores_name) = match () {
            // Where Slurm starts torchrun, what it gives each task is for all processes that torchrun starts.
            () if lookup("WORLD_SIZE").is_some() => (["WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE"], None),
            // One process of a batch script sees these as well; only who wants a group says where it meets.
            () if lookup("MASTER_ADDR").is_some() && lookup("SLURM_NTASKS").is_some() => (
                ["SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"],
                Some("SLURM_CPUS_PER_TASK"),
            ),
            () => return Ok(Self::ALONE),
        };
        let [size_name, rank_name, local_rank_name, local_size_name] = names;
        let world_size = number(size_name)?.unwrap_or(1);
        if world_size <= 1 {
            return Ok(Self::ALONE);
        }
        let needed = |name: &'static str| {
            SettingsError::invalid(name, "nothing", format!("a value, beside {size_name}={world_size}"))
        };
        let rank = number(rank_name)?.ok_or_else(|| needed(rank_name))?;
        if rank >= world_size {
            return Err(SettingsError::invalid(
                rank_name,
                rank.to_string(),
                format!("less than {size_name}, {world_size}"),
            ));
        }
        let port = number("MASTER_PORT")?.ok_or_else(|| needed("MASTER_PORT"))?;
        let local_size = number(local_size_name)?.unwrap_or(1).max(1);
        Ok(Self {
            rendezvous: Some(Rendezvous {
                host: lookup("MASTER_ADDR").ok_or_else(|| needed("MASTER_ADDR"))?,
                port: u16::try_from(port)
                    .map_err(|_| SettingsError::invalid("MASTER_PORT", port.to_string(), "at most 65535"))?,
                rank,
                world_size,
                is_open: lookup("TORCHELASTIC_USE_AGENT_STORE").is_some_and(|value| value == "True"),
            }),
            local: (number(local_rank_name)?.unwrap_or(0), local_size),
            cores: cores_name.map(number).transpose()?.flatten().filter(|&cores| cores > 0),
        })
    }

    /// Processes in all.
    pub(crate) fn world_size(&self) -> usize {
        self.rendezvous.as_ref().map_or(1, |rendezvous| rendezvous.world_size)
    }

    /// Number of this process; the one of rank 0 writes, and speaks.
    pub(crate) fn rank(&self) -> usize {
        self.rendezvous.as_ref().map_or(0, |rendezvous| rendezvous.rank)
    }

    /// Names the rank in every line that this thread logs, as long as the result lives.
    pub(crate) fn named(&self) -> Option<tracing::span::EnteredSpan> {
        (self.world_size() > 1).then(|| tracing::error_span!("process", rank = self.rank()).entered())
    }

    /// The device of this process, found before anything else touches torch. Processes on one machine take its devices in turn, and share its
    /// cores where `threads` does not say otherwise.
    ///
    /// # Errors
    /// When a device is asked for that is not there.
    pub(crate) fn device(&self, choice: DeviceChoice, threads: Option<usize>) -> Result<Device> {
        let (local_rank, local_size) = self.local;
        let devices = models::initialise(&[choice], threads.or_else(|| self.own_cores(available_cores())))?;
        // Where there is only one, the scheduler may have bound it to this process.
        if devices.len() > 1 && local_size > devices.len() {
            let expected = format!("at most {}, one a device", devices.len());
            let name = "LOCAL_WORLD_SIZE (Slurm: SLURM_NTASKS_PER_NODE)";
            return Err(SettingsError::invalid(name, local_size.to_string(), expected).into());
        }
        devices.get(local_rank % devices.len().max(1)).copied().context("no device to train on")
    }

    /// The limits of one of the processes of this machine: those that stand for all cores get its own.
    pub(crate) fn limits(&self, limits: Limits) -> Limits {
        match (limits.decode_threads, self.own_cores(available_cores())) {
            (0, Some(decode_threads)) => Limits { decode_threads, ..limits },
            _ => limits,
        }
    }

    /// Of the `available` cores, those of this process; `None` where it has all.
    fn own_cores(&self, available: usize) -> Option<usize> {
        match (self.cores, self.local) {
            // Slurm may have bound it to them: then no others are available, and the other processes have their own.
            (Some(cores), _) => Some(cores.min(available)),
            (None, (_, processes @ 2..)) => Some(cores_for_each(available, processes)),
            (None, _) => None,
        }
    }

    /// Meets the other processes, if there are any.
    ///
    /// # Errors
    /// When they do not all appear within `timeout`, or the address cannot be used.
    pub(crate) fn meet(&self, device: Device, timeout: Duration) -> Result<Option<Arc<ProcessGroup>>> {
        let meet = |rendezvous: &Rendezvous| ProcessGroup::meet(rendezvous, device, timeout);
        Ok(self.rendezvous.as_ref().map(meet).transpose()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detect(variables: &[(&str, &str)]) -> Result<Launch, SettingsError> {
        Launch::detect(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn torchrun_and_slurm_are_recognised_and_a_process_without_them_is_alone() {
        for alone in [
            &[][..],
            &[("WORLD_SIZE", "1"), ("RANK", "0")],
            &[("JOB_COMPLETION_INDEX", "3")],
            &[("SLURM_NTASKS", "4"), ("SLURM_PROCID", "0")],
        ] {
            let launch = detect(alone).expect("alone");
            assert_eq!((launch.rank(), launch.world_size()), (0, 1), "{alone:?}");
        }
        let torchrun = detect(&[
            ("RANK", "5"),
            ("WORLD_SIZE", "8"),
            ("LOCAL_RANK", "1"),
            ("LOCAL_WORLD_SIZE", "4"),
            ("MASTER_ADDR", "host"),
            ("MASTER_PORT", "29500"),
            ("TORCHELASTIC_USE_AGENT_STORE", "True"),
        ])
        .expect("torchrun's");
        assert_eq!((torchrun.rank(), torchrun.world_size(), torchrun.local), (5, 8, (1, 4)));
        let rendezvous = torchrun.rendezvous.expect("others");
        assert!(rendezvous.is_open && rendezvous.host == "host", "{rendezvous:?}");
        let slurm = detect(&[
            ("SLURM_NTASKS", "2"),
            ("SLURM_PROCID", "1"),
            ("SLURM_LOCALID", "1"),
            ("MASTER_ADDR", "host"),
            ("MASTER_PORT", "29500"),
        ])
        .expect("Slurm's");
        assert_eq!((slurm.rank(), slurm.world_size(), slurm.local), (1, 2, (1, 1)));
        assert!(!slurm.rendezvous.expect("others").is_open);
    }

    #[test]
    fn cores_that_the_scheduler_gives_each_process_are_not_divided_again() {
        let meeting = [("MASTER_ADDR", "host"), ("MASTER_PORT", "29500")];
        let slurm = [("SLURM_NTASKS", "8"), ("SLURM_PROCID", "1"), ("SLURM_NTASKS_PER_NODE", "4")];
        let torchrun = [("WORLD_SIZE", "8"), ("RANK", "1"), ("LOCAL_WORLD_SIZE", "4")];
        let given = [("SLURM_CPUS_PER_TASK", "16")];
        let own = |variables: &[&[(&str, &str)]], available| {
            detect(&variables.concat()).expect("others").own_cores(available)
        };
        // Bound to them, and where Slurm does not bind.
        assert_eq!(own(&[&meeting, &slurm, &given], 16), Some(16));
        assert_eq!(own(&[&meeting, &slurm, &given], 64), Some(16));
        // What srun did not take over from the batch script binds to fewer.
        assert_eq!(own(&[&meeting, &slurm, &given], 1), Some(1));
        assert_eq!(own(&[&meeting, &slurm], 64), Some(16));
        assert_eq!(own(&[&meeting, &torchrun, &given], 16), Some(4));
        assert_eq!(own(&[&meeting, &torchrun], 2), Some(1));
        assert_eq!(own(&[&given], 64), None);
    }

    #[test]
    fn what_is_missing_or_no_number_is_named() {
        let whole = [("RANK", "1"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "host"), ("MASTER_PORT", "29500")];
        for missing in ["RANK", "MASTER_ADDR", "MASTER_PORT"] {
            let rest: Vec<_> = whole.into_iter().filter(|(name, _)| *name != missing).collect();
            let error = detect(&rest).expect_err(missing).to_string();
            assert!(error.contains(missing), "{error}");
        }
        for (name, value) in [("RANK", "two"), ("RANK", "2"), ("WORLD_SIZE", "-1"), ("MASTER_PORT", "100000")] {
            let other = whole.map(|(known, found)| (known, if known == name { value } else { found }));
            let error = detect(&other).expect_err(name).to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }
}
