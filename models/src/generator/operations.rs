//! How many operations a generator takes, counted from its configuration: what a measured time is compared with.

use super::GeneratorConfig;

impl GeneratorConfig {
    /// Floating-point operations of matrix products for one image, forward, a multiplication and an addition being two. Sampling an
    /// image step by step takes as many as one teacher-forced pass, and where it is guided twice as many: class and null class.
    pub fn forward_operations(&self) -> i64 {
        let size = self.size();
        let attention: i64 =
            self.steps().iter().map(|step| 4 * size.width * step.tokens * step.end() * size.layers as i64).sum();
        2 * self.tokens_per_image() as i64 * self.weights_read() + attention
    }

    /// Numbers in the weights that every step of sampling reads, for however many samples: blocks and output layer. Of embeddings it
    /// reads rows only.
    pub fn weights_read(&self) -> i64 {
        let size = self.size();
        let projected = (size.heads + 2 * self.shared_heads()) * size.head_width();
        // Projections and output of the attention, and the three matrices of the gated hidden layer.
        let block = size.width * projected + size.width * size.width + 3 * size.width * self.hidden_width();
        size.layers as i64 * block + size.width * self.codebook_size() as i64
    }
}

#[cfg(test)]
mod tests {
    use crate::{GeneratorConfig, GeneratorData, GeneratorSize};

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
}
