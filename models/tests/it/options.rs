use crate::{noise, on_device};
use models::{ModelError, Precision, TokenizerConfig, TokenizerSize, TransformerSize, VisualTokenizer};
use schemas::TokenBatch;
use serde_json::{Value, json};
use std::path::Path;
use tch::{Kind, Tensor};

/// Images of 32 by 32 pixels, three convolutional levels, an 8 by 8 grid, 32 latent tokens: nothing in it is a published size.
fn tiny() -> Value {
    json!({
        "model": { "vq_model": {
            "codebook_size": 64, "token_size": 4, "use_l2_norm": true, "commitment_cost": 0.25, "entropy_loss_ratio": 0.1,
            "vit_enc_model_size": "small", "vit_dec_model_size": "small",
            "vit_enc_patch_size": 4, "vit_dec_patch_size": 4,
            "num_latent_tokens": 32, "num_min_tokens": 4,
            "merge_tokens": true, "hierarchy_stages": 3, "vae_encoder": true,
        } },
        "dataset": { "preprocessing": { "crop_size": 32 } },
        "architecture": { "width": 32, "layers": 3, "heads": 2, "z": 16, "hidden": 32, "mult": [1, 2, 2], "nres": 1 },
    })
}

fn read(value: &Value) -> Result<TokenizerConfig, ModelError> {
    TokenizerConfig::from_json(&value.to_string(), Path::new("config.json"))
}

fn with(key: &str, value: Value) -> Value {
    let mut config = tiny();
    config["model"]["vq_model"][key] = value;
    config
}

/// What the quantizer reads of two images, and an image decoded from half of fixed tokens.
fn run(config: &Value) -> (Tensor, Tensor) {
    let config = read(config).expect("a sound configuration");
    let tokenizer = VisualTokenizer::init(config, 5, on_device(Precision::Fp32)).expect("built");
    let stages = tokenizer.encode_stages(&noise(2, 32, 3)).expect("encodes");
    let encoded = tokenizer.encode(&noise(2, 32, 3)).expect("encodes");
    let codes: Vec<i64> = stages.quantized.codes.view([-1]).try_into().expect("integers");
    let found: Vec<i64> = encoded.codes().iter().map(|&code| i64::from(code)).collect();
    assert_eq!(found, codes, "with and without the unread image tokens");
    assert!(stages.quantized.loss.double_value(&[]).is_finite());
    let fixed = TokenBatch::try_new((0..32).collect(), 32).expect("a row");
    let image = tokenizer.decode_unrounded(&fixed, 16).expect("decodes");
    assert_eq!(image.size(), [1, 3, 32, 32]);
    for tensor in [&stages.z, &image] {
        assert_eq!(tensor.isfinite().all().int64_value(&[]), 1);
        assert!(tensor.to_kind(Kind::Float).std(true).double_value(&[]) > 1e-6, "not all the same");
    }
    (stages.z, image)
}

fn same(left: &Tensor, right: &Tensor) -> bool {
    left.size() == right.size() && (left - right).abs().max().double_value(&[]) < 1e-6
}

#[test]
fn every_option_of_the_encoder_changes_what_is_encoded() {
    let (z, _) = run(&tiny());
    for (key, value) in [
        ("is_legacy", json!(false)),
        ("merge_tokens", json!(false)),
        ("hierarchy_stages", json!(2)),
        ("residual_image_tokens", json!(false)),
        ("residual_latent_tokens", json!(false)),
        ("learnable_latent_tokens", json!(true)),
        ("latent_hierarchy", json!(false)),
        ("multi_quant", json!(false)),
        ("vae_encoder", json!(false)),
        ("rope_base_len", json!(100)),
    ] {
        assert!(!same(&z, &run(&with(key, value.clone())).0), "{key}: {value}");
    }
    // A quarter of the image tokens can stay once; twice would leave no column.
    let mut once = with("hierarchy_stages", json!(2));
    let (half, _) = run(&once);
    once["model"]["vq_model"]["reduction_ratio"] = json!(0.75);
    assert!(!same(&half, &run(&once).0), "reduction_ratio");
}

#[test]
fn every_option_of_the_decoder_changes_what_is_decoded() {
    let (_, image) = run(&tiny());
    for (key, value) in [
        ("is_legacy", json!(false)),
        ("learnable_dec_image_tokens", json!(false)),
        ("multi_quant", json!(false)),
        ("use_l2_norm", json!(false)),
        ("rope_base_len", json!(100)),
    ] {
        assert!(!same(&image, &run(&with(key, value.clone())).1), "{key}: {value}");
    }
    let mut mean = with("learnable_dec_image_tokens", json!(false));
    let (_, sum) = run(&mean);
    mean["model"]["vq_model"]["residual_latent_tokens"] = json!(false);
    assert!(!same(&sum, &run(&mean).1), "levels that are not residual are averaged");
}

#[test]
fn options_of_training_change_nothing() {
    let (z, image) = run(&tiny());
    let mut trained = tiny();
    for (key, value) in [
        ("use_vf", json!("dinov3")),
        ("reverse_proj", json!(true)),
        ("encoder_feature_supervision", json!(true)),
        ("decoder_feature_supervision", json!(true)),
        ("learnable_dec_feat_tokens", json!(true)),
        ("drop_latent_tokens", json!(true)),
        ("drop_prob", json!(0.2)),
    ] {
        trained["model"]["vq_model"][key] = value;
    }
    trained["losses"] = json!({ "dino_disc": true });
    trained["training"] = json!({ "seed": 10086 });
    trained["model"]["generator"] = json!({ "model_type": "GPT-L" });
    trained["dataset"]["params"] = json!({});
    trained["dataset"]["preprocessing"]["random_flip"] = json!(true);
    let (trained_z, trained_image) = run(&trained);
    assert!(same(&z, &trained_z) && same(&image, &trained_image));
    let written: Value = serde_json::from_str(&read(&trained).expect("sound").to_json()).expect("JSON");
    assert_eq!(written["losses"]["dino_disc"], json!(true), "kept when it is written again");
    assert_eq!(written["model"]["vq_model"]["use_vf"], json!("dinov3"));
}

#[test]
fn a_prefix_ignores_the_tokens_after_it() {
    let config = read(&tiny()).expect("sound");
    let tokenizer = VisualTokenizer::init(config, 5, on_device(Precision::Fp32)).expect("built");
    let row = |tail: i16| {
        let codes = (0..32).map(|token| if token < 8 { token } else { tail }).collect();
        TokenBatch::try_new(codes, 32).expect("a row")
    };
    let decode = |tail, keep| tokenizer.decode_unrounded(&row(tail), keep).expect("decodes");
    assert!(same(&decode(40, 8), &decode(50, 8)));
    assert!(!same(&decode(40, 9), &decode(50, 9)));
    assert!(!same(&decode(40, 4), &decode(40, 8)));
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    for (key, value) in [
        ("vit_enc_patch_size", json!(8)),
        ("vit_dec_patch_size", json!(5)),
        ("reduction_ratio", json!(0.3)),
        ("reduction_ratio", json!(1.0)),
        ("test_num_latent_tokens", json!(33)),
        ("rope_base_len", json!(0)),
        ("token_size", json!(0)),
        ("vit_enc_model_size", json!("huge")),
        ("clustering_vq", json!(true)),
    ] {
        let error = read(&with(key, value.clone())).expect_err(key).to_string();
        let named = if key == "vit_enc_model_size" { "huge" } else { key };
        assert!(error.contains(named), "{key}: {value}: {error}");
    }
    for (key, value) in [
        ("width", json!(30)),
        ("heads", json!(3)),
        ("layers", json!(0)),
        ("hidden", json!(20)),
        ("mult", json!([])),
        ("res", json!(64)),
        ("depth", json!(1)),
    ] {
        let mut config = tiny();
        config["architecture"][key] = value;
        let error = read(&config).expect_err(key).to_string();
        assert!(error.contains(if key == "heads" { "width" } else { key }), "{key}: {error}");
    }
    let error = read(&with("num_latent_tokens", json!(100))).expect_err("no power of two").to_string();
    assert!(error.contains("power of two"), "{error}");
    let error = read(&with("codebook_size", json!(40_000))).expect_err("more than 16 bits").to_string();
    assert!(error.contains("int16"), "{error}");
}

#[test]
fn presets_have_the_published_sizes() {
    for (preset, width, layers, heads) in
        [(TokenizerSize::Small, 512, 6, 8), (TokenizerSize::Base, 768, 12, 12), (TokenizerSize::Large, 1024, 24, 16)]
    {
        let config = TokenizerConfig::preset(preset);
        assert_eq!(config.encoder(), TransformerSize { width, layers, heads });
        assert_eq!(config.decoder(), config.encoder());
        assert_eq!((config.resolution(), config.codebook_size(), config.levels().tokens_per_image()), (256, 8192, 128));
        assert_eq!(config.levels().sizes(), [1, 1, 2, 4, 8, 16, 32, 64]);
        let again = TokenizerConfig::from_json(&config.to_json(), Path::new("config.json")).expect("own words");
        assert_eq!(again, config);
    }
}
