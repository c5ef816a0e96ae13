//! Writes the folder of libtorch into the binary's run path, so that it starts without LD_LIBRARY_PATH.

#![expect(clippy::disallowed_methods, reason = "a build script is told everything through its environment")]

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let folder =
        std::env::var("DEP_RESTOK_TORCH_SWITCHES_LIBTORCH_LIB").expect("the build of `models` names libtorch's folder");
    // Old tags: before LD_LIBRARY_PATH, which may name another version of libtorch. After it where the folder is not there.
    println!("cargo:rustc-link-arg=-Wl,--disable-new-dtags,-rpath,{folder}");
}
