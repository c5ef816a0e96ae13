//! NVIDIA's run-time compiler, which comes with PyTorch's CUDA wheel and needs no GPU.

use crate::shared_library::{Library, Problem, folder_of, functions};
use std::{
    ffi::{CStr, CString, c_char, c_int, c_void},
    fmt, fs,
    path::{Path, PathBuf},
    ptr,
};

type Status = c_int;
type Handle = *mut c_void;

functions! {
    struct Functions {
        version: c"nvrtcVersion" unsafe extern "C" fn(*mut c_int, *mut c_int) -> Status,
        architecture_count: c"nvrtcGetNumSupportedArchs" unsafe extern "C" fn(*mut c_int) -> Status,
        architectures: c"nvrtcGetSupportedArchs" unsafe extern "C" fn(*mut c_int) -> Status,
        error_text: c"nvrtcGetErrorString" unsafe extern "C" fn(Status) -> *const c_char,
        create: c"nvrtcCreateProgram" unsafe extern "C" fn(
            *mut Handle, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char,
        ) -> Status,
        compile: c"nvrtcCompileProgram" unsafe extern "C" fn(Handle, c_int, *const *const c_char) -> Status,
        destroy: c"nvrtcDestroyProgram" unsafe extern "C" fn(*mut Handle) -> Status,
        log_size: c"nvrtcGetProgramLogSize" unsafe extern "C" fn(Handle, *mut usize) -> Status,
        log: c"nvrtcGetProgramLog" unsafe extern "C" fn(Handle, *mut c_char) -> Status,
        binary_size: c"nvrtcGetCUBINSize" unsafe extern "C" fn(Handle, *mut usize) -> Status,
        binary: c"nvrtcGetCUBIN" unsafe extern "C" fn(Handle, *mut c_char) -> Status,
        assembly_size: c"nvrtcGetPTXSize" unsafe extern "C" fn(Handle, *mut usize) -> Status,
        assembly: c"nvrtcGetPTX" unsafe extern "C" fn(Handle, *mut c_char) -> Status,
    }
}

/// The compiler.
pub(super) struct Nvrtc {
    functions: Functions,
    version: (c_int, c_int),
    /// Compute capabilities that it knows, as 90 for 9.0.
    architectures: Vec<c_int>,
}

/// What is compiled: machine code for one architecture, or assembly that the driver compiles for a GPU that is newer than the compiler. The
/// driver takes both through the same door.
#[derive(Debug)]
pub(super) struct Binary {
    pub(super) bytes: Vec<u8>,
    /// What the compiler said: empty, but for options that make it talk.
    #[cfg_attr(not(test), expect(dead_code, reason = "read by the test that counts registers"))]
    pub(super) log: String,
}

impl Nvrtc {
    /// The one that libtorch is linked to, else one that lies beside libtorch or where PyTorch's wheel has it, else the system's.
    pub(super) fn find() -> Result<Self, Problem> {
        let torch = Library::process().symbol(c"_ZN2at13globalContextEv").ok().and_then(folder_of);
        let mut candidates = Vec::new();
        if let Some(torch) = &torch {
            // A small library of torch's, linked to the compiler of the same wheel; symbols are found through it.
            candidates.push(torch.join("libcaffe2_nvrtc.so"));
            candidates.extend(compilers_in(torch));
            if let Ok(packages) = fs::read_dir(torch.join("../../nvidia")) {
                let mut folders: Vec<PathBuf> = packages.flatten().map(|package| package.path().join("lib")).collect();
                folders.sort();
                candidates.extend(folders.iter().flat_map(|folder| compilers_in(folder)));
            }
        }
        candidates.extend(["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"].map(PathBuf::from));
        let mut first_problem = None;
        for candidate in &candidates {
            match Self::open(candidate) {
                Ok(compiler) => return Ok(compiler),
                Err(problem) => first_problem.get_or_insert(problem),
            };
        }
        let reason = first_problem.map_or_else(String::new, |problem| format!(" ({problem})"));
        Err(Problem::new(format!(
            "NVRTC is not to be found{reason}: it comes with PyTorch's CUDA wheel, as nvidia-cuda-nvrtc"
        )))
    }

    /// `file`: `libnvrtc.so.…`, or a library that is linked to it.
    pub(super) fn open(file: &Path) -> Result<Self, Problem> {
        let library = Library::open(file)?;
        let functions = Functions::of(library)?;
        let (mut major, mut minor, mut count) = (0, 0, 0);
        #[expect(unsafe_code, reason = "signatures of nvrtc.h; the vector has as many numbers as the library says")]
        let architectures = unsafe {
            let mut statuses =
                vec![(functions.version)(&mut major, &mut minor), (functions.architecture_count)(&mut count)];
            let mut architectures = vec![0; usize::try_from(count).unwrap_or(0)];
            statuses.push((functions.architectures)(architectures.as_mut_ptr()));
            if statuses.iter().any(|&status| status != 0) {
                return Err(Problem::new(format!("{} does not say what it is: {statuses:?}", file.display())));
            }
            architectures
        };
        // It asks for its other half by name, and finds it by itself only where a path of its own or of the system leads there. One that is
        // loaded already answers to that name.
        if let Some(folder) = library.symbol(c"nvrtcVersion").ok().and_then(folder_of) {
            let half = folder.join(format!("libnvrtc-builtins.so.{major}.{minor}"));
            if half.exists() {
                Library::open(&half)?;
            }
        }
        Ok(Self { functions, version: (major, minor), architectures })
    }

    /// Compiles `source` with `macros` (`NAME=value`) for a compute capability, 90 for 9.0.
    pub(super) fn compile(&self, source: &str, macros: &[String], capability: c_int) -> Result<Binary, Problem> {
        self.compile_with(source, macros, capability, &[])
    }

    /// The same with more options.
    pub(super) fn compile_with(
        &self,
        source: &str,
        macros: &[String],
        capability: c_int,
        more: &[&str],
    ) -> Result<Binary, Problem> {
        let known = self.architectures.contains(&capability);
        let architecture = match known {
            true => format!("sm_{capability}"),
            false => {
                let older = self.architectures.iter().filter(|&&architecture| architecture < capability).max();
                let older = older.ok_or_else(|| {
                    let (major, minor) = self.version;
                    Problem::new(format!("NVRTC {major}.{minor} knows no GPU as old as sm_{capability}"))
                })?;
                format!("compute_{older}")
            }
        };
        let mut options = vec![format!("--gpu-architecture={architecture}"), "--std=c++17".to_owned()];
        options.extend(macros.iter().map(|text| format!("--define-macro={text}")));
        options.extend(more.iter().map(|&text| text.to_owned()));
        let texts =
            |texts: &[String]| texts.iter().map(|text| text_of(text)).collect::<Result<Vec<CString>, Problem>>();
        let (source, options) = (text_of(source)?, texts(&options)?);
        let options: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        let functions = &self.functions;
        let mut program = Started { functions, handle: ptr::null_mut() };
        #[expect(unsafe_code, reason = "signatures of nvrtc.h; all texts outlive the calls, and there are no headers")]
        let status = unsafe {
            let (headers, names) = (ptr::null(), ptr::null());
            let created =
                (functions.create)(&mut program.handle, source.as_ptr(), c"restok.cu".as_ptr(), 0, headers, names);
            self.check(created, "nvrtcCreateProgram")?;
            let count = c_int::try_from(options.len()).map_err(|error| Problem::new(error.to_string()))?;
            (functions.compile)(program.handle, count, options.as_ptr())
        };
        let log = program.read(functions.log_size, functions.log);
        let log =
            log.map_or_else(|_| String::new(), |log| String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned());
        self.check(status, "nvrtcCompileProgram").map_err(|problem| Problem::new(format!("{problem}\n{log}")))?;
        let (size, bytes) = match known {
            true => (functions.binary_size, functions.binary),
            false => (functions.assembly_size, functions.assembly),
        };
        let bytes =
            program.read(size, bytes).map_err(|status| Problem::new(format!("NVRTC keeps its result: {status}")))?;
        if bytes.is_empty() {
            return Err(Problem::new(format!("NVRTC gives nothing for {architecture}")));
        }
        Ok(Binary { bytes, log })
    }

    fn check(&self, status: Status, what: &str) -> Result<(), Problem> {
        if status == 0 {
            return Ok(());
        }
        #[expect(unsafe_code, reason = "a string that lives as long as the library")]
        let text = unsafe {
            let text = (self.functions.error_text)(status);
            if text.is_null() { String::new() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
        };
        Err(Problem::new(format!("{what}: {text} ({status})")))
    }
}

impl fmt::Debug for Nvrtc {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Nvrtc").field("version", &self.version).finish_non_exhaustive()
    }
}

/// A program that NVRTC holds until this is dropped.
struct Started<'a> {
    functions: &'a Functions,
    handle: Handle,
}

impl Started<'_> {
    /// One of its results, whose size another function tells.
    fn read(
        &self,
        size: unsafe extern "C" fn(Handle, *mut usize) -> Status,
        read: unsafe extern "C" fn(Handle, *mut c_char) -> Status,
    ) -> Result<Vec<u8>, Status> {
        let mut count = 0;
        #[expect(unsafe_code, reason = "signatures of nvrtc.h; the vector has as many bytes as the library says")]
        unsafe {
            let status = size(self.handle, &mut count);
            if status != 0 {
                return Err(status);
            }
            let mut bytes = vec![0_u8; count];
            let status = read(self.handle, bytes.as_mut_ptr().cast());
            if status == 0 { Ok(bytes) } else { Err(status) }
        }
    }
}

impl Drop for Started<'_> {
    fn drop(&mut self) {
        if !self.handle.is_null() {
            #[expect(unsafe_code, reason = "the program was made by nvrtcCreateProgram and is used no more")]
            unsafe {
                (self.functions.destroy)(&mut self.handle);
            }
        }
    }
}

/// `libnvrtc.so.13` in PyTorch's wheels, `libnvrtc-672ee683.so.12` in libtorch's archives; not its other half, nor the variant beside it.
fn compilers_in(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    found.retain(|file| {
        let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        name.starts_with("libnvrtc") && name.contains(".so") && !name.contains("builtins") && !name.contains(".alt.")
    });
    found.sort();
    found.reverse();
    found
}

fn text_of(text: &str) -> Result<CString, Problem> {
    CString::new(text).map_err(|error| Problem::new(error.to_string()))
}
