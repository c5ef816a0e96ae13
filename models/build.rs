//! Compiles the little C++ that reaches what tch lacks, and passes on where libtorch is, so that this crate's tests and the
//! crates that link a binary (`jobs`, `tests`) can write that folder into their run path.

#![expect(clippy::disallowed_methods, reason = "a build script is told everything through its environment")]

use std::{env, path::PathBuf};

fn main() {
    let library = PathBuf::from(env::var_os("DEP_TCH_LIBTORCH_LIB").expect("torch-sys names the folder of libtorch"));
    let library = library.canonicalize().unwrap_or_else(|error| {
        panic!("libtorch is not in {}: {error}; run `make setup`, or set LIBTORCH", library.display())
    });
    let include = env::var_os("LIBTORCH_INCLUDE")
        .map_or_else(|| library.join("../include"), |folder| PathBuf::from(folder).join("include"));
    println!("cargo:rerun-if-changed=shim");
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
        .flag(format!("-isystem{}", include.display()))
        .flag(format!("-isystem{}", include.join("torch/csrc/api/include").display()))
        .files(["shim/torch_switches.cpp", "shim/optimizer.cpp"])
        .compile("restok_torch_switches");
    println!("cargo:rustc-link-lib=torch_cpu");
    println!("cargo:rustc-link-lib=c10");

    // Read by the build scripts of the crates that depend on this one, as DEP_RESTOK_TORCH_SWITCHES_LIBTORCH_LIB.
    println!("cargo:libtorch_lib={}", library.display());
    // A run path is not inherited from a library: every crate with executables writes its own.
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", library.display());
}
