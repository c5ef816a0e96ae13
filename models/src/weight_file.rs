//! `model.safetensors`: checked before it is believed, hashed, and read tensor by tensor, so that a model never needs its own
//! size twice.

use crate::ModelError;
use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo, TensorView},
};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{ErrorKind, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};
use tch::{Kind, Tensor};

/// The compiled wrapper's prefix, which training scripts leave in the names.
const COMPILED_PREFIX: &str = "_orig_mod.";

/// Largest header that the format allows, in bytes.
const LARGEST_HEADER_BYTES: u64 = 100_000_000;

/// An open weight file whose header has been checked against its size.
pub(crate) struct WeightFile {
    path: PathBuf,
    file: File,
    data_starts: u64,
    /// By name without [`COMPILED_PREFIX`].
    tensors: BTreeMap<String, TensorInfo>,
    /// Names that occur with and without the prefix.
    pub(crate) twice: Vec<String>,
}

impl WeightFile {
    /// Opens `path` and checks its header.
    ///
    /// # Errors
    /// When it is missing, only a pickle lies in its place, or it is damaged or cut short.
    pub(crate) fn open(path: &Path) -> Result<Self, ModelError> {
        let file = File::open(path).map_err(|source| Self::open_error(path, source))?;
        let io = |source| ModelError::File { file: path.to_owned(), source };
        let damaged = |problem: &str, found: String, expected: String| ModelError::DamagedWeights {
            file: path.to_owned(),
            problem: problem.to_owned(),
            found,
            expected,
        };
        let file_bytes = file.metadata().map_err(io)?.len();
        if file_bytes < 8 {
            return Err(damaged("the file is cut short", format!("{file_bytes} bytes"), "at least 8 bytes".to_owned()));
        }
        let mut length = [0; 8];
        file.read_exact_at(&mut length, 0).map_err(io)?;
        let header_bytes = u64::from_le_bytes(length);
        if header_bytes > LARGEST_HEADER_BYTES {
            return Err(damaged(
                "this is no safetensors file",
                format!("a header of {header_bytes} bytes"),
                format!("at most {LARGEST_HEADER_BYTES}"),
            ));
        }
        let data_starts = 8 + header_bytes;
        if data_starts > file_bytes {
            return Err(damaged(
                "the file is cut short within its header",
                format!("{file_bytes} bytes"),
                format!("more than {data_starts} bytes"),
            ));
        }
        let mut header = vec![0; header_bytes as usize];
        file.read_exact_at(&mut header, 8).map_err(io)?;
        let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| {
            damaged(
                "the header does not read",
                error.to_string(),
                "names, types, shapes and offsets as JSON".to_owned(),
            )
        })?;
        let expected_bytes = data_starts + metadata.data_len() as u64;
        if expected_bytes != file_bytes {
            return Err(damaged(
                "the file has the wrong size",
                format!("{file_bytes} bytes"),
                format!("{expected_bytes} bytes by its header"),
            ));
        }
        let (mut tensors, mut twice) = (BTreeMap::new(), Vec::new());
        for (name, info) in metadata.tensors() {
            let plain = name.strip_prefix(COMPILED_PREFIX).unwrap_or(&name).to_owned();
            if tensors.insert(plain.clone(), info.clone()).is_some() {
                twice.push(plain);
            }
        }
        Ok(Self { path: path.to_owned(), file, data_starts, tensors, twice })
    }

    fn open_error(path: &Path, source: std::io::Error) -> ModelError {
        if source.kind() != ErrorKind::NotFound {
            return ModelError::File { file: path.to_owned(), source };
        }
        let pickle = path.with_file_name("pytorch_model.bin");
        if !pickle.exists() {
            return ModelError::MissingFile { file: path.to_owned() };
        }
        let command = pickle_conversion_command(&pickle, path);
        ModelError::PickledWeights { file: pickle, command }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Shape of a tensor, if the file has it.
    pub(crate) fn shape(&self, name: &str) -> Option<Vec<i64>> {
        self.tensors.get(name).map(|info| info.shape.iter().map(|&size| size as i64).collect())
    }

    /// Type of a tensor: torch's, or its name where torch's layers cannot use it.
    pub(crate) fn kind(&self, name: &str) -> Result<Kind, String> {
        match self.tensors.get(name).map(|info| info.dtype) {
            Some(Dtype::F32) => Ok(Kind::Float),
            Some(Dtype::F16) => Ok(Kind::Half),
            Some(Dtype::BF16) => Ok(Kind::BFloat16),
            other => Err(other.map_or_else(|| "nothing".to_owned(), |kind| format!("{kind:?}"))),
        }
    }

    /// Reads one tensor into memory, as float32. The caller has checked [`Self::kind`].
    pub(crate) fn read(&self, name: &str) -> Result<Tensor, ModelError> {
        let info = &self.tensors[name];
        let kind = self.kind(name).map_err(|found| ModelError::torch(&format!("{name} is stored as {found}")))?;
        let (start, end) = info.data_offsets;
        let mut bytes = vec![0; end - start];
        self.file
            .read_exact_at(&mut bytes, self.data_starts + start as u64)
            .map_err(|source| ModelError::File { file: self.path.clone(), source })?;
        let shape: Vec<i64> = info.shape.iter().map(|&size| size as i64).collect();
        Ok(Tensor::f_from_data_size(&bytes, &shape, kind)?.f_to_kind(Kind::Float)?)
    }

    /// SHA-256 of the whole file, lowercase hexadecimal.
    pub(crate) fn sha256(&self) -> Result<String, ModelError> {
        sha256(&self.path)
    }
}

/// SHA-256 of a file, lowercase hexadecimal.
pub(crate) fn sha256(path: &Path) -> Result<String, ModelError> {
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
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
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

/// The command that turns a pickle of a state into `model.safetensors`, where PyTorch is installed.
pub fn pickle_conversion_command(pickle: &Path, safetensors: &Path) -> String {
    format!(
        "python3 -c \"import sys, torch; from safetensors.torch import save_file; state = torch.load(sys.argv[1], \
         map_location='cpu', weights_only=True); save_file({{name: tensor.contiguous().clone() for name, tensor in \
         state.items()}}, sys.argv[2])\" {} {}",
        quoted(pickle),
        quoted(safetensors)
    )
}

/// A path as a shell reads it.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}
