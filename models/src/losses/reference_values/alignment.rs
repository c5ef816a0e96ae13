use super::{CPU, Of, close, fill, gradient, number, reference_values, same, signed};
use crate::{
    losses::{Alignment, NestedDropout},
    parameters::{ParameterStore, Parameters},
};
use std::collections::BTreeMap;
use tch::{Kind, Tensor};

fn build(store: &ParameterStore) -> Alignment {
    let parameters = Parameters::from_store(store);
    Alignment::new(&parameters.root(CPU, Kind::Float), Some(24), Some(20), 32, 0.25).expect("built")
}

fn store() -> ParameterStore {
    let store = ParameterStore::new(1, CPU);
    build(&store);
    fill(&store);
    store
}

/// Frozen features as the reference values have them: leaning to the projections, so that some cosines are within the margin.
fn frozen(store: &ParameterStore) -> (Tensor, Tensor) {
    let _no_grad = tch::no_grad_guard();
    let weights: BTreeMap<_, _> = store.trained().into_iter().collect();
    let matrix = |name: &str| weights[name].flatten(1, 3);
    let tokens = signed("tokens", &[3, 5, 24]).linear(&matrix("vf_proj.weight"), None::<Tensor>);
    let tokens = tokens.mean_dim([1_i64].as_slice(), false, Kind::Float);
    let class = signed("class", &[3, 32]) * 0.7 + tokens * 2.0 * Tensor::from_slice(&[1.0_f32, 0.0, -1.0]).view([3, 1]);
    let features = signed("features", &[3, 20, 4, 6]).permute([0, 2, 3, 1]);
    let features = features.linear(&matrix("vf_proj_dec.weight"), None::<Tensor>).permute([0, 3, 1, 2]);
    let lean: Vec<f32> = (0..24).map(|place| -1.0 + 4.0 * place as f32 / 23.0).collect();
    let patches = signed("patches", &[3, 32, 4, 6]) * 0.4 + features * Tensor::from_slice(&lean).view([1, 1, 4, 6]);
    (class, patches)
}

#[test]
fn alignment_equals_the_published_one() {
    let reference_values = reference_values();
    for side in ["encoder", "decoder"] {
        let (store, expected) = (store(), &reference_values["alignment"][side]);
        let (class, patches) = frozen(&store);
        let (alignment, trained) = (build(&store), store.trained());
        let (input, aligned, projection) = if side == "encoder" {
            let tokens = signed("tokens", &[3, 5, 24]).set_requires_grad(true);
            let aligned = alignment.encoder(&tokens, &class);
            (tokens, aligned, &trained[0])
        } else {
            let features = signed("features", &[3, 20, 4, 6]).set_requires_grad(true);
            let aligned = alignment.decoder(&features, &patches);
            (features, aligned, &trained[1])
        };
        let aligned = aligned.expect("computed").expect("this side is aligned");
        close(side, aligned.loss.double_value(&[]), number(&expected["loss"]));
        close(side, aligned.cosine.double_value(&[]), number(&expected["cosine"]));
        same(side, &gradient(&aligned.loss, &input), "gradient", &expected["gradient"], Of::Gradients, 0.0);
        same(&projection.0, &projection.1.grad(), "projection", &expected["projection"], Of::Gradients, 0.0);
        assert!(!aligned.cosine.requires_grad());
    }
    let names: Vec<_> = store().trained().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["vf_proj.weight", "vf_proj_dec.weight"]);
}

#[test]
fn a_side_without_projection_is_not_aligned_and_grids_must_be_equal() {
    let store = ParameterStore::new(1, CPU);
    let parameters = Parameters::from_store(&store);
    let alignment = Alignment::new(&parameters.root(CPU, Kind::Float), None, Some(20), 32, 0.25).expect("built");
    assert!(alignment.encoder(&signed("tokens", &[3, 5, 24]), &signed("class", &[3, 32])).expect("nothing").is_none());
    let error = alignment.decoder(&signed("features", &[3, 20, 4, 6]), &signed("patches", &[3, 32, 2, 2]));
    let error = error.expect_err("another grid").to_string();
    assert!(error.contains("2 by 2") && error.contains("4 by 6"), "{error}");
}

#[test]
fn lengths_and_probabilities_of_nested_dropout_equal_the_published_ones() {
    let reference_values = reference_values();
    let cases = reference_values["nested_dropout"].as_array().expect("cases");
    assert_eq!(cases.len(), 5);
    for case in cases {
        let whole = |name: &str| case[name].as_u64().expect("an integer") as usize;
        let probability = number(&case["drop_probability"]);
        let dropout = NestedDropout::new(whole("latent_tokens"), whole("fewest_tokens"), probability)
            .expect("published settings");
        let lengths: Vec<_> = case["lengths"].as_array().expect("lengths").iter().filter_map(|n| n.as_u64()).collect();
        assert_eq!(dropout.lengths().iter().map(|&length| length as u64).collect::<Vec<_>>(), lengths);
        let probabilities = case["probabilities"].as_array().expect("probabilities");
        assert_eq!(dropout.probabilities().len(), probabilities.len());
        for (found, expected) in dropout.probabilities().iter().zip(probabilities) {
            close(&case.to_string(), *found, number(expected));
        }
    }
}
