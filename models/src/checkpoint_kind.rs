//! What the names of a checkpoint's tensors tell: which network they are of, of which size, and what wrappers and exports put in front of them.
//!
//! Nothing here decides whether weights are taken; that is by every name and shape. It says in a few lines why they were not.

use crate::{
    TensorProblem,
    config_kind::TOKENIZER,
    sizes::{GeneratorSize, TOKENIZER_PRESETS, TransformerSize},
    weight_file::{Keep, WeightFile, keeping_command},
};
use std::{collections::BTreeMap, fmt::Write as _, path::Path};

/// A network that is known by the names of its tensors.
#[derive(Debug)]
struct Network {
    /// In words.
    what: &'static str,
    /// Ends of names, and with a point at their end starts of parts of names, each of which some tensor has.
    markers: &'static [&'static str],
    /// What tells its size.
    sizes: &'static [Size],
    /// What to do where another network was expected.
    advice: &'static str,
}

/// A number that follows from shapes or names.
#[derive(Debug)]
enum Size {
    /// An axis of a tensor.
    Axis(&'static str, &'static str, usize),
    /// How many numbers follow this start of names, counted from 0.
    Count(&'static str, &'static str),
}

impl Size {
    fn what(&self) -> &'static str {
        match self {
            Self::Axis(what, ..) | Self::Count(what, _) => what,
        }
    }

    fn of(&self, shapes: &BTreeMap<&str, &[i64]>) -> Option<i64> {
        match self {
            Self::Axis(_, name, axis) => shapes.get(name)?.get(*axis).copied(),
            Self::Count(_, start) => {
                let number = |name: &&str| -> Option<i64> { name.strip_prefix(start)?.split('.').next()?.parse().ok() };
                shapes.keys().filter_map(number).max().map(|last| last + 1)
            }
        }
    }
}

const HIERARCHICAL: &str = "a hierarchical generator";
const PLAIN: &str = "a plain generator, which samples token by token (LlamaGen's GPT)";
const SWAPPED: &str = "Name the folder of the other network; perhaps two were swapped.";
const OTHER_TOKENIZER: &str = "Only ResTok's own tokenizers are read.";
const OTHER_GENERATOR: &str = "Only the generators of ResTok and LlamaGen's of classes are read.";
const TIMM: &str = "The same network is read in timm's names.";
const VISION_SIZES: &[Size] = &[
    Size::Axis("width", "cls_token", 2),
    Size::Count("blocks", "blocks."),
    Size::Axis("patches of pixels a side:", "patch_embed.proj.weight", 2),
];
const GENERATOR_SIZES: &[Size] = &[
    Size::Axis("width", "tok_embeddings.weight", 1),
    Size::Count("layers", "layers."),
    Size::Axis("hidden width", "layers.0.feed_forward.w1.weight", 0),
    Size::Axis("codes", "tok_embeddings.weight", 0),
    Size::Axis("classes with the null class", "cls_embedding.embedding_table.weight", 0),
    Size::Axis("special tokens", "spe_tok_embeddings.special_embeddings.weight", 0),
];

/// The first whose markers are all there is it.
#[rustfmt::skip]
const NETWORKS: &[Network] = &[
    Network { what: "the state of an optimizer", markers: &["first_moment.", "second_moment."], sizes: &[],
        advice: "The weights are in model.safetensors, their average in ema.safetensors." },
    Network { what: TOKENIZER, advice: SWAPPED,
        markers: &["encoder.blocks.0.attn.q_bias", "decoder.blocks.0.attn.q_bias", "quantize.embedding.weight"],
        sizes: &[
            Size::Axis("encoder width", "encoder.ln_post.weight", 0),
            Size::Count("encoder blocks", "encoder.blocks."),
            Size::Axis("decoder width", "decoder.ln_post.weight", 0),
            Size::Count("decoder blocks", "decoder.blocks."),
            Size::Axis("codes", "quantize.embedding.weight", 0),
            Size::Axis("token size", "quantize.embedding.weight", 1),
            Size::Count("levels of tokens", "encoder.latent_token_level_embedding."),
            Size::Count("levels of convolutions", "pixel_encoder.down."),
            Size::Axis("channels of the first convolution", "pixel_encoder.conv_in.weight", 0),
        ] },
    Network { what: "a generator of images from texts (LlamaGen's)", sizes: &[], advice: OTHER_GENERATOR,
        markers: &["cls_embedding.cap_proj.fc1.weight", "layers.0.attention.wqkv.weight"] },
    Network { what: HIERARCHICAL, sizes: GENERATOR_SIZES, advice: SWAPPED,
        markers: &["tok_embeddings.weight", "layers.0.attention.wqkv.weight", "spe_tok_embeddings.special_embeddings.weight"] },
    Network { what: PLAIN, sizes: GENERATOR_SIZES, advice: SWAPPED,
        markers: &["tok_embeddings.weight", "layers.0.attention.wqkv.weight", "cls_embedding.embedding_table.weight"] },

    Network { what: "TiTok", markers: &["latent_tokens", "encoder.transformer.0.attn.in_proj_weight"], sizes: &[], advice: OTHER_TOKENIZER },
    Network { what: "LlamaGen's VQ tokenizer", markers: &["encoder.conv_blocks.0.res.0.conv1.weight", "quantize.embedding.weight"], sizes: &[], advice: OTHER_TOKENIZER },
    Network { what: "VAR's tokenizer", markers: &["quantize.quant_resi.qresi_ls.0.weight"], sizes: &[], advice: OTHER_TOKENIZER },
    Network { what: "a diffusers VQModel", markers: &["encoder.down_blocks.0.resnets.0.conv1.weight", "quantize.embedding.weight"], sizes: &[], advice: OTHER_TOKENIZER },
    Network { what: "a diffusers autoencoder (AutoencoderKL)", markers: &["encoder.down_blocks.0.resnets.0.conv1.weight", "decoder.up_blocks.0.resnets.0.conv1.weight"], sizes: &[], advice: OTHER_TOKENIZER },
    Network { what: "a checkpoint of latent diffusion", markers: &["diffusion_model.input_blocks.0.0.weight"], sizes: &[], advice: OTHER_TOKENIZER },
    Network { what: "a VQGAN", markers: &["encoder.down.0.block.0.conv1.weight", "quantize.embedding.weight"], sizes: &[], advice: OTHER_TOKENIZER },
    Network { what: "an autoencoder of latent diffusion", markers: &["encoder.down.0.block.0.conv1.weight", "decoder.up.0.block.0.conv1.weight"], sizes: &[], advice: OTHER_TOKENIZER },

    Network { what: "a diffusers UNet", markers: &["time_embedding.linear_1.weight", "down_blocks.0.resnets.0.conv1.weight"], sizes: &[], advice: OTHER_GENERATOR },
    Network { what: "a diffusion transformer (DiT, SiT)", markers: &["x_embedder.proj.weight", "t_embedder.mlp.0.weight"], sizes: &[], advice: OTHER_GENERATOR },
    Network { what: "VAR's generator", markers: &["word_embed.weight", "blocks.0.ada_lin.1.weight"], sizes: &[], advice: OTHER_GENERATOR },
    Network { what: "a language model in the names of transformers", markers: &["layers.0.self_attn.q_proj.weight", "embed_tokens.weight"], sizes: &[], advice: OTHER_GENERATOR },

    Network { what: "torchvision's Inception v3", markers: &["AuxLogits.conv0.conv.weight"], sizes: &[],
        advice: "Scores are defined by another: Inception of 2015-12-05." },
    Network { what: "the Inception network of 2015-12-05", markers: &["Conv2d_1a_3x3.conv.weight", "Mixed_7c.branch_pool.conv.weight"], sizes: &[], advice: "" },
    Network { what: "LPIPS with the network below it", markers: &["net.slice1.0.weight", "lin0.model.1.weight"], sizes: &[],
        advice: "The linear layers and the network below them are read from two files." },
    Network { what: "the linear layers of LPIPS", markers: &["lin0.model.1.weight", "lin4.model.1.weight"], advice: "",
        sizes: &[Size::Axis("channels of the first layer", "lin0.model.1.weight", 1), Size::Axis("channels of the second", "lin1.model.1.weight", 1)] },
    Network { what: "a VGG with batch norms", markers: &["features.0.weight", "features.1.running_mean"], sizes: &[], advice: "" },
    Network { what: "VGG19", markers: &["features.0.weight", "features.34.weight"], sizes: &[], advice: "" },
    Network { what: "VGG16", markers: &["features.0.weight", "features.28.weight"], sizes: &[], advice: "" },
    Network { what: "AlexNet", markers: &["features.0.weight", "features.3.weight", "features.10.weight"], sizes: &[], advice: "" },
    Network { what: "a ResNet", markers: &["layer1.0.conv1.weight", "layer4.0.conv1.weight"], sizes: &[], advice: "" },

    Network { what: "DINOv3", markers: &["reg_token", "blocks.0.gamma_1", "patch_embed.proj.weight"], sizes: VISION_SIZES, advice: "" },
    Network { what: "DINOv2 with registers", markers: &["register_tokens", "blocks.0.ls1.gamma"], sizes: VISION_SIZES, advice: "" },
    Network { what: "DINOv2 with registers", markers: &["reg_token", "blocks.0.ls1.gamma"], sizes: VISION_SIZES, advice: "" },
    Network { what: "DINOv2", markers: &["blocks.0.ls1.gamma", "patch_embed.proj.weight"], sizes: VISION_SIZES, advice: "" },
    Network { what: "a vision transformer (DINO, ViT)", markers: &["cls_token", "blocks.0.attn.qkv.weight", "patch_embed.proj.weight"], sizes: VISION_SIZES, advice: "" },
    Network { what: "a vision transformer in the names of transformers", markers: &["embeddings.cls_token", "embeddings.patch_embeddings.weight"], sizes: &[], advice: TIMM },
    Network { what: "a vision transformer in the names of transformers", markers: &["embeddings.cls_token", "embeddings.patch_embeddings.projection.weight"], sizes: &[], advice: TIMM },
    Network { what: "CLIP or SigLIP in the names of transformers", markers: &["vision_model.encoder.layers.0.self_attn.q_proj.weight"], sizes: &[], advice: "" },
    Network { what: "CLIP in the names of OpenCLIP", markers: &["visual.transformer.resblocks.0.attn.in_proj_weight"], sizes: &[], advice: "" },
];

/// Starts of names beside a model that are known to be no part of one: what training computes with, and what averages count.
const BESIDE_A_MODEL: [&str; 12] = [
    "loss.",
    "losses.",
    "discriminator.",
    "disc.",
    "lpips.",
    "perceptual_loss.",
    "optimizer.",
    "n_averaged",
    "initted",
    "step",
    "global_step",
    "num_updates",
];

/// Starts of names that a note shows.
const STARTS_SHOWN: usize = 5;

fn recognised<'a>(names: &(impl Iterator<Item = &'a str> + Clone)) -> Option<&'static Network> {
    let has = |marker: &str| {
        names.clone().any(|name| match marker.ends_with('.') {
            true => name.starts_with(marker) || name.match_indices(marker).any(|(at, _)| name[..at].ends_with('.')),
            false => name.strip_suffix(marker).is_some_and(|front| front.is_empty() || front.ends_with('.')),
        })
    };
    NETWORKS.iter().find(|network| network.markers.iter().all(|marker| has(marker)))
}

/// What stands in front of all of a model's names in a file, known from the first name that the model asks for: nothing where the file has that
/// name, or where there is more than one answer.
pub(crate) fn prefix<'a>(names: impl Iterator<Item = &'a str>, first: &str) -> String {
    let mut prefixes = names
        .filter_map(|name| name.strip_suffix(first))
        .filter(|front| front.is_empty() || front.ends_with('.'))
        .collect::<Vec<_>>();
    match (prefixes.contains(&""), prefixes.pop(), prefixes.is_empty()) {
        (false, Some(only), true) => only.to_owned(),
        _ => String::new(),
    }
}

/// What is known of the cause of `problems`, a sentence each, of a model that asked for the tensors `asked` under `prefix`.
pub(crate) fn notes(
    file: &WeightFile,
    prefix: &str,
    asked: &BTreeMap<String, Vec<i64>>,
    problems: &[TensorProblem],
) -> Vec<String> {
    let names = file.names().filter_map(|name| name.strip_prefix(prefix));
    let shapes: BTreeMap<&str, Vec<i64>> =
        names.clone().filter_map(|name| Some((name, file.shape(&format!("{prefix}{name}"))?))).collect();
    let mut notes = Vec::new();
    let named = asked.keys().filter(|name| shapes.contains_key(name.as_str())).count();
    if 2 * named >= asked.len() && !prefix.is_empty() {
        notes.push(format!(
            "{} of {} names begin with {prefix}, which is left out here.",
            shapes.len(),
            file.names().count()
        ));
    }
    let (found, expected) = (recognised(&names), recognised(&asked.keys().map(String::as_str)));
    let found_shapes = shapes.iter().map(|(name, shape)| (*name, shape.as_slice())).collect();
    let asked_shapes = asked.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
    match (found, expected) {
        (Some(found), Some(expected)) if found.what == expected.what => {
            notes.extend(other_size(found, &found_shapes, &asked_shapes));
        }
        (Some(found), Some(expected)) if found.what == PLAIN && expected.what == HIERARCHICAL => {
            notes.push(format!(
                "These are weights of {PLAIN}, and config.json is that of {HIERARCHICAL}: that of the plain one has neither \
                 ar_token_num nor spe_token_num."
            ));
            notes.extend(other_size(found, &found_shapes, &asked_shapes));
        }
        (Some(found), Some(expected)) if found.what == HIERARCHICAL && expected.what == PLAIN => {
            notes.push(format!(
                "These are weights of {HIERARCHICAL}, and config.json is that of {PLAIN}: it lacks ar_token_num, 4 as published, and \
                 spe_token_num."
            ));
            notes.extend(other_size(found, &found_shapes, &asked_shapes));
        }
        // A name that is missing may be the one that a network is known by.
        (found, expected) if 2 * named < asked.len() && !holds_copies(file, asked) => {
            let mut note = match found {
                Some(found) => format!("These look like the weights of {}", found.what),
                None => format!("The names are of no network that is known here: {}", starts(file)),
            };
            if let Some(expected) = expected {
                write!(note, "; expected are those of {}", expected.what).unwrap_or_default();
            }
            note.push('.');
            if let Some(found) = found.filter(|found| !found.advice.is_empty()) {
                write!(note, " {}", found.advice).unwrap_or_default();
            }
            notes.push(note);
        }
        _ => {}
    }
    notes.extend(what_to_keep(file, prefix, asked, problems));
    notes
}

/// How sizes differ between weights of one network and what is expected.
fn other_size(network: &Network, found: &BTreeMap<&str, &[i64]>, expected: &BTreeMap<&str, &[i64]>) -> Option<String> {
    let differences: Vec<String> = network
        .sizes
        .iter()
        .filter_map(|size| match (size.of(found), size.of(expected)) {
            (Some(found), Some(expected)) if found != expected => {
                Some(format!("{} {found} instead of {expected}", size.what()))
            }
            _ => None,
        })
        .collect();
    if differences.is_empty() {
        return None;
    }
    let mut note = format!("These are weights of {} of another size: {}.", network.what, differences.join(", "));
    match (preset(network, found), preset(network, expected)) {
        (Some(found), Some(expected)) if found != expected => {
            write!(note, " Widths and blocks are those of {found}, and config.json has those of {expected}.")
        }
        (Some(found), None) => write!(note, " Widths and blocks are those of {found}."),
        _ => Ok(()),
    }
    .unwrap_or_default();
    if matches!(network.what, TOKENIZER | HIERARCHICAL | PLAIN) {
        note.push_str(" Take the config.json that belongs to these weights, or the weights that belong to it.");
    }
    Some(note)
}

/// The name of the size that a network has by its widths and blocks.
fn preset(network: &Network, shapes: &BTreeMap<&str, &[i64]>) -> Option<&'static str> {
    let size = |what: &str| network.sizes.iter().find(|size| size.what() == what)?.of(shapes);
    match network.what {
        TOKENIZER => {
            let of = |part: &str| Some((size(&format!("{part} width"))?, size(&format!("{part} blocks"))?));
            let (encoder, decoder) = (of("encoder")?, of("decoder")?);
            let same = |size: TransformerSize| encoder == decoder && encoder == (size.width, size.layers as i64);
            TOKENIZER_PRESETS.into_iter().find(|&(_, size)| same(size)).map(|(name, _)| name)
        }
        HIERARCHICAL | PLAIN => {
            let found = (size("width")?, size("layers")?);
            let same = |named: &GeneratorSize| {
                let named = named.transformer();
                found == (named.width, named.layers as i64)
            };
            GeneratorSize::ALL.into_iter().find(same).map(GeneratorSize::name)
        }
        _ => match (size("width")?, size("blocks")?) {
            (192, 12) => Some("ViT-Ti"),
            (384, 12) => Some("ViT-S"),
            (768, 12) => Some("ViT-B"),
            (1024, 24) => Some("ViT-L"),
            (1280, 32) => Some("ViT-H"),
            (1536, 40) => Some("ViT-g"),
            _ => None,
        },
    }
}

/// Under which prefixes a file has all names of a model.
fn copies<'a>(file: &'a WeightFile, asked: &BTreeMap<String, Vec<i64>>) -> Vec<&'a str> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in file.names() {
        let points = name.match_indices('.').map(|(at, _)| at + 1);
        for at in std::iter::once(0).chain(points).filter(|&at| asked.contains_key(&name[at..])) {
            *counts.entry(&name[..at]).or_default() += 1;
        }
    }
    counts.into_iter().filter(|&(_, count)| count == asked.len()).map(|(prefix, _)| prefix).collect()
}

fn holds_copies(file: &WeightFile, asked: &BTreeMap<String, Vec<i64>>) -> bool {
    copies(file, asked).len() > 1
}

/// The command that leaves a model alone in a file where it is whole and in company.
fn what_to_keep(
    file: &WeightFile,
    prefix: &str,
    asked: &BTreeMap<String, Vec<i64>>,
    problems: &[TensorProblem],
) -> Option<String> {
    let copies = copies(file, asked);
    let command = |keep: Keep<'_>| {
        let files: Vec<&Path> = file.files().collect();
        // Shards become one file, which is then read in their stead.
        let out = match files.as_slice() {
            [only] if *only == file.path() => file.path().to_owned(),
            _ => file.path().with_extension("").with_extension(""),
        };
        format!("where PyTorch is installed:\n  {}", keeping_command(&files, &out, keep))
    };
    if prefix.is_empty() && copies.len() > 1 && !copies.contains(&"") {
        let which = Keep { prefix: copies[0], without: &[] };
        let prefixes: Vec<String> = copies.iter().map(|prefix| format!("{prefix}*")).collect();
        return Some(format!(
            "The file has this model {} times, under {}. Take one of them, say {}, {}",
            copies.len(),
            prefixes.join(" and "),
            prefixes[0],
            command(which)
        ));
    }
    if !copies.contains(&prefix) {
        return None;
    }
    let unexpected: Option<Vec<String>> = problems
        .iter()
        .map(|problem| match problem {
            TensorProblem::Unexpected { name, .. } => Some(name.clone()),
            _ => None,
        })
        .collect();
    // Names under the prefix are told without it.
    let unexpected = unexpected?;
    let in_company = |name: &String| file.shape(&format!("{prefix}{name}")).is_some();
    let mut without: Vec<String> = Vec::new();
    for name in unexpected.iter().filter(|name| in_company(name)) {
        let copy = copies
            .iter()
            .find(|copy| !copy.is_empty() && **copy != prefix && format!("{prefix}{name}").starts_with(**copy));
        let known = BESIDE_A_MODEL.iter().find(|start| match start.ends_with('.') {
            true => name.starts_with(**start),
            false => name == **start,
        });
        // What is neither may be what another configuration asks for.
        let start = copy.map(|copy| (*copy).to_owned()).or_else(|| known.map(|start| format!("{prefix}{start}")))?;
        if !without.contains(&start) {
            without.push(start);
        }
    }
    if prefix.is_empty() && without.is_empty() {
        return None;
    }
    Some(format!(
        "The model is whole, and what else is in the file is not its own: leave it out, {}",
        command(Keep { prefix, without: &without })
    ))
}

/// How a file's names begin, the most frequent first.
fn starts(file: &WeightFile) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in file.names() {
        *counts.entry(name.split('.').next().unwrap_or(name)).or_default() += 1;
    }
    if counts.is_empty() {
        return "the file has no tensors".to_owned();
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|&(start, count)| (std::cmp::Reverse(count), start));
    let shown = counts.iter().take(STARTS_SHOWN).map(|(start, count)| format!("{start} ({count})"));
    let mut text = shown.collect::<Vec<_>>().join(", ");
    if counts.len() > STARTS_SHOWN {
        text.push_str(", …");
    }
    text
}
