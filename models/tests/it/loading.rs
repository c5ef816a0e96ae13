use crate::{fixture, images, noise, on_device, tokenizer};
use models::{
    DeviceChoice, ModelError, Precision, TensorProblem, TokenizerConfig, TokenizerSize, VisualTokenizer, initialise,
};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use tch::{Kind, Tensor};
use tempfile::TempDir;

/// A folder with the fixture's configuration and the weights that `change` makes of its own.
fn folder(change: impl FnOnce(&mut BTreeMap<String, Tensor>)) -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    fs::copy(fixture().join("config.json"), folder.path().join("config.json")).expect("copied");
    let weights = Tensor::read_safetensors(fixture().join("model.safetensors")).expect("the fixture reads");
    let mut weights: BTreeMap<_, _> = weights.into_iter().collect();
    change(&mut weights);
    let weights: Vec<_> = weights.into_iter().collect();
    Tensor::write_safetensors(&weights, weights_of(folder.path())).expect("written");
    folder
}

fn weights_of(folder: &Path) -> PathBuf {
    folder.join("model.safetensors")
}

fn load(folder: &Path) -> Result<VisualTokenizer, ModelError> {
    VisualTokenizer::load(folder, on_device(Precision::Fp32))
}

fn refused(folder: &Path) -> ModelError {
    load(folder).expect_err("must not load")
}

#[test]
fn every_wrong_tensor_is_named_at_once() {
    let folder = folder(|weights| {
        weights.remove("encoder.ln_pre.bias");
        weights.insert("encoder.ln_pre.extra".to_owned(), Tensor::zeros([3], (Kind::Float, tch::Device::Cpu)));
        weights.insert("decoder.mask_token".to_owned(), Tensor::zeros([1, 64], (Kind::Float, tch::Device::Cpu)));
        let integers = weights["quantize.embedding.weight"].to_kind(Kind::Int64);
        weights.insert("quantize.embedding.weight".to_owned(), integers);
    });
    let error = refused(folder.path());
    let text = error.to_string();
    let ModelError::Tensors { problems, .. } = error else { panic!("{text}") };
    let float = |name: &str| name.to_owned();
    assert_eq!(
        problems,
        [
            TensorProblem::Shape { name: float("decoder.mask_token"), found: vec![1, 64], expected: vec![1, 1, 64] },
            TensorProblem::Missing { name: float("encoder.ln_pre.bias"), expected: vec![64] },
            TensorProblem::Unexpected { name: float("encoder.ln_pre.extra"), found: vec![3] },
            TensorProblem::Kind { name: float("quantize.embedding.weight"), found: "I64".to_owned() },
        ]
    );
    assert!(text.contains("model.safetensors") && text.contains("4 tensors"), "{text}");
}

#[test]
fn a_training_state_loads_without_its_training_parts() {
    let folder = folder(|weights| {
        *weights =
            std::mem::take(weights).into_iter().map(|(name, tensor)| (format!("_orig_mod.{name}"), tensor)).collect();
        for name in ["_orig_mod.foundation_model.blocks.0.weight", "_orig_mod.vf_proj.weight", "vf_proj_dec.weight"] {
            weights.insert(name.to_owned(), Tensor::zeros([2, 2], (Kind::Float, tch::Device::Cpu)));
        }
    });
    let state = load(folder.path()).expect("loads");
    assert_eq!(state.encode(&images()).expect("encodes"), tokenizer().encode(&images()).expect("encodes"));
}

#[test]
fn a_name_with_and_without_the_prefix_is_refused() {
    let folder = folder(|weights| {
        let twice = weights["encoder.ln_pre.bias"].shallow_clone();
        weights.insert("_orig_mod.encoder.ln_pre.bias".to_owned(), twice);
    });
    let error = refused(folder.path()).to_string();
    assert!(error.contains("encoder.ln_pre.bias is there twice"), "{error}");
}

#[test]
fn half_precision_weights_load() {
    let folder = folder(|weights| {
        for tensor in weights.values_mut() {
            *tensor = tensor.to_kind(Kind::Half);
        }
    });
    let tokens = load(folder.path()).expect("loads").encode(&images()).expect("encodes");
    let exact = tokenizer().encode(&images()).expect("encodes");
    let equal = exact.codes().iter().zip(tokens.codes()).filter(|(left, right)| left == right).count();
    assert!(equal > 240, "{equal} of 256 tokens are equal");
}

#[test]
fn what_is_saved_loads_again() {
    let out = TempDir::new().expect("a temporary folder");
    let first = tokenizer();
    let copy = out.path().join("copy");
    first.save(&copy).expect("saved");
    let again = load(&copy).expect("loads");
    assert_eq!(again.weights_sha256(), first.weights_sha256());
    assert_eq!(again.config(), first.config());
    assert_eq!((first.name(), again.name()), ("tokenizer", "copy"));
    assert_eq!(again.encode(&images()).expect("encodes"), first.encode(&images()).expect("encodes"));
}

#[test]
fn a_random_tokenizer_saves_loads_and_repeats() {
    let out = TempDir::new().expect("a temporary folder");
    let config = fs::read_to_string(fixture().join("config.json")).expect("reads");
    let config = TokenizerConfig::from_json(&config, Path::new("config.json")).expect("sound");
    let random = |seed| VisualTokenizer::init(config.clone(), seed, on_device(Precision::Fp32)).expect("built");
    let (first, second, other) = (random(1), random(1), random(2));
    assert_eq!(first.weights_sha256(), second.weights_sha256());
    assert_ne!(first.weights_sha256(), other.weights_sha256());
    first.save(out.path()).expect("saved");
    let again = load(out.path()).expect("loads");
    let batch = noise(1, 256, 9);
    assert_eq!(again.encode(&batch).expect("encodes"), first.encode(&batch).expect("encodes"));
}

#[test]
fn saving_from_a_folder_that_changed_is_refused() {
    let folder = folder(|_| {});
    let tokenizer = load(folder.path()).expect("loads");
    let mut bytes = fs::read(weights_of(folder.path())).expect("reads");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(weights_of(folder.path()), bytes).expect("written");
    let error = tokenizer.save(&folder.path().join("copy")).expect_err("changed").to_string();
    assert!(error.contains("changed since"), "{error}");
}

#[test]
fn missing_files_are_named() {
    let empty = TempDir::new().expect("a temporary folder");
    let error = refused(empty.path()).to_string();
    assert!(error.contains("config.json is missing"), "{error}");
    fs::copy(fixture().join("config.json"), empty.path().join("config.json")).expect("copied");
    let error = refused(empty.path()).to_string();
    assert!(error.contains("model.safetensors is missing"), "{error}");
}

#[test]
fn a_pickle_is_refused_with_the_command_that_converts_it() {
    let folder = folder(|_| {});
    fs::rename(weights_of(folder.path()), folder.path().join("pytorch_model.bin")).expect("renamed");
    let error = refused(folder.path()).to_string();
    for part in ["pytorch_model.bin", "weights_only=True", "save_file", "model.safetensors"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn damaged_weights_are_refused_with_what_is_wrong() {
    let whole = fs::read(weights_of(&fixture())).expect("reads");
    let folder = folder(|_| {});
    let header_end = 8 + u64::from_le_bytes(whole[..8].try_into().expect("8 bytes")) as usize;
    let mut not_json = whole.clone();
    not_json[9] = b'!';
    for (bytes, problem) in [
        (&whole[..5], "cut short"),
        (&whole[..header_end / 2], "cut short within its header"),
        (&whole[..whole.len() - 1], "wrong size"),
        (&[0xff; 64], "no safetensors file"),
        (&not_json[..], "header does not read"),
    ] {
        fs::write(weights_of(folder.path()), bytes).expect("written");
        let error = refused(folder.path());
        let text = error.to_string();
        assert!(matches!(error, ModelError::DamagedWeights { .. }), "{text}");
        assert!(text.contains(problem) && text.contains("model.safetensors"), "{problem}: {text}");
    }
}

#[test]
fn unknown_keys_are_named_with_their_file() {
    let folder = folder(|_| {});
    let file = folder.path().join("config.json");
    let text = fs::read_to_string(&file).expect("reads");
    fs::write(&file, text.replace("\"rope_base_len\"", "\"rope_length\"")).expect("written");
    let error = refused(folder.path()).to_string();
    assert!(error.contains("rope_length") && error.contains("config.json"), "{error}");
    fs::write(&file, "{").expect("written");
    let error = refused(folder.path()).to_string();
    assert!(error.contains("config.json") && error.contains("line"), "{error}");
}

#[test]
fn a_cuda_device_is_had_or_refused_with_advice() {
    match initialise(&[DeviceChoice::Cuda(0)], None) {
        Ok(devices) => assert_eq!(devices, [models::Device::Cuda(0)]),
        Err(error) => {
            let text = error.to_string();
            assert!(text.contains("cuda:0") && text.contains("device cpu"), "{text}");
        }
    }
}

#[test]
fn weights_of_another_size_are_refused() {
    let folder = folder(|_| {});
    fs::write(folder.path().join("config.json"), TokenizerConfig::preset(TokenizerSize::Small).to_json())
        .expect("written");
    let error = refused(folder.path()).to_string();
    assert!(error.contains("decoder.blocks.0.attn.k_norm.bias has shape [16], expected [64]"), "{error}");
}
