//! What a step says of itself, left on the device until it is read.

use crate::ModelError;
use tch::{Kind, Tensor};

/// Named scalars of one step. Making one does not wait for the device; [`Self::read`] does.
#[derive(Debug, Default)]
pub struct StepReport {
    names: Vec<&'static str>,
    values: Vec<Tensor>,
}

impl StepReport {
    /// The scalar that is 1 where the step overflowed in float16, and moved nothing.
    pub const OVERFLOWED: &'static str = "overflowed";

    /// Of scalars that are known already: for trainings that are not torch's.
    pub fn of(scalars: &[(&'static str, f64)]) -> Self {
        let (names, values) = scalars.iter().map(|&(name, value)| (name, Tensor::from(value as f32))).unzip();
        Self { names, values }
    }

    /// Adds `share` of `value` to the scalar `name`; over the micro-batches of a step the shares come to one.
    pub(super) fn add(&mut self, name: &'static str, value: &Tensor, share: f64) -> Result<(), ModelError> {
        let _no_grad = tch::no_grad_guard();
        let value = value.detach().f_to_kind(Kind::Float)?.f_mean(Kind::Float)?.f_mul_scalar(share)?;
        match self.names.iter().position(|&known| known == name) {
            Some(index) => self.values[index] = self.values[index].f_add(&value)?,
            None => {
                self.names.push(name);
                self.values.push(value);
            }
        }
        Ok(())
    }

    /// Waits for the device and copies all scalars at once.
    ///
    /// # Errors
    /// When libtorch refuses, the device being lost for example.
    pub fn read(&self) -> Result<Vec<(&'static str, f64)>, ModelError> {
        if self.values.is_empty() {
            return Ok(Vec::new());
        }
        let values = Tensor::f_stack(&self.values, 0)?.f_to_device(tch::Device::Cpu)?;
        let values = Vec::<f32>::try_from(values)?;
        Ok(self.names.iter().copied().zip(values.into_iter().map(f64::from)).collect())
    }
}
