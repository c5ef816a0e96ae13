//! Hinge losses of discriminator and tokenizer, and LeCam's regularisation (modeling/modules/losses.py; Tseng and others,
//! "Regularizing Generative Adversarial Networks under Limited Data", 2021).

use crate::{
    ModelError,
    parameters::{Init, Scope},
};
use tch::Tensor;

/// What the discriminator makes smaller: real logits below 1 and fake ones above -1 cost. A scalar.
pub(crate) fn discriminator_loss(real: &Tensor, fake: &Tensor) -> Result<Tensor, ModelError> {
    let real = real.f_neg()?.f_add_scalar(1.0)?.f_relu()?.f_mean(None)?;
    let fake = fake.f_add_scalar(1.0)?.f_relu()?.f_mean(None)?;
    Ok(real.f_add(&fake)?.f_mul_scalar(0.5)?)
}

/// What the tokenizer makes smaller: minus the mean logit of reconstructed images. A scalar.
pub(crate) fn generator_loss(fake: &Tensor) -> Result<Tensor, ModelError> {
    Ok(fake.f_mean(None)?.f_neg()?)
}

/// Keeps the discriminator's mean logits near running means of the other side, so that it does not run away on few images.
#[derive(Debug)]
pub(crate) struct LeCam {
    /// `[1]` each; saved with the parameters.
    real_mean: Tensor,
    fake_mean: Tensor,
    decay: f64,
}

impl LeCam {
    /// Names of its tensors in its scope.
    pub(crate) const BUFFERS: [&str; 2] = ["ema_real_logits_mean", "ema_fake_logits_mean"];

    /// `scope`: the folder of the published `ema_real_logits_mean`. `decay`: fraction that the running means keep at a step.
    pub(crate) fn new(scope: &Scope<'_>, decay: f64) -> Result<Self, ModelError> {
        Ok(Self {
            real_mean: scope.buffer(Self::BUFFERS[0], &[1], Init::Zeros)?,
            fake_mean: scope.buffer(Self::BUFFERS[1], &[1], Init::Zeros)?,
            decay,
        })
    }

    /// The loss by the running means as they were, a scalar without its weight; then the running means follow.
    pub(crate) fn forward(&self, real: &Tensor, fake: &Tensor) -> Result<Tensor, ModelError> {
        let (real, fake) = (real.f_mean(None)?, fake.f_mean(None)?);
        let real_excess = real.f_sub(&self.fake_mean)?.f_relu()?.f_square()?;
        let fake_excess = self.real_mean.f_sub(&fake)?.f_relu()?.f_square()?;
        let loss = real_excess.f_add(&fake_excess)?.f_mean(None)?;
        tch::no_grad(|| -> Result<(), ModelError> {
            for (mean, logit) in [(&self.real_mean, &real), (&self.fake_mean, &fake)] {
                let next = mean.f_mul_scalar(self.decay)?.f_add(&logit.f_mul_scalar(1.0 - self.decay)?)?;
                // What overflowed in float16 would stay for ever.
                mean.shallow_clone().f_copy_(&next.f_where_self(&next.f_isfinite()?, mean)?)?;
            }
            Ok(())
        })?;
        Ok(loss)
    }
}
