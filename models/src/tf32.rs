//! Whether float32 products and convolutions on CUDA go through TensorFloat-32. torch has one switch for the whole process, and reads it
//! whenever it starts a kernel; so all models that a process has on CUDA at a time must want the same.

use crate::{Device, ModelError, Precision, torch_switches};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A model's say in it, for as long as the model lives.
#[derive(Debug)]
pub(crate) struct Tf32Choice(());

/// Who has chosen, and what.
#[derive(Debug)]
struct Choices {
    allowed: bool,
    models: usize,
}

static CHOICES: Mutex<Choices> = Mutex::new(Choices { allowed: false, models: 0 });

impl Choices {
    /// Whether models are there that want the opposite.
    fn refuse(&self, allowed: bool) -> bool {
        self.models > 0 && self.allowed != allowed
    }

    /// One more model that wants it so.
    fn join(&mut self, allowed: bool) {
        self.allowed = allowed;
        self.models += 1;
    }

    fn leave(&mut self) {
        self.models -= 1;
    }
}

impl Tf32Choice {
    /// What a model of `precision` needs on `device`: TensorFloat-32 off for [`Precision::Fp32`], on for every other. A processor has none,
    /// and models there have no say.
    ///
    /// # Errors
    /// When this process has a model on CUDA that needs the opposite, or libtorch refuses.
    pub(crate) fn of(precision: Precision, device: Device) -> Result<Option<Self>, ModelError> {
        if device == Device::Cpu {
            return Ok(None);
        }
        let allowed = allows(precision);
        let mut choices = choices();
        if choices.refuse(allowed) {
            let others = if allowed { "in fp32" } else { "in another precision than fp32" };
            return Err(ModelError::Setting {
                setting: "precision",
                found: format!("{precision} beside a model {others} on CUDA"),
                expected: "fp32 for all models of a process or for none: TensorFloat-32 is one switch of the whole process (tf32 is the \
                           nearest to fp32)"
                    .to_owned(),
            });
        }
        torch_switches::allow_tf32(allowed)?;
        choices.join(allowed);
        Ok(Some(Self(())))
    }
}

impl Drop for Tf32Choice {
    fn drop(&mut self) {
        choices().leave();
    }
}

/// Whether models of these two precisions may be on CUDA in one process at a time.
pub fn can_share_a_device(one: Precision, other: Precision) -> bool {
    allows(one) == allows(other)
}

fn allows(precision: Precision) -> bool {
    precision != Precision::Fp32
}

/// Whether float32 products on CUDA go through TensorFloat-32 now.
pub(crate) fn is_allowed() -> bool {
    choices().allowed
}

fn choices() -> MutexGuard<'static, Choices> {
    CHOICES.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_that_live_at_a_time_agree_and_the_next_may_choose_anew() {
        let mut choices = Choices { allowed: false, models: 0 };
        assert!(!choices.refuse(true) && !choices.refuse(false));
        choices.join(true);
        choices.join(true);
        assert!(choices.refuse(false) && !choices.refuse(true), "two models compute through it");
        choices.leave();
        assert!(choices.refuse(false), "one model still does");
        choices.leave();
        assert!(!choices.refuse(false));
        choices.join(false);
        assert!(choices.refuse(true) && !choices.allowed);
    }

    #[test]
    fn models_on_a_processor_have_no_say() {
        for precision in Precision::ALL {
            assert!(Tf32Choice::of(precision, Device::Cpu).expect("no choice").is_none(), "{precision}");
        }
    }
}
