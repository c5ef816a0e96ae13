//! The key of an image, the same whichever layout it came from.
//!
//! An image is known by its stem: `train/n01440764/n01440764_10026.JPEG` in a folder, the member `n01440764_10026.jpg` of a
//! tar, and the Parquet path `n01440764_10026_n01440764.JPEG` are all `n01440764_10026`.

use serde::{Deserialize, Serialize};

/// How an image's key is made from its place in the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageIdRule {
    /// The file's stem. Right for ImageNet in any layout, and the only rule that joins across layouts.
    #[default]
    Stem,
    /// The path below the source without its extension, for sets whose stems repeat (`cats/001`, `dogs/001`, or shards that
    /// each count from zero).
    Path,
    /// Where the image lies: a file's path with its extension, or the shard's or file's path without and the number of the row in it. It
    /// tells any two images of a source apart, whatever they are called.
    Position,
}

impl ImageIdRule {
    /// The rule's name in settings and plans.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stem => "stem",
            Self::Path => "path",
            Self::Position => "position",
        }
    }

    /// The key of an image that is a file of its own, at `path` below the source.
    pub fn of_file(self, path: &str) -> String {
        match self {
            Self::Stem => stem(path).to_owned(),
            Self::Path => without_extension(path).to_owned(),
            Self::Position => path.to_owned(),
        }
    }

    /// The key of the image in row `row` of the shard or Parquet file at `path` below the source; `name` is what the image is called
    /// there, if it has a name.
    pub fn of_row(self, path: &str, row: u64, name: Option<&str>) -> String {
        let shard = || without_extension(path.rsplit('/').next().unwrap_or(path));
        match (self, name) {
            (Self::Position, _) => format!("{}/{row:08}", without_extension(path)),
            (Self::Stem | Self::Path, Some(name)) => self.of_file(&format!("{}/{name}", shard())),
            (Self::Stem | Self::Path, None) => format!("{}-row-{row}", shard()),
        }
    }
}

/// The file's name without folders and extension; the synset that the hub's ImageNet repeats at the end is dropped.
fn stem(path: &str) -> &str {
    let name = path.rsplit('/').next().unwrap_or(path);
    let stem = without_extension(name);
    // `n01440764_10026_n01440764` and `ILSVRC2012_val_00000293_n01440764`: the hub's Parquet appends the class.
    match stem.rsplit_once('_') {
        Some((front, last)) if is_synset(last) && !front.is_empty() => front,
        _ => stem,
    }
}

fn without_extension(path: &str) -> &str {
    let name_starts = path.rfind('/').map_or(0, |slash| slash + 1);
    match path[name_starts..].rfind('.') {
        Some(dot) if dot > 0 => &path[..name_starts + dot],
        _ => path,
    }
}

/// A WordNet id as ImageNet writes it: `n` and eight digits.
fn is_synset(text: &str) -> bool {
    text.len() == 9 && text.starts_with('n') && text[1..].bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_imagenet_image_has_one_stem_in_every_layout() {
        for path in [
            "n01440764/n01440764_10026.JPEG",
            "imagenet1k-train-0000/n01440764_10026.jpg",
            "train-00000-of-00294/n01440764_10026_n01440764.JPEG",
        ] {
            assert_eq!(ImageIdRule::Stem.of_file(path), "n01440764_10026");
        }
        assert_eq!(ImageIdRule::Stem.of_file("ILSVRC2012_val_00000293_n01440764.JPEG"), "ILSVRC2012_val_00000293");
    }

    #[test]
    fn a_path_key_keeps_folders_and_inner_dots() {
        assert_eq!(ImageIdRule::Path.of_file("cats/a.b/001.x.png"), "cats/a.b/001.x");
        assert_eq!(ImageIdRule::Stem.of_file("cats/a.b/.hidden"), ".hidden");
        assert_eq!(ImageIdRule::Stem.of_file("n01440764"), "n01440764");
    }

    #[test]
    fn a_row_is_known_by_its_name_or_by_its_place() {
        let of_row = |rule: ImageIdRule, name| rule.of_row("b/train-0001.tar", 12, name);
        assert_eq!(of_row(ImageIdRule::Stem, Some("c/x.jpg")), "x");
        assert_eq!(of_row(ImageIdRule::Path, Some("c/x.jpg")), "train-0001/c/x");
        assert_eq!(of_row(ImageIdRule::Path, None), "train-0001-row-12");
        assert_eq!(of_row(ImageIdRule::Position, Some("c/x.jpg")), "b/train-0001/00000012");
        assert_eq!(ImageIdRule::Position.of_file("c/x.jpg"), "c/x.jpg");
    }
}
