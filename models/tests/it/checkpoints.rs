//! Checkpoints as wrappers, exports and other projects leave them: read where there is one meaning, else refused in a few lines.

use crate::{fixture, generating, images, on_device, tokenizer};
use models::{
    Generator, GeneratorConfig, GeneratorData, GeneratorSize, ModelError, Precision, TensorProblem, TokenizerConfig,
    TokenizerPreset, TokenizerSize, VisualTokenizer,
};
use schemas::{Rounding, TokenBatch, sha256_hex};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};
use tch::{Kind, Tensor};
use tempfile::TempDir;

type Tensors = BTreeMap<String, Tensor>;

/// Lines that an error may have at most, its first included.
const FEW_LINES: usize = 16;

/// As published.
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

fn read(folder: &Path) -> Tensors {
    Tensor::read_safetensors(folder.join(WEIGHTS)).expect("reads").into_iter().collect()
}

fn write(file: &Path, tensors: &Tensors) {
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    Tensor::write_safetensors(&tensors, file).expect("written");
}

/// A folder with the configuration of `fixture` and the weights that `change` makes of its own.
fn folder_of(fixture: &Path, change: impl FnOnce(&mut Tensors)) -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    fs::copy(fixture.join("config.json"), folder.path().join("config.json")).expect("copied");
    let mut tensors = read(fixture);
    change(&mut tensors);
    write(&folder.path().join(WEIGHTS), &tensors);
    folder
}

fn load(folder: &Path) -> Result<VisualTokenizer, ModelError> {
    VisualTokenizer::load(folder, on_device(Precision::Fp32))
}

fn load_generator(folder: &Path) -> Result<Generator, ModelError> {
    Generator::load(folder, on_device(Precision::Fp32))
}

fn tokens(tokenizer: &VisualTokenizer) -> TokenBatch {
    tokenizer.encode(&images()).expect("encodes")
}

/// The tensors with `prefix` in front of each name.
fn under(prefix: &str, tensors: &Tensors) -> Tensors {
    tensors.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.shallow_clone())).collect()
}

fn zeros(shape: &[i64]) -> Tensor {
    Tensor::zeros(shape, (Kind::Float, tch::Device::Cpu))
}

/// Holds an error to its words and to a few lines.
fn says(error: &ModelError, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(text.lines().count() <= FEW_LINES, "{} lines: {text}", text.lines().count());
}

#[test]
fn names_that_all_begin_alike_load_as_they_are() {
    let expected = tokens(&tokenizer());
    for prefix in ["module.", "_orig_mod.", "ema_model.module._orig_mod.", "state_dict.model."] {
        let folder = folder_of(&fixture(), |tensors| *tensors = under(prefix, tensors));
        let loaded = load(folder.path()).unwrap_or_else(|error| panic!("{prefix}: {error}"));
        assert_eq!(tokens(&loaded), expected, "{prefix}");
        // The file is known by its bytes, and saved with them.
        let copy = folder.path().join("copy");
        loaded.save(&copy).expect("saved");
        assert_eq!(load(&copy).expect("loads").weights_sha256(), loaded.weights_sha256());
    }
    let generator = load_generator(&generating::fixture()).expect("the fixture loads");
    let rows = TokenBatch::try_new((0..128).collect(), 128).expect("a row");
    let expected = generator.logits(&rows, &[3]).expect("computed");
    for prefix in ["module.", "model.", "ema.", "generator.", "_orig_mod.module.", "_fsdp_wrapped_module."] {
        let folder = folder_of(&generating::fixture(), |tensors| *tensors = under(prefix, tensors));
        let loaded = load_generator(folder.path()).unwrap_or_else(|error| panic!("{prefix}: {error}"));
        assert_eq!(loaded.logits(&rows, &[3]).expect("computed"), expected, "{prefix}");
    }
}

#[test]
fn wrappers_within_names_are_left_out() {
    let folder = folder_of(&fixture(), |tensors| {
        *tensors = std::mem::take(tensors)
            .into_iter()
            .map(|(name, tensor)| {
                let name = name.replace("encoder.blocks.0.", "encoder.blocks.0._checkpoint_wrapped_module.");
                (name.replace("quantize.", "quantize._orig_mod."), tensor)
            })
            .collect();
    });
    assert_eq!(tokens(&load(folder.path()).expect("loads")), tokens(&tokenizer()));
}

#[test]
fn a_prefix_does_not_loosen_what_must_fit() {
    let folder = folder_of(&fixture(), |tensors| {
        *tensors = under("module.", tensors);
        tensors.remove("module.encoder.ln_pre.bias");
        // The bare name is not what the model has under the prefix.
        tensors.insert("encoder.ln_pre.weight".to_owned(), zeros(&[64]));
        tensors.insert("module.decoder.mask_token".to_owned(), zeros(&[1, 64]));
    });
    let error = load(folder.path()).expect_err("must not load");
    says(&error, &["311 of 312 names begin with module."]);
    let ModelError::Tensors { problems, .. } = error else { panic!("{error}") };
    assert_eq!(
        problems,
        [
            TensorProblem::Shape {
                name: "decoder.mask_token".to_owned(),
                found: vec![1, 64],
                expected: vec![1, 1, 64]
            },
            TensorProblem::Missing { name: "encoder.ln_pre.bias".to_owned(), expected: vec![64] },
            TensorProblem::Unexpected { name: "encoder.ln_pre.weight".to_owned(), found: vec![64] },
        ]
    );
}

#[test]
fn a_model_in_company_is_refused_with_the_command_that_leaves_it_alone() {
    // torch's AveragedModel; a Lightning module with its losses; weights and their average under their own names.
    let ema = folder_of(&fixture(), |tensors| {
        *tensors = under("module.", tensors);
        tensors.insert("n_averaged".to_owned(), Tensor::from(7_i64));
    });
    says(
        &load(ema.path()).expect_err("must not load"),
        &[
            "n_averaged is not part of this model",
            "312 of 313 names begin with module.",
            "name[7:]: tensor",
            "if name.startswith('module.')",
            "model.original.safetensors",
        ],
    );
    let lightning = folder_of(&fixture(), |tensors| {
        *tensors = under("model.", tensors);
        for layer in 0..40 {
            tensors.insert(format!("loss.discriminator.main.{layer}.weight"), zeros(&[2]));
            tensors.insert(format!("model.loss.lpips.{layer}.weight"), zeros(&[2]));
        }
    });
    says(
        &load(lightning.path()).expect_err("must not load"),
        &[
            "80 not part of this model",
            "what else is in the file is not its own",
            "name.startswith('model.') and not name.startswith(('model.loss.',))",
        ],
    );
    let with_average = folder_of(&generating::fixture(), |tensors| {
        let average = under("ema.", tensors);
        tensors.extend(average);
    });
    says(
        &load_generator(with_average.path()).expect_err("must not load"),
        &["33 not part of this model", "what else is in the file is not its own", "not name.startswith(('ema.',))"],
    );
}

#[test]
fn a_model_that_is_there_twice_is_refused_with_both_prefixes() {
    let folder = folder_of(&generating::fixture(), |tensors| {
        let (model, average) = (under("model.", tensors), under("ema.", tensors));
        *tensors = model.into_iter().chain(average).collect();
    });
    says(
        &load_generator(folder.path()).expect_err("must not load"),
        &["this model 2 times, under ema.* and model.*.", "name.startswith('ema.')"],
    );
}

#[test]
fn tensors_of_another_configuration_are_not_advised_away() {
    let folder = folder_of(&fixture(), |tensors| {
        tensors.insert("latent_tokens".to_owned(), zeros(&[128, 64]));
    });
    let error = load(folder.path()).expect_err("must not load");
    says(&error, &["latent_tokens is not part of this model"]);
    assert!(!error.to_string().contains("python3"), "{error}");
}

#[test]
fn weights_of_other_networks_are_told_by_their_names() {
    let networks: [(&[&str], &str); 12] = [
        (
            &[
                "encoder.down_blocks.0.resnets.0.conv1.weight",
                "decoder.up_blocks.0.resnets.0.conv1.weight",
                "quant_conv.weight",
            ],
            "AutoencoderKL",
        ),
        (&["encoder.down_blocks.0.resnets.0.conv1.weight", "quantize.embedding.weight"], "diffusers VQModel"),
        (
            &["encoder.down.0.block.0.conv1.weight", "quantize.embedding.weight", "loss.discriminator.main.0.weight"],
            "VQGAN",
        ),
        (
            &["first_stage_model.encoder.down.0.block.0.conv1.weight", "first_stage_model.quantize.embedding.weight"],
            "VQGAN",
        ),
        (&["encoder.conv_blocks.0.res.0.conv1.weight", "quantize.embedding.weight"], "LlamaGen's VQ"),
        (&["latent_tokens", "encoder.transformer.0.attn.in_proj_weight", "quantize.embedding.weight"], "TiTok"),
        (&["x_embedder.proj.weight", "t_embedder.mlp.0.weight"], "DiT"),
        (&["model.embed_tokens.weight", "model.layers.0.self_attn.q_proj.weight"], "language model"),
        (&["Conv2d_1a_3x3.conv.weight", "AuxLogits.conv0.conv.weight"], "torchvision's Inception"),
        (&["cls_token", "patch_embed.proj.weight", "blocks.0.attn.qkv.weight"], "vision transformer"),
        (&["first_moment.encoder.ln_pre.weight", "second_moment.encoder.ln_pre.weight", "step"], "optimizer"),
        (&["trunk.0.weight", "trunk.1.weight", "head.weight"], "no network that is known here: trunk (2), head (1)"),
    ];
    for (names, words) in networks {
        let fill = |tensors: &mut Tensors| {
            *tensors = names.iter().map(|&name| (name.to_owned(), zeros(&[2, 2]))).collect();
        };
        let folder = folder_of(&fixture(), fill);
        says(&load(folder.path()).expect_err("must not load"), &[words, "expected are those of a ResTok tokenizer"]);
        let folder = folder_of(&generating::fixture(), fill);
        let error = load_generator(folder.path()).expect_err("must not load");
        says(&error, &[words, "expected are those of a hierarchical generator"]);
    }
}

#[test]
fn a_tokenizer_and_a_generator_in_each_others_place_are_told() {
    let error = load(&generating::fixture()).expect_err("a generator");
    says(&error, &["config.json", "the configuration of a generator, expected that of a ResTok tokenizer"]);
    let error = load_generator(&fixture()).expect_err("a tokenizer");
    says(&error, &["config.json", "the configuration of a ResTok tokenizer, expected that of a generator"]);
    // Only the weights are the other's.
    let folder = folder_of(&fixture(), |tensors| *tensors = read(&generating::fixture()));
    let error = load(folder.path()).expect_err("a generator's weights");
    says(&error, &["look like the weights of a hierarchical generator", "expected are those of a ResTok tokenizer"]);
    let folder = folder_of(&generating::fixture(), |tensors| *tensors = read(&fixture()));
    let error = load_generator(folder.path()).expect_err("a tokenizer's weights");
    says(&error, &["look like the weights of a ResTok tokenizer", "expected are those of a hierarchical generator"]);
}

#[test]
fn configurations_of_other_projects_are_told() {
    for (config, words) in [
        (r#"{"_class_name": "AutoencoderKL", "act_fn": "silu"}"#, "diffusers' AutoencoderKL"),
        (r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 1}"#, "transformers' LlamaForCausalLM"),
        (r#"{"architecture": "vit_base", "pretrained_cfg": {}}"#, "timm's vit_base"),
        ("version https://git-lfs.github.com/spec/v1\nsize 12\n", "Git LFS pointer"),
        ("<!doctype html>", "HTML page"),
        ("", "empty"),
    ] {
        let folder = folder_of(&fixture(), |_| {});
        fs::write(folder.path().join("config.json"), config).expect("written");
        says(&load(folder.path()).expect_err("must not load"), &["config.json", words]);
    }
}

#[test]
fn a_plain_generator_and_a_hierarchical_one_are_told_apart() {
    let special = "spe_tok_embeddings.special_embeddings.weight";
    let folder = folder_of(&generating::fixture(), |tensors| drop(tensors.remove(special)));
    let error = load_generator(folder.path()).expect_err("weights of the plain one");
    says(&error, &["weights of a plain generator", "neither ar_token_num nor spe_token_num", special]);

    let folder = folder_of(&generating::fixture(), |_| {});
    let file = folder.path().join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&file).expect("reads")).expect("JSON");
    for key in ["ar_token_num", "spe_token_num"] {
        config.as_object_mut().expect("an object").remove(key);
    }
    fs::write(&file, config.to_string()).expect("written");
    let error = load_generator(folder.path()).expect_err("weights of the hierarchical one");
    says(&error, &["weights of a hierarchical generator", "lacks ar_token_num", special]);
}

#[test]
fn weights_of_another_size_are_told_with_the_preset_that_they_fit() {
    let options = || on_device(Precision::Fp32);
    let folder = TempDir::new().expect("a temporary folder");
    let tiny = TokenizerPreset::named("tiny").expect("a preset").config;
    VisualTokenizer::init(tiny, 1, options()).expect("built").save(folder.path()).expect("saved");
    let config = TokenizerConfig::preset(TokenizerSize::Small).to_json();
    fs::write(folder.path().join("config.json"), config).expect("written");
    let words = [
        "of another size",
        "encoder width 96 instead of 512",
        "encoder blocks 3 instead of 6",
        "codes 1024 instead of 8192",
        "levels of tokens 6 instead of 8",
        "those of tiny, and config.json has those of restok-s-128",
    ];
    says(&load(folder.path()).expect_err("another size"), &words);

    let data = GeneratorData { codebook_size: 512, classes: 7, tokens_per_image: 128 };
    let tiny = GeneratorConfig::of_size(GeneratorSize::Tiny, data).expect("a preset");
    Generator::init(tiny, 1, options()).expect("built").save(folder.path()).expect("saved");
    fs::copy(generating::fixture().join("config.json"), folder.path().join("config.json")).expect("copied");
    let words = [
        "width 128 instead of 64",
        "layers 6 instead of 4",
        "classes with the null class 8 instead of 11",
        "those of tiny.",
    ];
    says(&load_generator(folder.path()).expect_err("another size"), &words);
}

#[test]
fn values_that_are_no_finite_numbers_are_refused_by_tensor() {
    for kind in [Kind::Float, Kind::Half, Kind::BFloat16] {
        let folder = folder_of(&fixture(), |tensors| {
            for tensor in tensors.values_mut() {
                *tensor = tensor.to_kind(kind);
            }
            let bias = &tensors["pixel_decoder.conv_out.bias"];
            drop(bias.get(1).fill_(f64::NAN));
            let token = tensors["decoder.mask_token"].view([-1]);
            drop(token.get(0).fill_(f64::INFINITY));
            drop(token.get(5).fill_(f64::NEG_INFINITY));
        });
        let error = load(folder.path()).expect_err("no finite numbers");
        says(&error, &["values of 2 tensors are no finite numbers", "take an earlier checkpoint"]);
        let ModelError::Tensors { problems, .. } = error else { panic!("{error}") };
        let problem = |name: &str, nan, infinite, values| TensorProblem::NotFinite {
            name: name.to_owned(),
            nan,
            infinite,
            values,
        };
        let expected = [problem("decoder.mask_token", 0, 2, 64), problem("pixel_decoder.conv_out.bias", 1, 0, 3)];
        assert_eq!(problems, expected, "{kind:?}");
    }
    let folder = folder_of(&generating::fixture(), |tensors| {
        drop(tensors["layers.2.attention.wo.weight"].get(3).fill_(f64::NAN));
    });
    let error = load_generator(folder.path()).expect_err("no finite numbers");
    says(&error, &["layers.2.attention.wo.weight has 64 NaN and 0 infinite of 4096 values"]);
}

#[test]
fn finite_values_whose_sum_is_infinite_are_weights() {
    let folder = folder_of(&fixture(), |tensors| {
        drop(tensors["pixel_decoder.conv_out.bias"].shallow_clone().fill_(3e38));
    });
    load(folder.path()).expect("three finite numbers");
}

/// The fixture's weights in two shards, and the index of them.
struct Shards {
    folder: TempDir,
    tensors: [Tensors; 2],
}

const SHARDS: [&str; 2] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];

impl Shards {
    fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        fs::copy(fixture().join("config.json"), folder.path().join("config.json")).expect("copied");
        let mut first = read(&fixture());
        let second = first.split_off("encoder.ln_pre.bias");
        let shards = Self { folder, tensors: [first, second] };
        shards.write();
        shards.write_index(|_| {});
        shards
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn shard(&self, number: usize) -> PathBuf {
        self.path().join(SHARDS[number])
    }

    fn write(&self) {
        for (number, tensors) in self.tensors.iter().enumerate() {
            write(&self.shard(number), tensors);
        }
    }

    /// Writes the index that fits, after `change` of its map.
    fn write_index(&self, change: impl FnOnce(&mut BTreeMap<String, String>)) {
        let names =
            |number: usize| self.tensors[number].keys().map(move |name| (name.clone(), SHARDS[number].to_owned()));
        let mut map = names(0).chain(names(1)).collect();
        change(&mut map);
        let index = serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": map });
        fs::write(self.path().join(INDEX), index.to_string()).expect("written");
    }

    fn refused(&self, words: &[&str]) {
        let error = load(self.path()).expect_err("must not load");
        says(&error, words);
    }
}

#[test]
fn shards_are_the_weights_that_they_hold_together_and_have_an_identity_of_their_own() {
    let shards = Shards::new();
    let loaded = load(shards.path()).expect("loads");
    assert_eq!(tokens(&loaded), tokens(&tokenizer()));
    // `sha256sum model-*.safetensors | sha256sum`
    let lines: String = SHARDS
        .iter()
        .map(|shard| format!("{}  {shard}\n", sha256_hex(&fs::read(shards.path().join(shard)).expect("reads"))))
        .collect();
    assert_eq!(loaded.weights_sha256(), sha256_hex(lines.as_bytes()));
    // The same shards under an index that is written otherwise.
    let index = fs::read_to_string(shards.path().join(INDEX)).expect("reads");
    let index: serde_json::Value = serde_json::from_str(&index).expect("JSON");
    let map = serde_json::json!({ "weight_map": index["weight_map"] });
    fs::write(shards.path().join(INDEX), serde_json::to_string_pretty(&map).expect("JSON")).expect("written");
    assert_eq!(load(shards.path()).expect("loads").weights_sha256(), loaded.weights_sha256());
    // One file is known by its own bytes, as ever.
    let one = fs::read(fixture().join(WEIGHTS)).expect("reads");
    assert_eq!(tokenizer().weights_sha256(), sha256_hex(&one));
    let mut other = Shards::new();
    drop(other.tensors[1].get_mut("encoder.ln_pre.bias").expect("a tensor").fill_(1.0));
    other.write();
    assert_ne!(load(other.path()).expect("loads").weights_sha256(), loaded.weights_sha256());
}

#[test]
fn shards_are_saved_as_shards_and_take_the_place_of_one_file_and_the_reverse() {
    let (shards, target) = (Shards::new(), TempDir::new().expect("a temporary folder"));
    let sharded = load(shards.path()).expect("loads");
    tokenizer().save(target.path()).expect("saved");
    sharded.save(target.path()).expect("saved");
    assert_eq!(load(target.path()).expect("loads").weights_sha256(), sharded.weights_sha256());
    assert!(!target.path().join(WEIGHTS).exists());
    tokenizer().save(target.path()).expect("saved");
    assert_eq!(load(target.path()).expect("loads").weights_sha256(), tokenizer().weights_sha256());
    assert!(!target.path().join(INDEX).exists());
    fs::write(shards.shard(0), b"other").expect("written");
    let error = sharded.save(&target.path().join("again")).expect_err("changed").to_string();
    assert!(error.contains("changed since"), "{error}");
}

#[test]
fn shards_under_a_prefix_load_as_they_are() {
    let mut shards = Shards::new();
    shards.tensors = [under("model.", &shards.tensors[0]), under("model.", &shards.tensors[1])];
    shards.write();
    shards.write_index(|_| {});
    assert_eq!(tokens(&load(shards.path()).expect("loads")), tokens(&tokenizer()));
    // The command makes one file of them.
    shards.tensors[1].insert("n_averaged".to_owned(), Tensor::from(1_i64));
    shards.write();
    shards.write_index(|_| {});
    shards.refused(&[INDEX, "name.startswith('model.')", SHARDS[0], SHARDS[1], "/model.safetensors' '"]);
}

#[test]
fn shards_that_do_not_agree_with_their_index_are_named() {
    let shards = Shards::new();
    shards.write_index(|map| drop(map.insert("decoder.more".to_owned(), SHARDS[0].to_owned())));
    shards.refused(&[INDEX, "decoder.more in model-00001-of-00002.safetensors"]);
    shards.write_index(|map| drop(map.insert("quantize.embedding.weight".to_owned(), SHARDS[0].to_owned())));
    shards.refused(&[INDEX, "quantize.embedding.weight in model-00001-of-00002.safetensors"]);
    shards.write_index(|map| drop(map.remove("quantize.embedding.weight")));
    shards.refused(&[INDEX, "does not name: quantize.embedding.weight in model-00002-of-00002.safetensors"]);
    shards.write_index(|_| {});

    let mut twice = Shards::new();
    let tensor = twice.tensors[1]["quantize.embedding.weight"].shallow_clone();
    twice.tensors[0].insert("quantize.embedding.weight".to_owned(), tensor);
    twice.write();
    twice.refused(&[INDEX, "quantize.embedding.weight is in two shards", SHARDS[0], SHARDS[1]]);

    let index = fs::read_to_string(shards.path().join(INDEX)).expect("reads");
    let again = format!("\"quantize.embedding.weight\":\"{}\",\"", SHARDS[0]);
    fs::write(shards.path().join(INDEX), index.replacen("\"weight_map\":{\"", &format!("\"weight_map\":{{{again}"), 1))
        .expect("written");
    shards.refused(&[INDEX, "quantize.embedding.weight is named twice", SHARDS[0], SHARDS[1]]);
    fs::write(shards.path().join(INDEX), index).expect("written");

    let bytes = fs::read(shards.shard(1)).expect("reads");
    fs::write(shards.shard(1), &bytes[..bytes.len() - 1]).expect("written");
    shards.refused(&[SHARDS[1], "cut short"]);
    fs::remove_file(shards.shard(1)).expect("removed");
    shards.refused(&[INDEX, "1 of 2 shards missing", SHARDS[1], "of 312 tensors"]);
}

#[test]
fn an_index_that_is_none_or_leads_elsewhere_is_refused() {
    let shards = Shards::new();
    for shard in [
        "../model-00001-of-00002.safetensors",
        "/tmp/x.safetensors",
        "a\\b.safetensors",
        "",
        "..",
        "more/x.safetensors",
    ] {
        shards.write_index(|map| drop(map.insert("encoder.ln_pre.bias".to_owned(), shard.to_owned())));
        shards.refused(&[INDEX, &format!("encoder.ln_pre.bias in {shard:?}"), "without any folder"]);
    }
    shards.write_index(|map| drop(map.insert("encoder.ln_pre.bias".to_owned(), "pytorch_model-1.bin".to_owned())));
    shards.refused(&[INDEX, "pytorch_model-1.bin", "only safetensors is read"]);
    for (text, words) in [
        ("{", "does not read as an index of shards"),
        ("{\"metadata\": {}}", "weight_map"),
        ("{\"weight_map\": []}", "the shard of each tensor"),
        ("{\"weight_map\": {}}", "empty"),
        ("Entry not found", "a text that begins \"Entry not found\""),
        ("version https://git-lfs.github.com/spec/v1\nsize 9\n", "Git LFS pointer to 9 bytes"),
    ] {
        fs::write(shards.path().join(INDEX), text).expect("written");
        shards.refused(&[INDEX, words]);
    }
    fs::remove_file(shards.path().join(INDEX)).expect("removed");
    shards.refused(&["model.safetensors is missing", "shards without their index"]);
}

#[test]
fn one_file_is_read_where_an_index_lies_beside_it() {
    let shards = Shards::new();
    fs::write(shards.path().join(INDEX), "{").expect("written");
    fs::copy(fixture().join(WEIGHTS), shards.path().join(WEIGHTS)).expect("copied");
    assert_eq!(load(shards.path()).expect("loads").weights_sha256(), tokenizer().weights_sha256());
}

#[test]
fn pickles_in_shards_are_refused_with_the_command_that_converts_them() {
    let folder = folder_of(&fixture(), |_| {});
    fs::remove_file(folder.path().join(WEIGHTS)).expect("removed");
    for name in ["pytorch_model.bin.index.json", "pytorch_model-1-of-2.bin", "pytorch_model-2-of-2.bin"] {
        fs::write(folder.path().join(name), "{}").expect("written");
    }
    says(
        &load(folder.path()).expect_err("pickles"),
        &["pytorch_model-1-of-2.bin is a Python pickle", "pytorch_model-1-of-2.bin' '", "pytorch_model-2-of-2.bin'"],
    );
}

#[test]
fn what_lies_in_the_place_of_weights_is_told() {
    let folder = folder_of(&fixture(), |_| {});
    let file = folder.path().join(WEIGHTS);
    let refused = |words: &[&str]| says(&load(folder.path()).expect_err("must not load"), words);
    let zip = [&b"PK\x03\x04"[..], &[0; 22], &[16, 0, 0, 0], b"archive/data.pkl"].concat();
    for (bytes, words) in [
        (&zip[..], &["a Python pickle", "weights_only=True", "mv '", "model.pickle'"][..]),
        (b"\x80\x02}q\x00X\x05\x00\x00\x00model", &["a Python pickle", "mv '"]),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 77\n",
            &["Git LFS pointer to 77 bytes", "git lfs pull"],
        ),
        (b"<!DOCTYPE html><html></html>", &["an HTML page", "expected a safetensors file"]),
        (b"", &["is empty", "download or copy it again"]),
        (&[0; 4096], &["zeros, as an unfinished download"]),
        (b"{\"metadata\": {}, \"weight_map\": {}}", &["the index of a sharded checkpoint", "*.index.json"]),
    ] {
        fs::write(&file, bytes).expect("written");
        refused(words);
        refused(&["model.safetensors"]);
    }
    fs::remove_file(&file).expect("removed");
    fs::write(folder.path().join("diffusion_pytorch_model.safetensors"), "").expect("written");
    refused(&["model.safetensors is missing", "the folder has config.json, diffusion_pytorch_model.safetensors"]);
    let error = load(&folder.path().join("config.json")).expect_err("a file");
    says(&error, &["config.json is a file: name its folder"]);
    let error = load(&folder.path().join("nowhere")).expect_err("nothing");
    says(&error, &["there is no folder", "nowhere"]);
}

#[test]
fn a_configuration_with_a_byte_order_mark_is_read() {
    let folder = folder_of(&fixture(), |_| {});
    let file = folder.path().join("config.json");
    let text = fs::read_to_string(&file).expect("reads");
    fs::write(&file, format!("\u{feff}{text}")).expect("written");
    load(folder.path()).expect("loads");
}

#[test]
fn shards_decode_as_one_file_does() {
    let (one, batch) = (tokenizer(), tokens(&tokenizer()));
    let decode = |tokenizer: &VisualTokenizer| tokenizer.decode(&batch, 128, Rounding::Nearest).expect("decodes");
    assert_eq!(decode(&load(Shards::new().path()).expect("loads")), decode(&one));
}
