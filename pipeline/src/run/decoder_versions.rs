//! Which decoders made the pixels.

/// Image decoders and their versions, as every file's metadata names them: pixels, and so tokens, depend on them.
pub fn decoder_versions() -> &'static str {
    // Neither crate says its version at run time; the test holds this to Cargo.lock.
    "libjpeg-turbo 3.1.0 (turbojpeg-sys 1.2.0), image 0.25.10"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_are_those_that_are_locked() {
        let lock = include_str!("../../../Cargo.lock");
        for name in ["turbojpeg-sys", "image"] {
            let (_, version) = decoder_versions().split_once(&format!("{name} ")).expect("named");
            let version = version.split([')', ',']).next().unwrap_or_default();
            let locked = format!("name = \"{name}\"\nversion = \"{version}\"\n");
            assert!(lock.contains(&locked), "{name} {version} is not what Cargo.lock says");
        }
    }
}
