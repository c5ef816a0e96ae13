//! Compiles the little C++ that reaches what tch lacks, and passes on where libtorch is, so that this crate's tests and the
//! crates that link a binary (`jobs`, `tests`) can write that folder into their run path.

#![expect(clippy::disallowed_methods, reason = "a build script is told everything through its environment")]

use std::{
    env, fs,
    path::{Path, PathBuf},
};

fn main() {
    let library = PathBuf::from(env::var_os("DEP_TCH_LIBTORCH_LIB").expect("torch-sys names the folder of libtorch"));
    let library = library.canonicalize().unwrap_or_else(|error| {
        panic!("libtorch is not in {}: {error}; run `make setup`, or set LIBTORCH", library.display())
    });
    let include = env::var_os("LIBTORCH_INCLUDE")
        .map_or_else(|| library.join("../include"), |folder| PathBuf::from(folder).join("include"));
    let versions = fitting_torch_versions();
    println!("cargo:rerun-if-changed=shim");
    println!("cargo:rerun-if-changed=src/kernels/normalization.cu");
    // Another libtorch may appear under the same path.
    println!("cargo:rerun-if-changed={}", include.join("torch/csrc/api/include/torch/version.h").display());
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");
    println!("cargo:rerun-if-env-changed=LIBTORCH_CXX11_ABI");
    let abi = env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".to_owned());
    cc::Build::new()
        .cpp(true)
        .pic(true)
        .warnings(false)
        .std("c++20")
        // Torch's inline functions, compiled into this file, would otherwise be exported and override libtorch's own.
        .flag("-fvisibility=hidden")
        .flag("-fvisibility-inlines-hidden")
        .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
        .define("RESTOK_TORCH_VERSIONS", versions.as_str())
        .flag(format!("-isystem{}", include.display()))
        .flag(format!("-isystem{}", include.join("torch/csrc/api/include").display()))
        .include("shim/gloo_declarations")
        .files([
            "shim/torch_switches.cpp",
            "shim/optimizer.cpp",
            "shim/process_group.cpp",
            "shim/profiler.cpp",
            "shim/host_kernels.cpp",
        ])
        .compile("restok_torch_switches");
    println!("cargo:rustc-link-lib=torch_cpu");
    println!("cargo:rustc-link-lib=c10");

    // Read by the build scripts of the crates that depend on this one, as DEP_RESTOK_TORCH_SWITCHES_LIBTORCH_LIB.
    println!("cargo:libtorch_lib={}", library.display());
    // A run path is not inherited from a library: every crate with executables writes its own.
    println!("cargo:rustc-link-arg=-Wl,--disable-new-dtags,-rpath,{}", library.display());
}

/// The versions of libtorch that fit the release of tch in Cargo.lock, by `tools/torch-versions.txt`, as a condition over the macros of
/// torch's own header. `tools/cargo.sh` chooses the release; this holds whoever calls cargo without it to the same table.
fn fitting_torch_versions() -> String {
    // By name, not through `..`: the workspace that tools/cargo.sh makes consists of links, and each has its own Cargo.lock.
    let manifest = env::var("CARGO_MANIFEST_DIR").expect("cargo names the package");
    let workspace = Path::new(&manifest).parent().expect("the package lies in the workspace");
    let read = |name: &str| {
        let file = workspace.join(name);
        println!("cargo:rerun-if-changed={}", file.display());
        fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    };
    let (lock, table) = (read("Cargo.lock"), read("tools/torch-versions.txt"));
    let locked = lock
        .lines()
        .skip_while(|line| *line != "name = \"tch\"")
        .find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'))
        .expect("Cargo.lock names tch");
    let mut fitting = Vec::new();
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let mut columns = line.split_whitespace();
        if let (Some((major, minor)), Some(tch)) =
            (columns.next().and_then(|column| column.split_once('.')), columns.next())
            && tch == locked
        {
            fitting.push(format!("(TORCH_VERSION_MAJOR == {major} && TORCH_VERSION_MINOR == {minor})"));
        }
    }
    assert!(!fitting.is_empty(), "tools/torch-versions.txt names no libtorch for tch {locked}, which Cargo.lock has");
    fitting.join("||").replace(' ', "")
}
