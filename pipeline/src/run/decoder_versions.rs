//! Which decoders made the pixels.

/// Image decoders and their versions, as every file's metadata names them: pixels, and so tokens, depend on them.
pub fn decoder_versions() -> &'static str {
    // No crate says its version at run time; the test holds this to Cargo.lock.
    "libjpeg-turbo 3.1.0 (turbojpeg-sys 1.2.0), png 0.18.1, image-webp 0.2.4, weezl 0.1.12, fax 0.2.7"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_versions_are_those_that_are_locked() {
        let lock = include_str!("../../../Cargo.lock");
        for name in ["turbojpeg-sys", "png", "image-webp", "weezl", "fax"] {
            let (_, version) = decoder_versions().split_once(&format!("{name} ")).expect("named");
            let version = version.split([')', ',']).next().unwrap_or_default();
            let locked = format!("name = \"{name}\"\nversion = \"{version}\"\n");
            assert!(lock.contains(&locked), "{name} {version} is not what Cargo.lock says");
        }
    }
}
