//! The devices of a job, each as often as it has workers.

use crate::settings::Devices;
use anyhow::{Context, Result};
use models::Device;
use std::thread::available_parallelism;

/// Cores that the system lets this process run on: those of the machine, unless a scheduler or a container binds it to fewer.
pub(crate) fn available_cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// Of so many cores, those for each of `count` that compute on them.
pub(crate) fn cores_for_each(cores: usize, count: usize) -> usize {
    (cores / count).max(1)
}

/// The devices of a run, each as often as it has workers.
#[derive(Debug)]
pub(crate) struct Workers(Vec<Device>);

impl Workers {
    /// Finds the devices, loading CUDA if one of them needs it: to be called before anything else touches torch.
    ///
    /// # Errors
    /// When a device is asked for that is not there.
    pub(crate) fn find(devices: &Devices, threads: Option<usize>) -> Result<Self> {
        let choices: Vec<_> = devices.choices().iter().map(|(choice, _)| *choice).collect();
        models::initialise(&choices, threads)?;
        let mut workers = Vec::new();
        for (choice, count) in devices.choices() {
            // `cuda,cuda:0` names a device twice but means it once; only `*N` asks for more.
            let new: Vec<Device> =
                models::initialise(&[*choice], None)?.into_iter().filter(|device| !workers.contains(device)).collect();
            workers.extend(new.into_iter().flat_map(|device| std::iter::repeat_n(device, *count)));
        }
        let on_cpu = workers.iter().filter(|device| **device == Device::Cpu).count();
        if on_cpu > 1 && threads.is_none() {
            models::initialise(&[], Some(cores_for_each(available_cores(), on_cpu)))?;
        }
        Ok(Self(workers))
    }

    /// A name and a device for each worker.
    pub(crate) fn named(&self) -> impl Iterator<Item = (String, Device)> + '_ {
        self.0.iter().enumerate().map(|(worker, device)| {
            let same_before = self.0[..worker].iter().filter(|other| *other == device).count();
            let name = if same_before == 0 { device.to_string() } else { format!("{device} #{}", same_before + 1) };
            (name, *device)
        })
    }

    /// Workers on a device.
    pub(crate) fn on(&self, device: Device) -> usize {
        self.0.iter().filter(|other| **other == device).count()
    }

    /// The first device.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn first(&self) -> Result<Device> {
        self.0.first().copied().context("no device to compute on")
    }
}
