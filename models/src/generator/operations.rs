//! How many operations a generator takes, counted from its configuration: what a measured time is compared with.

use super::{GeneratorConfig, guidance_scales::GuidanceScales, steps::Step};
use schemas::Guidance;

impl GeneratorConfig {
    /// Floating-point operations of matrix products for one image, forward, a multiplication and an addition being two. Sampling an
    /// image step by step without guidance takes as many as one teacher-forced pass.
    pub fn forward_operations(&self) -> i64 {
        self.steps().iter().map(|step| self.block_operations(step) + self.head_operations(step)).sum()
    }

    /// The same for sampling one image: class and null class go through the blocks until the last guided step, and through the output
    /// layer in guided steps only.
    pub fn sampling_operations(&self, guidance: &Guidance) -> i64 {
        let steps = self.steps();
        let guidance_scales = GuidanceScales::new(&steps, guidance);
        let of_step = |(step, scale): (&Step, &Option<f64>)| {
            let copies = if guidance_scales.is_over_at(step) { 1 } else { 2 };
            let heads = if scale.is_some() { 2 } else { 1 };
            copies * self.block_operations(step) + heads * self.head_operations(step)
        };
        steps.iter().zip(guidance_scales.scales()).map(of_step).sum()
    }

    /// Numbers in the weights that every step of sampling reads, for however many samples: blocks and output layer. Of embeddings it
    /// reads rows only.
    pub fn weights_read(&self) -> i64 {
        self.size().layers as i64 * self.block_weights() + self.head_weights()
    }

    fn block_operations(&self, step: &Step) -> i64 {
        let size = self.size();
        let attention = 4 * size.width * step.tokens * step.end();
        size.layers as i64 * (2 * step.tokens * self.block_weights() + attention)
    }

    fn head_operations(&self, step: &Step) -> i64 {
        2 * step.tokens * self.head_weights()
    }

    /// Of one block: projections and output of the attention, and the three matrices of the gated hidden layer.
    pub(super) fn block_weights(&self) -> i64 {
        let size = self.size();
        let projected = (size.heads + 2 * self.kv_heads()) * size.head_width();
        size.width * projected + size.width * size.width + 3 * size.width * self.ffn_dim()
    }

    fn head_weights(&self) -> i64 {
        self.size().width * self.codebook_size() as i64
    }
}

#[cfg(test)]
mod tests {
    use crate::{GeneratorConfig, GeneratorData, GeneratorSize};
    use schemas::{Guidance, GuidanceSchedule, Sampling};

    const IMAGENET: GeneratorData = GeneratorData { codebook_size: 8192, classes: 1000, tokens_per_image: 128 };

    /// LlamaGen calls its L 343 million: the codebook's embedding and the classes' are 9.4 of them, and no step reads all of those.
    #[test]
    fn gpt_l_reads_most_of_its_343_million_weights_and_computes_with_them_for_every_token() {
        let config = GeneratorConfig::of_size(GeneratorSize::GptL, IMAGENET).expect("a preset");
        let read = config.weights_read();
        assert!((300_000_000..343_000_000).contains(&read), "{read}");
        // Attention is small beside the products.
        let (products, counted) = (2 * 128 * read, config.forward_operations());
        assert!(counted > products && counted < products + products / 20, "{counted} {products}");
    }

    #[test]
    fn guidance_at_every_step_takes_twice_as_many_and_the_papers_schedule_a_little_less() {
        let config = GeneratorConfig::of_size(GeneratorSize::GptL, IMAGENET).expect("a preset");
        let constant = |scale| Guidance { scale, schedule: GuidanceSchedule::Constant {}, interval: None };
        let forward = config.forward_operations();
        assert_eq!(config.sampling_operations(&constant(1.0)), forward);
        assert_eq!(config.sampling_operations(&constant(2.0)), 2 * forward);
        // Its first steps are not guided: a few tokens whose null half meets no output layer.
        let paper = config.sampling_operations(&Sampling::paper(0).guidance);
        assert!(paper < 2 * forward && paper > 2 * forward - forward / 50, "{paper} {forward}");
    }
}
