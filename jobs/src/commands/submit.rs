//! `restok submit`: a job handed to the scheduler of a cluster, which starts it in many places at once.
//!
//! The job is read here as if it were to run here, so that what is wrong with it is told before anything waits in a queue.

mod job;
mod kubernetes;
mod slurm;

pub(crate) use job::Job;

use crate::settings::{KubernetesSettings, SlurmSettings};
use anyhow::Result;

/// Submits a job to Slurm, or prints the script that would be.
///
/// # Errors
/// When nobody says how many tasks there shall be, the job cannot be written down, or Slurm refuses it.
pub(crate) fn to_slurm(settings: &SlurmSettings, job: &Job) -> Result<()> {
    // Before a dry run, which takes a while.
    slurm::words(settings, job)?;
    let limit = slurm::max_array_size();
    let tasks = match settings.tasks {
        Some(tasks) => tasks,
        None => {
            let units = job.units("--tasks")?;
            u32::try_from(units).unwrap_or(u32::MAX).clamp(1, limit.unwrap_or(slurm::MAX_ARRAY_SIZE))
        }
    };
    let script = slurm::script(settings, job, tasks, limit)?;
    if settings.print {
        crate::output::print(&script)?;
        return Ok(());
    }
    let submitted = slurm::submit(&script, job, tasks)?;
    crate::output::print(&submitted)?;
    Ok(())
}

/// Prints the manifest of a job for Kubernetes.
///
/// # Errors
/// When nobody says how many pods there shall be, or the job cannot be written down.
pub(crate) fn to_kubernetes(settings: &KubernetesSettings, job: &Job) -> Result<()> {
    // Before a dry run, which takes a while.
    kubernetes::words(settings, job)?;
    let completions = match settings.completions {
        Some(completions) => completions,
        None => KubernetesSettings::completions_for(job.units("--completions")?)?,
    };
    crate::output::print(&kubernetes::manifest(settings, job, completions)?)?;
    Ok(())
}
