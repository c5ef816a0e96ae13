//! The Inception network with random weights: its features mean nothing, but they depend on every pixel and have the published
//! shapes, so that everything around it can be tested without the published file of 95 MB.

use crate::random::Random;
use safetensors::{Dtype, serialize_to_file, tensor::TensorView};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// A convolution with its batch norm: name, outputs, inputs, height and width of the kernel.
type Layer = (String, usize, usize, usize, usize);

/// Writes weights drawn from a fixed seed, in float16 to have half the size, under the names of the PyTorch port.
///
/// # Errors
/// When the file cannot be written.
pub fn save(file: &Path) -> std::io::Result<()> {
    let mut random = Random::new(12);
    let mut tensors: BTreeMap<String, (Vec<usize>, Vec<u8>)> = BTreeMap::new();
    let mut add = |name: String, shape: Vec<usize>, value: &mut dyn FnMut() -> f32| {
        let bytes = (0..shape.iter().product()).flat_map(|_| half(value()).to_le_bytes()).collect();
        tensors.insert(name, (shape, bytes));
    };
    for (name, outputs, inputs, height, width) in layers() {
        // He's scale keeps activations alive through all layers.
        let bound = (6.0 / (inputs * height * width) as f32).sqrt();
        add(format!("{name}.conv.weight"), vec![outputs, inputs, height, width], &mut || bound * signed(&mut random));
        add(format!("{name}.bn.weight"), vec![outputs], &mut || 1.0 + 0.2 * signed(&mut random));
        add(format!("{name}.bn.bias"), vec![outputs], &mut || 0.1 * signed(&mut random));
        add(format!("{name}.bn.running_mean"), vec![outputs], &mut || 0.1 * signed(&mut random));
        add(format!("{name}.bn.running_var"), vec![outputs], &mut || 1.0 + 0.2 * signed(&mut random));
    }
    add("fc.weight".to_owned(), vec![1008, 2048], &mut || 0.1 * signed(&mut random));
    add("fc.bias".to_owned(), vec![1008], &mut || 0.1 * signed(&mut random));
    let views = tensors.iter().map(|(name, (shape, bytes))| {
        (name, TensorView::new(Dtype::F16, shape.clone(), bytes).expect("as many bytes as the shape says"))
    });
    serialize_to_file(views, None, file).map_err(|error| std::io::Error::other(error.to_string()))
}

/// The file, made on first use and shared by the tests of a build: `folder` is the one that cargo keeps for tests.
pub fn shared(folder: &Path) -> PathBuf {
    // Another version of the weights has another name.
    let file = folder.join("random-inception-1.safetensors");
    if !file.exists() {
        let mine = tempfile::NamedTempFile::new_in(folder).expect("cargo's folder for tests can be written");
        save(mine.path()).expect("cargo's folder for tests can be written");
        mine.persist(&file).expect("a file in the same folder");
    }
    file
}

/// Evenly drawn from -1 to 1.
fn signed(random: &mut Random) -> f32 {
    (random.next_word() >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// A number as float16, rounded towards zero; what is too small for a normal one becomes 0.
fn half(value: f32) -> u16 {
    let bits = value.to_bits();
    let (sign, exponent) = ((bits >> 16) as u16 & 0x8000, (bits >> 23 & 0xff) as i32 - 127);
    match exponent {
        ..=-15 => sign,
        _ => sign | ((exponent + 15) as u16) << 10 | (bits >> 13 & 0x3ff) as u16,
    }
}

/// Every convolution of the network.
fn layers() -> Vec<Layer> {
    let mut layers: Vec<Layer> = [
        ("Conv2d_1a_3x3", 32, 3, 3),
        ("Conv2d_2a_3x3", 32, 32, 3),
        ("Conv2d_2b_3x3", 64, 32, 3),
        ("Conv2d_3b_1x1", 80, 64, 1),
        ("Conv2d_4a_3x3", 192, 80, 3),
    ]
    .map(|(name, outputs, inputs, side)| (name.to_owned(), outputs, inputs, side, side))
    .into();
    let mut block = |block: &str, branches: &[(&str, usize, usize, usize, usize)]| {
        let layer = |&(branch, outputs, inputs, height, width): &(&str, usize, usize, usize, usize)| {
            (format!("{block}.{branch}"), outputs, inputs, height, width)
        };
        layers.extend(branches.iter().map(layer));
    };
    for (name, inputs, pooled) in [("Mixed_5b", 192, 32), ("Mixed_5c", 256, 64), ("Mixed_5d", 288, 64)] {
        block(
            name,
            &[
                ("branch1x1", 64, inputs, 1, 1),
                ("branch5x5_1", 48, inputs, 1, 1),
                ("branch5x5_2", 64, 48, 5, 5),
                ("branch3x3dbl_1", 64, inputs, 1, 1),
                ("branch3x3dbl_2", 96, 64, 3, 3),
                ("branch3x3dbl_3", 96, 96, 3, 3),
                ("branch_pool", pooled, inputs, 1, 1),
            ],
        );
    }
    block(
        "Mixed_6a",
        &[
            ("branch3x3", 384, 288, 3, 3),
            ("branch3x3dbl_1", 64, 288, 1, 1),
            ("branch3x3dbl_2", 96, 64, 3, 3),
            ("branch3x3dbl_3", 96, 96, 3, 3),
        ],
    );
    for (name, narrow) in [("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)] {
        block(
            name,
            &[
                ("branch1x1", 192, 768, 1, 1),
                ("branch7x7_1", narrow, 768, 1, 1),
                ("branch7x7_2", narrow, narrow, 1, 7),
                ("branch7x7_3", 192, narrow, 7, 1),
                ("branch7x7dbl_1", narrow, 768, 1, 1),
                ("branch7x7dbl_2", narrow, narrow, 7, 1),
                ("branch7x7dbl_3", narrow, narrow, 1, 7),
                ("branch7x7dbl_4", narrow, narrow, 7, 1),
                ("branch7x7dbl_5", 192, narrow, 1, 7),
                ("branch_pool", 192, 768, 1, 1),
            ],
        );
    }
    block(
        "Mixed_7a",
        &[
            ("branch3x3_1", 192, 768, 1, 1),
            ("branch3x3_2", 320, 192, 3, 3),
            ("branch7x7x3_1", 192, 768, 1, 1),
            ("branch7x7x3_2", 192, 192, 1, 7),
            ("branch7x7x3_3", 192, 192, 7, 1),
            ("branch7x7x3_4", 192, 192, 3, 3),
        ],
    );
    for (name, inputs) in [("Mixed_7b", 1280), ("Mixed_7c", 2048)] {
        block(
            name,
            &[
                ("branch1x1", 320, inputs, 1, 1),
                ("branch3x3_1", 384, inputs, 1, 1),
                ("branch3x3_2a", 384, 384, 1, 3),
                ("branch3x3_2b", 384, 384, 3, 1),
                ("branch3x3dbl_1", 448, inputs, 1, 1),
                ("branch3x3dbl_2", 384, 448, 3, 3),
                ("branch3x3dbl_3a", 384, 384, 1, 3),
                ("branch3x3dbl_3b", 384, 384, 3, 1),
                ("branch_pool", 192, inputs, 1, 1),
            ],
        );
    }
    layers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_become_halves() {
        for (value, bits) in
            [(0.0, 0), (1.0, 0x3c00), (-2.0, 0xc000), (0.5, 0x3800), (1e-8, 0), (0.099_975_586, 0x2e66)]
        {
            assert_eq!(half(value), bits, "{value}");
        }
    }
}
