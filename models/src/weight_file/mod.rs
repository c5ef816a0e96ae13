//! `model.safetensors`, in one file or in shards: checked before it is believed, hashed, and read tensor by tensor, so that a model never
//! needs its own size twice.

mod commands;
mod foreign;
mod safetensors_file;
mod shard_index;

pub use self::commands::pickle_conversion_command;

pub(crate) use self::{
    commands::{Keep, keeping_command},
    foreign::{Foreign, LOOKED_AT},
};

use self::{safetensors_file::SafetensorsFile, shard_index::ShardIndex};
use crate::{ModelError, error::names_in};
use safetensors::{
    Dtype,
    tensor::{TensorInfo, TensorView},
};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    io::{ErrorKind, Read},
    path::{Path, PathBuf},
};
use tch::{Kind, Tensor};

/// Parts of names that torch's wrappers leave: of compilation, of sharded training and of checkpointed activations. No network has them.
const WRAPPERS: [&str; 3] = ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];

/// An open weight file, or the open shards of one, whose headers have been checked against their sizes.
pub(crate) struct WeightFile {
    /// The file, or the index of its shards.
    path: PathBuf,
    files: Vec<SafetensorsFile>,
    is_sharded: bool,
    /// By name without [`WRAPPERS`].
    tensors: BTreeMap<String, Place>,
    /// Names that occur with and without a wrapper's.
    pub(crate) twice: Vec<String>,
}

/// Where a tensor is.
struct Place {
    /// Of the file's files.
    file: usize,
    info: TensorInfo,
}

/// In what files the weights of one path lie.
#[derive(Debug)]
enum Layout {
    OneFile(PathBuf),
    Shards(ShardIndex),
}

impl Layout {
    /// Of `path`, which is a weight file, an index, or the name of a weight file in whose place there is an index.
    fn of(path: &Path) -> Result<Self, ModelError> {
        if path.as_os_str().as_encoded_bytes().ends_with(shard_index::ENDING.as_bytes()) {
            return Ok(Self::Shards(ShardIndex::read(path)?));
        }
        let index = index_of(path);
        match path.metadata() {
            Ok(_) => Ok(Self::OneFile(path.to_owned())),
            Err(error) if error.kind() == ErrorKind::NotFound && index.exists() => {
                Ok(Self::Shards(ShardIndex::read(&index)?))
            }
            Err(source) => Err(ModelError::File { file: path.to_owned(), source }),
        }
    }

    fn files(&self) -> Vec<PathBuf> {
        match self {
            Self::OneFile(path) => vec![path.clone()],
            Self::Shards(index) => index.files(),
        }
    }
}

/// The index of the shards that stand for the weight file `path`.
fn index_of(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(shard_index::ENDING);
    PathBuf::from(name)
}

/// Names of the shards that the index at `path` is of, files beside it, sorted.
///
/// # Errors
/// When the index cannot be read, is damaged, or names a shard that would not lie beside it.
pub fn shards_of_index(path: &Path) -> Result<Vec<String>, ModelError> {
    Ok(ShardIndex::read(path)?.shards().into_iter().map(str::to_owned).collect())
}

/// The error of a weight file that is not there: a pickle may be, which has another remedy.
fn missing(path: &Path) -> ModelError {
    let pickle = path.with_file_name("pytorch_model.bin");
    if pickle.exists() {
        let command = pickle_conversion_command(&[&pickle], path);
        return ModelError::PickledWeights { file: pickle, command };
    }
    let is_shard = |name: &String| name.starts_with("pytorch_model-") && name.ends_with(".bin");
    let shards: Vec<PathBuf> =
        names_in(path.parent()).into_iter().filter(is_shard).map(|name| path.with_file_name(name)).collect();
    let Some(first) = shards.first().cloned() else { return ModelError::missing(path) };
    let shards: Vec<&Path> = shards.iter().map(PathBuf::as_path).collect();
    ModelError::PickledWeights { file: first, command: pickle_conversion_command(&shards, path) }
}

impl WeightFile {
    /// Opens `path`, or the shards of its index, and checks all headers.
    ///
    /// # Errors
    /// When it is missing, something else lies in its place, it is damaged or cut short, or shards do not agree with their index.
    pub(crate) fn open(path: &Path) -> Result<Self, ModelError> {
        let layout = Layout::of(path).map_err(|error| match error {
            ModelError::File { source, .. } if source.kind() == ErrorKind::NotFound => missing(path),
            other => other,
        })?;
        let (path, files, is_sharded) = match layout {
            Layout::OneFile(path) => {
                let (file, index) = (SafetensorsFile::open(&path)?, index_of(&path));
                if index.exists() {
                    tracing::warn!("{} is read, and {} beside it is not", path.display(), index.display());
                }
                (path, vec![file], false)
            }
            Layout::Shards(index) => {
                let files = index.open()?;
                (index.path, files, true)
            }
        };
        let (mut tensors, mut twice) = (BTreeMap::new(), Vec::new());
        for (file, opened) in files.iter().enumerate() {
            for (name, info) in &opened.tensors {
                let plain = unwrapped(name);
                if tensors.insert(plain.clone(), Place { file, info: info.clone() }).is_some() {
                    twice.push(plain);
                }
            }
        }
        Ok(Self { path, files, is_sharded, tensors, twice })
    }

    /// The file, or the index of its shards.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The file, or its shards.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> + Clone {
        self.tensors.keys().map(String::as_str)
    }

    /// Shape of a tensor, if the file has it.
    pub(crate) fn shape(&self, name: &str) -> Option<Vec<i64>> {
        self.tensors.get(name).map(|place| place.info.shape.iter().map(|&size| size as i64).collect())
    }

    /// Type of a tensor: torch's, or its name where torch's layers cannot use it.
    pub(crate) fn kind(&self, name: &str) -> Result<Kind, String> {
        match self.tensors.get(name).map(|place| place.info.dtype) {
            Some(Dtype::F32) => Ok(Kind::Float),
            Some(Dtype::F16) => Ok(Kind::Half),
            Some(Dtype::BF16) => Ok(Kind::BFloat16),
            other => Err(other.map_or_else(|| "nothing".to_owned(), |kind| format!("{kind:?}"))),
        }
    }

    /// Reads one tensor into memory, as float32. The caller has checked [`Self::kind`].
    pub(crate) fn read(&self, name: &str) -> Result<Tensor, ModelError> {
        let Place { file, info } = &self.tensors[name];
        let kind = self.kind(name).map_err(|found| ModelError::torch(&format!("{name} is stored as {found}")))?;
        let bytes = self.files[*file].read(info)?;
        let shape: Vec<i64> = info.shape.iter().map(|&size| size as i64).collect();
        Ok(Tensor::f_from_data_size(&bytes, &shape, kind)?.f_to_kind(Kind::Float)?)
    }

    /// SHA-256 of the weights, as [`sha256`] has it.
    pub(crate) fn sha256(&self) -> Result<String, ModelError> {
        digest(&self.files().map(Path::to_owned).collect::<Vec<_>>(), self.is_sharded)
    }
}

/// A tensor's name without what wrappers put into it.
fn unwrapped(name: &str) -> String {
    let parts: Vec<&str> = name.split('.').filter(|part| !WRAPPERS.contains(part)).collect();
    parts.join(".")
}

/// SHA-256 of a weight file, lowercase hexadecimal. Of shards, that of the lines `digest  name` of all shards sorted by name, as `sha256sum`
/// prints them: it follows from the shards alone, however the index is written.
pub(crate) fn sha256(path: &Path) -> Result<String, ModelError> {
    let layout = Layout::of(path)?;
    digest(&layout.files(), matches!(layout, Layout::Shards(_)))
}

/// `files`: sorted by name.
fn digest(files: &[PathBuf], is_sharded: bool) -> Result<String, ModelError> {
    if let ([file], false) = (files, is_sharded) {
        return file_sha256(file);
    }
    let mut hasher = Sha256::new();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        hasher.update(format!("{}  {name}\n", file_sha256(file)?));
    }
    Ok(schemas::hex(&hasher.finalize()))
}

fn file_sha256(path: &Path) -> Result<String, ModelError> {
    let io = |source| ModelError::File { file: path.to_owned(), source };
    let mut file = File::open(path).map_err(io)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(io)? {
            0 => break,
            read => hasher.update(&buffer[..read]),
        }
    }
    Ok(schemas::hex(&hasher.finalize()))
}

/// Copies the weights `source`, one file or shards with their index, into `folder` under their own names. Each appears when all are whole.
///
/// # Errors
/// When a file cannot be read or written, or the copies are not those of `expected`, a digest.
pub(crate) fn copy(source: &Path, folder: &Path, expected: &str) -> Result<(), ModelError> {
    let in_file = |file: &Path| {
        let file = file.to_owned();
        move |source| ModelError::File { file, source }
    };
    let layout = Layout::of(source)?;
    // The digest of shards is of their names too.
    let partial = folder.join(".weights.partial");
    std::fs::create_dir_all(&partial).map_err(in_file(&partial))?;
    let copied = |file: &Path| -> Result<PathBuf, ModelError> {
        let copy = partial.join(file.file_name().unwrap_or_default());
        std::fs::copy(file, &copy).map_err(in_file(file))?;
        Ok(copy)
    };
    let mut copies = layout.files().iter().map(|file| copied(file)).collect::<Result<Vec<_>, _>>()?;
    let found = digest(&copies, matches!(layout, Layout::Shards(_)))?;
    if found != expected {
        return Err(ModelError::DamagedWeights {
            file: source.to_owned(),
            problem: "the file has changed since it was loaded".to_owned(),
            found: format!("sha256 {found}"),
            expected: format!("sha256 {expected}"),
        });
    }
    // What stood for the weights in the other form would be read instead, or beside them.
    let other_form = match &layout {
        Layout::OneFile(file) => index_of(&folder.join(file.file_name().unwrap_or_default())),
        Layout::Shards(index) => {
            copies.push(copied(&index.path)?);
            folder.join(source.file_name().unwrap_or_default())
        }
    };
    for copy in &copies {
        let file = folder.join(copy.file_name().unwrap_or_default());
        std::fs::rename(copy, &file).map_err(in_file(&file))?;
    }
    remove_if_there(&other_form)?;
    // With what an attempt that failed left there.
    std::fs::remove_dir_all(&partial).map_err(in_file(&partial))
}

/// Removes the index that stood in the place of the weight file `path`, which has just been written.
pub(crate) fn remove_index(path: &Path) -> Result<(), ModelError> {
    remove_if_there(&index_of(path))
}

fn remove_if_there(file: &Path) -> Result<(), ModelError> {
    match std::fs::remove_file(file) {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(ModelError::File { file: file.to_owned(), source }),
        _ => Ok(()),
    }
}

/// Writes tensors as a weight file that Python's libraries read too: float16 as it is, everything else in float32. On the disk when
/// this returns.
pub(crate) fn write(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<(), ModelError> {
    let mut buffers = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let (kind, dtype, element_bytes) = match tensor.kind() {
            Kind::Half => (Kind::Half, Dtype::F16, 2),
            _ => (Kind::Float, Dtype::F32, 4),
        };
        let flat = tensor.detach().f_to_device(tch::Device::Cpu)?.f_to_kind(kind)?.f_reshape([-1])?;
        let mut bytes = vec![0; flat.numel() * element_bytes];
        let count = bytes.len();
        flat.f_view_dtype(Kind::Uint8)?.f_copy_data_u8(&mut bytes, count)?;
        buffers.push((name, tensor.size().iter().map(|&size| size as usize).collect::<Vec<_>>(), bytes, dtype));
    }
    let views = buffers.iter().map(|(name, shape, bytes, dtype)| {
        TensorView::new(*dtype, shape.clone(), bytes).map(|view| (name.as_str(), view))
    });
    let failed = |source| ModelError::File { file: path.to_owned(), source };
    let unwritten = |error: safetensors::SafeTensorError| failed(std::io::Error::other(error.to_string()));
    let views: Vec<_> = views.collect::<Result<_, _>>().map_err(unwritten)?;
    // "format" is what the Python side looks for.
    let metadata = [("format".to_owned(), "pt".to_owned())].into();
    // The library's temporary file is for its owner's eyes only; a tokenizer has the permissions of any new file.
    let permissions = File::create(path).and_then(|file| file.metadata()).map_err(failed)?.permissions();
    safetensors::serialize_to_file(views, Some(metadata), path).map_err(unwritten)?;
    std::fs::set_permissions(path, permissions).map_err(failed)?;
    File::open(path).and_then(|file| file.sync_all()).map_err(failed)
}
