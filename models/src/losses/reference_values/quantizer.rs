use super::{CPU, Of, close, fill, integers, number, reference_values, same, signed};
use crate::{
    TokenizerConfig, TokenizerSize,
    parameters::{ParameterStore, Parameters},
    visual_tokenizer::quantizer::{Quantizer, TrainingQuantized},
};
use serde_json::{Value, json};
use std::path::Path;
use tch::{Kind, Tensor};

/// As the published quantizer reads `z`: `[B, token size, 1, L]`.
const SHAPE: [i64; 4] = [2, 8, 1, 16];

fn config(case: &Value) -> TokenizerConfig {
    let preset = TokenizerConfig::preset(TokenizerSize::Small).to_json();
    let mut config: Value = serde_json::from_str(&preset).expect("JSON");
    for (setting, value) in [
        ("codebook_size", json!(32)),
        ("token_size", json!(SHAPE[1])),
        ("commitment_cost", json!(0.25)),
        ("use_l2_norm", case["l2_norm"].clone()),
        ("entropy_loss_ratio", case["entropy_ratio"].clone()),
    ] {
        config["model"]["vq_model"][setting] = value;
    }
    TokenizerConfig::from_json(&config.to_string(), Path::new("config.json")).expect("sound")
}

fn build(store: &ParameterStore, config: &TokenizerConfig) -> Quantizer {
    let parameters = Parameters::from_store(store);
    Quantizer::new(&parameters.root(CPU, Kind::Float).sub("quantize"), config).expect("built")
}

/// One forward pass, whose gradients arrive in the two leaves.
struct Pass {
    z: Tensor,
    codebook: Tensor,
    codes: Vec<i64>,
    quantized: TrainingQuantized,
}

impl Pass {
    fn run(config: &TokenizerConfig) -> Self {
        let store = ParameterStore::new(1, CPU);
        build(&store, config);
        fill(&store);
        let mut trained = store.trained();
        let (name, codebook) = trained.pop().expect("the codebook");
        assert!(trained.is_empty() && name == "quantize.embedding.weight");
        let z = signed("z", &SHAPE).set_requires_grad(true);
        let (quantizer, tokens) = (build(&store, config), z.squeeze_dim(2).transpose(1, 2));
        let codes = quantizer.codes(&tokens.detach()).expect("computed").view(-1);
        let quantized = quantizer.train(&tokens).expect("computed");
        Self { z, codebook, codes: Vec::try_from(codes).expect("codes"), quantized }
    }

    /// The vectors as the published decoder reads them, `[B, token size, 1, L]`.
    fn vectors(&self) -> Tensor {
        self.quantized.vectors.transpose(1, 2).unsqueeze(2)
    }

    /// What gradients are taken of. `through` stands for all that reads the vectors: their mean product with a fixed tensor.
    fn term(&self, name: &str) -> Option<Tensor> {
        let TrainingQuantized { commitment, codebook, entropy, .. } = &self.quantized;
        let through = || (self.vectors() * signed("direction", &SHAPE)).mean(Kind::Float);
        match name {
            "commitment" => Some(commitment.shallow_clone()),
            "codebook" => Some(codebook.shallow_clone()),
            "entropy" => entropy.as_ref().map(Tensor::shallow_clone),
            "through" => Some(through()),
            "all" => {
                let all = commitment + codebook + through();
                Some(entropy.iter().fold(all, |all, entropy| all + entropy))
            }
            _ => panic!("no term is called {name}"),
        }
    }
}

#[test]
fn losses_of_the_quantizer_and_their_gradients_equal_the_published_ones() {
    let reference_values = reference_values();
    let cases = reference_values["quantizer"].as_array().expect("cases");
    assert_eq!(cases.len(), 3);
    for case in cases {
        let config = config(case);
        for name in ["commitment", "codebook", "entropy", "through", "all"] {
            let (pass, expected) = (Pass::run(&config), case.get(name));
            let what = format!("{name}, l2_norm {}, entropy ratio {}", case["l2_norm"], case["entropy_ratio"]);
            assert_eq!(pass.codes, integers(&case["codes"]), "{what}");
            same(&what, &pass.vectors(), "vectors", &case["vectors"], Of::Values, 0.0);
            let term = pass.term(name);
            assert_eq!(term.is_some(), expected.is_some(), "{what}: no entropy loss where its ratio is 0");
            let (Some(term), Some(expected)) = (term, expected) else { continue };
            if let Some(loss) = expected.get("loss") {
                close(&what, term.double_value(&[]), number(loss));
            }
            // The entropy loss divides distances by 0.01, and with them their rounding.
            let of = if matches!(name, "entropy" | "all") { Of::Gradients } else { Of::Values };
            term.backward();
            for (leaf, tensor) in [("z", &pass.z), ("codebook", &pass.codebook)] {
                let (what, gradient) = (format!("{what}, gradient of {leaf}"), tensor.grad());
                match expected.get(format!("{leaf}_gradient")) {
                    Some(expected) => same(&what, &gradient, leaf, expected, of, 0.0),
                    None => assert!(!gradient.defined(), "{what}: the published term stops it"),
                }
            }
        }
    }
}
