//! What lies where a weight file should be: told by its first bytes, so that the error says what happened and not where parsing stopped.

/// First bytes that are looked at.
pub(crate) const LOOKED_AT: usize = 512;

/// What something begins with that is no safetensors file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Foreign {
    /// A pickle of PyTorch, of either kind.
    Pickle,
    /// Something else: what it is, and what to do.
    Other {
        /// In words.
        what: String,
        /// In words.
        advice: &'static str,
    },
}

const FETCH_AGAIN: &str = "download or copy it again";
const CONVERT: &str = "convert the weights to safetensors";

/// Formats that are told by their first bytes.
const MAGIC: [(&[u8], &str, &str); 9] = [
    (b"GGUF", "a GGUF file", CONVERT),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", CONVERT),
    (b"\x93NUMPY", "a NumPy array", CONVERT),
    (b"\x1f\x8b", "a gzip archive", "unpack it"),
    (b"\x28\xb5\x2f\xfd", "compressed by Zstandard", "unpack it"),
    (b"\xfd7zXZ\0", "compressed by xz", "unpack it"),
    (b"PAR1", "a Parquet file", "give the file of the weights"),
    (b"\x89PNG", "a PNG picture", "give the file of the weights"),
    (b"\xff\xd8\xff", "a JPEG picture", "give the file of the weights"),
];

impl Foreign {
    /// By the first bytes of something that has no sound start of a safetensors file; nothing where they tell nothing.
    pub(crate) fn of(start: &[u8]) -> Option<Self> {
        let other = |what: &str, advice| Some(Self::Other { what: what.to_owned(), advice });
        if start.is_empty() {
            return other("empty", FETCH_AGAIN);
        }
        if start.len() >= 8 && start.iter().all(|&byte| byte == 0) {
            return other("zeros, as an unfinished download leaves them", FETCH_AGAIN);
        }
        if let [0x80, 2..=5, ..] = start {
            return Some(Self::Pickle);
        }
        if start.starts_with(b"PK\x03\x04") {
            return Some(of_zip(start));
        }
        if let Some((_, what, advice)) = MAGIC.iter().find(|(magic, ..)| start.starts_with(magic)) {
            return other(what, advice);
        }
        of_text(start)
    }
}

/// A ZIP archive by the name of its first member: PyTorch's has a folder with `data.pkl`.
fn of_zip(start: &[u8]) -> Foreign {
    let length = start.get(26..28).map_or(0, |bytes| usize::from(u16::from_le_bytes([bytes[0], bytes[1]])));
    let name = start.get(30..30 + length).unwrap_or_default();
    let other = |what: &str, advice| Foreign::Other { what: what.to_owned(), advice };
    match name {
        name if name.ends_with(b".npy") => other("an archive of NumPy arrays", CONVERT),
        // Cut short, it is most likely what weights are kept in.
        name if name.is_empty()
            || [&b"data.pkl"[..], b".format_version", b"byteorder"].iter().any(|end| name.ends_with(end)) =>
        {
            Foreign::Pickle
        }
        _ => other("a ZIP archive", "unpack it; what torch.save wrote is converted to safetensors"),
    }
}

fn of_text(start: &[u8]) -> Option<Foreign> {
    let other = |what: String, advice| Some(Foreign::Other { what, advice });
    // The end may be in the middle of a letter.
    let text = match std::str::from_utf8(start) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&start[..error.valid_up_to()]).ok()?,
        Err(_) => return None,
    };
    if text.chars().any(|letter| letter.is_control() && !letter.is_whitespace()) {
        return None;
    }
    let text = text.trim_start_matches('\u{feff}').trim_start();
    if text.starts_with("version https://git-lfs.github.com/spec/") {
        let size = text.lines().find_map(|line| line.strip_prefix("size ")).unwrap_or("unknown").trim();
        return other(
            format!("a Git LFS pointer to {size} bytes, not the bytes themselves"),
            "fetch them with git lfs pull, or download the file from its page",
        );
    }
    if text.contains("/annex/objects/") {
        return other("a git-annex pointer, not the bytes themselves".to_owned(), "fetch them with git annex get");
    }
    let lower = text.to_lowercase();
    if lower.starts_with("<!doctype html") || lower.starts_with("<html") {
        return other("an HTML page".to_owned(), "the address led to a page, not to the file: download it again");
    }
    if text.starts_with('<') {
        return other("an XML or HTML text".to_owned(), "the server answered an error: download it again");
    }
    if text.starts_with(['{', '[']) {
        let what = match text.contains("\"weight_map\"") || text.contains("\"total_size\"") {
            true => "the index of a sharded checkpoint",
            false => "a JSON text",
        };
        return other(what.to_owned(), "give the file of the weights; an index of shards is named *.index.json");
    }
    let line: String = text.lines().next().unwrap_or_default().chars().take(60).collect();
    other(format!("a text that begins {line:?}"), FETCH_AGAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first member of a ZIP archive.
    fn zip(name: &[u8]) -> Vec<u8> {
        let mut bytes = b"PK\x03\x04".to_vec();
        bytes.resize(26, 0);
        bytes.extend([name.len() as u8, 0, 0, 0]);
        bytes.extend(name);
        bytes
    }

    #[test]
    fn what_is_no_weight_file_is_told_by_its_first_bytes() {
        for pickle in [&b"\x80\x02}q\0"[..], b"\x80\x04\x95", &zip(b"archive/data.pkl"), &zip(b"model/.format_version")]
        {
            assert_eq!(Foreign::of(pickle), Some(Foreign::Pickle), "{pickle:?}");
        }
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1297001\n";
        for (start, words) in [
            (&b""[..], "empty"),
            (&[0; 16], "unfinished download"),
            (&zip(b"arr_0.npy"), "NumPy"),
            (&zip(b"readme"), "ZIP"),
            (pointer, "Git LFS pointer to 1297001 bytes"),
            (b"../../.git/annex/objects/aa/bb", "git-annex"),
            (b"\xef\xbb\xbf\r\n<!DOCTYPE html><html>", "HTML page"),
            (b"<HTML><head>", "HTML page"),
            (b"<?xml version='1.0'?><Error>", "XML"),
            (b"{\"metadata\": {\"total_size\": 1}", "index of a sharded"),
            (b"{\"error\": \"gated\"}", "JSON"),
            (b"Entry not found", "\"Entry not found\""),
            (b"GGUF\x03\0\0\0", "GGUF"),
        ] {
            let Some(Foreign::Other { what, .. }) = Foreign::of(start) else { panic!("{words}") };
            assert!(what.contains(words), "{words}: {what}");
        }
        // Cut within a letter.
        assert!(matches!(Foreign::of(b"caf\xc3"), Some(Foreign::Other { .. })));
        assert_eq!(Foreign::of(b"\xde\xad\xbe\xef\x01\x02\x03\x04"), None);
    }
}
