//! Shared libraries that may or may not be there.

use std::{
    ffi::{CStr, CString, OsStr, c_int, c_void},
    fmt,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

/// Why a library, a function of it, or what it was asked for cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem(String);

impl Problem {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A library that stays loaded as long as the process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Library {
    handle: *mut c_void,
}

impl Library {
    /// By its path, or by its name where the system looks for libraries.
    pub(crate) fn open(file: &Path) -> Result<Self, Problem> {
        Self::open_with(file, libc::RTLD_LOCAL)
    }

    /// The same, and its symbols are there for all that is loaded later.
    pub(crate) fn open_for_all(file: &Path) -> Result<Self, Problem> {
        Self::open_with(file, libc::RTLD_GLOBAL)
    }

    fn open_with(file: &Path, visibility: c_int) -> Result<Self, Problem> {
        let name = CString::new(file.as_os_str().as_bytes()).map_err(|error| Problem::new(error.to_string()))?;
        #[expect(
            unsafe_code,
            reason = "dlopen of a library of torch or CUDA; its error is read at once, on this thread"
        )]
        unsafe {
            let handle = libc::dlopen(name.as_ptr(), libc::RTLD_NOW | visibility);
            if !handle.is_null() {
                return Ok(Self { handle });
            }
            let error = libc::dlerror();
            Err(Problem::new(match error.is_null() {
                true => format!("{} does not load", file.display()),
                false => CStr::from_ptr(error).to_string_lossy().into_owned(),
            }))
        }
    }

    /// What the process has loaded for all to see: libtorch and its CUDA half.
    pub(crate) fn process() -> Self {
        Self { handle: libc::RTLD_DEFAULT }
    }

    /// A symbol of the library, or of one that it is linked to.
    pub(crate) fn symbol(&self, name: &CStr) -> Result<*mut c_void, Problem> {
        #[expect(unsafe_code, reason = "looks a name up in a library that stays loaded")]
        let symbol = unsafe { libc::dlsym(self.handle, name.as_ptr()) };
        if symbol.is_null() {
            return Err(Problem::new(format!("there is no {}", name.to_string_lossy())));
        }
        Ok(symbol)
    }
}

/// The folder of the library that a symbol lies in, links followed.
pub(crate) fn folder_of(symbol: *mut c_void) -> Option<PathBuf> {
    #[expect(unsafe_code, reason = "dladdr fills the zeroed struct, and its string lives as long as the library")]
    let file = unsafe {
        let mut info: libc::Dl_info = std::mem::zeroed();
        if libc::dladdr(symbol, &mut info) == 0 || info.dli_fname.is_null() {
            return None;
        }
        PathBuf::from(OsStr::from_bytes(CStr::from_ptr(info.dli_fname).to_bytes()))
    };
    file.canonicalize().ok()?.parent().map(Path::to_path_buf)
}

/// Declares functions of a C interface as the fields of a struct, and how they are found in a library.
macro_rules! functions {
    ($(#[$attribute:meta])* $visibility:vis struct $name:ident { $($field:ident: $symbol:literal $signature:ty,)* }) => {
        $(#[$attribute])*
        #[derive(Clone, Copy)]
        $visibility struct $name { $($field: $signature,)* }

        impl $name {
            fn of(library: $crate::shared_library::Library) -> Result<Self, $crate::shared_library::Problem> {
                #[expect(unsafe_code, reason = "the signatures are those of the library's public header")]
                Ok(unsafe {
                    Self { $($field: std::mem::transmute::<*mut std::ffi::c_void, $signature>(library.symbol($symbol)?),)* }
                })
            }
        }
    };
}
pub(crate) use functions;
