//! What a step says of itself, left on the device until it is read.

use crate::{ModelError, ProcessGroup};
use std::sync::Arc;
use tch::{Kind, Tensor};

/// Named scalars of one step. Making one does not wait for the device; [`Self::read`] does.
#[derive(Debug, Default)]
pub struct StepReport {
    names: Vec<&'static str>,
    values: Vec<Tensor>,
    group: Option<Arc<ProcessGroup>>,
}

impl StepReport {
    /// The scalar that is 1 where the step overflowed in float16, and moved nothing.
    pub const OVERFLOWED: &'static str = "overflowed";

    /// Of scalars that are known already: for trainings that are not torch's.
    pub fn of(scalars: &[(&'static str, f64)]) -> Self {
        let (names, values) = scalars.iter().map(|&(name, value)| (name, Tensor::from(value as f32))).unzip();
        Self { names, values, group: None }
    }

    /// Of a step that several processes make together: what is read is the mean over them.
    pub(super) fn shared(group: Option<&Arc<ProcessGroup>>) -> Self {
        Self { group: group.cloned(), ..Self::default() }
    }

    /// Adds `fraction` of `value` to the scalar `name`; over the micro-batches of a step the fractions come to one.
    pub(super) fn add(&mut self, name: &'static str, value: &Tensor, fraction: f64) -> Result<(), ModelError> {
        let _no_grad = tch::no_grad_guard();
        let value = value.detach().f_to_kind(Kind::Float)?.f_mean(Kind::Float)?.f_mul_scalar(fraction)?;
        match self.names.iter().position(|&known| known == name) {
            Some(index) => self.values[index] = self.values[index].f_add(&value)?,
            None => {
                self.names.push(name);
                self.values.push(value);
            }
        }
        Ok(())
    }

    /// Waits for the device and copies all scalars at once. Where several processes train together, all of them read the same steps.
    ///
    /// # Errors
    /// When libtorch refuses, the device being lost for example, or another process is lost.
    pub fn read(&self) -> Result<Vec<(&'static str, f64)>, ModelError> {
        if self.values.is_empty() {
            return Ok(Vec::new());
        }
        let mut values = Tensor::f_stack(&self.values, 0)?.f_to_device(tch::Device::Cpu)?;
        if let Some(group) = &self.group {
            group.mean(&mut values)?;
        }
        let values = Vec::<f32>::try_from(values)?;
        Ok(self.names.iter().copied().zip(values.into_iter().map(f64::from)).collect())
    }
}
