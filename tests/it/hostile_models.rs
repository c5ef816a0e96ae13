//! Whatever a model folder holds, loading it ends: with a model, or with an error that names the file.

use models::{Device, LoadOptions, Precision, VisualTokenizer};
use pipeline::testing::fuzz;
use proptest::{prop_assert, test_runner::TestCaseError};
use std::{fs, path::Path};
use tests::tokenizer;

fn load(folder: &Path, file: &Path) -> Result<(), TestCaseError> {
    let options = LoadOptions { device: Device::Cpu, precision: Precision::Fp32, name: None };
    match VisualTokenizer::load(folder, options) {
        Ok(_) => Ok(()),
        Err(error) => {
            // Of weights that a sound configuration does not fit, the weights' file is named by its path and the configuration by its name.
            let (told, name) = (error.to_string(), file.file_name().expect("a file").to_string_lossy());
            let folder = folder.display().to_string();
            prop_assert!(told.contains(&folder) && told.contains(&*name), "{} is not named: {}", file.display(), told);
            Ok(())
        }
    }
}

#[test]
fn damaged_headers_of_safetensors_files_are_read_or_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    tokenizer::save(folder.path(), 0);
    let file = folder.path().join("model.safetensors");
    let sound = fs::read(&file).expect("the weights just saved");
    let length = u64::from_le_bytes(*sound.first_chunk().expect("a length")) as usize;
    let (header, tensors) = sound.split_at(8 + length);
    fuzz(file!(), 100, &[header.to_vec()], |header| {
        fs::write(&file, [header, tensors].concat()).expect("written");
        load(folder.path(), &file)
    });
}

#[test]
fn damaged_configurations_are_read_or_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    tokenizer::save(folder.path(), 0);
    let file = folder.path().join("config.json");
    let sound = fs::read(&file).expect("the configuration just saved");
    fuzz(file!(), 100, &[sound], |bytes| {
        fs::write(&file, bytes).expect("written");
        load(folder.path(), &file)
    });
}
