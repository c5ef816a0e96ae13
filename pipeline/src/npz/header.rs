//! The header of an array file: what its bytes mean. Source: numpy.lib.format, versions 1.0, 2.0 and 3.0.
//!
//! Strict: a header that says anything else than these three things, or says one twice, is none that numpy writes, and what it means
//! is not guessed.

use std::io::{self, Read};

/// What an array file begins with.
const MAGIC: &[u8] = b"\x93NUMPY";

/// Longest header that is read; numpy itself reads 10,000 bytes.
const MOST_BYTES: u32 = 1 << 16;

/// Headers are padded so that elements begin at a multiple of this.
const ALIGNMENT: usize = 64;

/// Digits for which numpy leaves room in a header, so that an array can grow along its first axis in place.
const GROWTH_DIGITS: usize = 21;

/// What an array is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NpyHeader {
    /// Type of an element as numpy writes it: `|u1`, `<f8`.
    pub(crate) descr: String,
    /// Whether the first axis varies fastest.
    pub(crate) fortran_order: bool,
    pub(crate) shape: Vec<u64>,
    /// Bytes of the header: where the elements begin.
    pub(crate) bytes: u64,
}

/// Why there is no header.
#[derive(Debug)]
pub(crate) enum HeaderFault {
    /// The bytes could not be had.
    Read(io::Error),
    /// They are not what they must be; what was found and what was expected.
    Wrong(String),
}

impl From<io::Error> for HeaderFault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Self::Wrong("it ends within its header".to_owned()),
            _ => Self::Read(error),
        }
    }
}

impl NpyHeader {
    /// Reads a header; the reader then stands at the first element.
    pub(crate) fn read(reader: &mut impl Read) -> Result<Self, HeaderFault> {
        let mut front = [0; 8];
        reader.read_exact(&mut front)?;
        if !front.starts_with(MAGIC) {
            return Err(HeaderFault::Wrong("it is no array: it does not begin with \\x93NUMPY".to_owned()));
        }
        let (length, around) = match front[6..] {
            [1, 0] => {
                let mut length = [0; 2];
                reader.read_exact(&mut length)?;
                (u32::from(u16::from_le_bytes(length)), 10)
            }
            [2 | 3, 0] => {
                let mut length = [0; 4];
                reader.read_exact(&mut length)?;
                (u32::from_le_bytes(length), 12)
            }
            [major, minor, ..] => {
                let problem = format!("array format {major}.{minor}, expected 1.0, 2.0 or 3.0");
                return Err(HeaderFault::Wrong(problem));
            }
            _ => unreachable!("two bytes are left"),
        };
        if length > MOST_BYTES {
            let problem = format!("an array header of {length} bytes, expected at most {MOST_BYTES}");
            return Err(HeaderFault::Wrong(problem));
        }
        let mut text = vec![0; length as usize];
        reader.read_exact(&mut text)?;
        let text = String::from_utf8_lossy(&text);
        let header = Literal(&text)
            .header()
            .map_err(|problem| HeaderFault::Wrong(format!("{problem} in the array header {:?}", text.trim_end())))?;
        Ok(Self { bytes: u64::from(length) + around, ..header })
    }

    /// The header of an array in C order, byte for byte as `numpy.save` writes it (version 1.0).
    pub(crate) fn encode(descr: &str, shape: &[u64]) -> Vec<u8> {
        let axes: Vec<String> = shape.iter().map(ToString::to_string).collect();
        let comma = if axes.len() == 1 { "," } else { "" };
        let mut header =
            format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}{comma}), }}", axes.join(", "));
        let growth = axes.first().map_or(0, |first| GROWTH_DIGITS.saturating_sub(first.len()));
        header.push_str(&" ".repeat(growth));
        // The version's and the length's two bytes each, and the line end, count as well.
        let unpadded = MAGIC.len() + 4 + header.len() + 1;
        header.push_str(&" ".repeat(unpadded.next_multiple_of(ALIGNMENT) - unpadded));
        header.push('\n');
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&[1, 0]);
        bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
        bytes.extend_from_slice(header.as_bytes());
        bytes
    }
}

/// The rest of a Python literal.
struct Literal<'a>(&'a str);

impl<'a> Literal<'a> {
    /// `{'descr': '|u1', 'fortran_order': False, 'shape': (5, 2, 3, 3), }`, keys in any order.
    fn header(mut self) -> Result<NpyHeader, String> {
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        self.expect("{")?;
        while !self.take("}") {
            let key = self.text()?;
            self.expect(":")?;
            let again = match key {
                "descr" => descr.replace(self.descr()?.to_owned()).is_some(),
                "fortran_order" => fortran_order.replace(self.truth()?).is_some(),
                "shape" => shape.replace(self.tuple()?).is_some(),
                _ => return Err(format!("unknown key {key:?}")),
            };
            if again {
                return Err(format!("{key:?} twice"));
            }
            if !self.take(",") {
                self.expect("}")?;
                break;
            }
        }
        if !self.0.trim().is_empty() {
            return Err(format!("{:?} behind the end", self.0.trim()));
        }
        let missing = |key: &str| format!("no {key:?}");
        Ok(NpyHeader {
            descr: descr.ok_or_else(|| missing("descr"))?,
            fortran_order: fortran_order.ok_or_else(|| missing("fortran_order"))?,
            shape: shape.ok_or_else(|| missing("shape"))?,
            bytes: 0,
        })
    }

    fn take(&mut self, token: &str) -> bool {
        self.0 = self.0.trim_start();
        match self.0.strip_prefix(token) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.take(token) { Ok(()) } else { Err(format!("{:?} where {token:?} must be", self.next())) }
    }

    /// The next letters, for errors.
    fn next(&self) -> String {
        self.0.trim_start().chars().take(12).collect()
    }

    fn text(&mut self) -> Result<&'a str, String> {
        for quote in ["'", "\""] {
            if self.take(quote) {
                let (text, rest) = self.0.split_once(quote).ok_or("a text without an end")?;
                self.0 = rest;
                return Ok(text);
            }
        }
        Err(format!("{:?} where a text must be", self.next()))
    }

    fn descr(&mut self) -> Result<&'a str, String> {
        if self.0.trim_start().starts_with('[') {
            return Err("a structured type".to_owned());
        }
        self.text()
    }

    fn truth(&mut self) -> Result<bool, String> {
        if self.take("True") {
            Ok(true)
        } else if self.take("False") {
            Ok(false)
        } else {
            Err(format!("{:?} where True or False must be", self.next()))
        }
    }

    fn tuple(&mut self) -> Result<Vec<u64>, String> {
        let mut numbers = Vec::new();
        self.expect("(")?;
        while !self.take(")") {
            self.0 = self.0.trim_start();
            let digits = self.0.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(self.0.len());
            let (number, rest) = self.0.split_at(digits);
            numbers.push(number.parse().map_err(|_| format!("{:?} where a length must be", self.next()))?);
            self.0 = rest;
            if !self.take(",") {
                self.expect(")")?;
                break;
            }
        }
        Ok(numbers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(version: [u8; 2], header: &str) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&version);
        match version[0] {
            1 => bytes.extend_from_slice(&(header.len() as u16).to_le_bytes()),
            _ => bytes.extend_from_slice(&(header.len() as u32).to_le_bytes()),
        }
        bytes.extend_from_slice(header.as_bytes());
        bytes
    }

    fn refused(bytes: &[u8]) -> String {
        match NpyHeader::read(&mut &bytes[..]) {
            Err(HeaderFault::Wrong(problem)) => problem,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_version_and_every_order_of_keys_is_read() {
        let shape = vec![5, 2, 3, 3];
        let numpy = "{'descr': '|u1', 'fortran_order': False, 'shape': (5, 2, 3, 3), }      \n";
        let other = "{\"shape\":(5,2,3,3),\"descr\":\"|u1\",\"fortran_order\":False}";
        for (version, around) in [([1, 0], 10), ([2, 0], 12), ([3, 0], 12)] {
            for header in [numpy, other] {
                let mut bytes = file(version, header);
                bytes.push(7);
                let mut rest = &bytes[..];
                let found = NpyHeader::read(&mut rest).expect("a header");
                let bytes = header.len() as u64 + around;
                assert_eq!(
                    found,
                    NpyHeader { descr: "|u1".to_owned(), fortran_order: false, shape: shape.clone(), bytes }
                );
                assert_eq!(rest, [7], "the reader stands at the first element");
            }
        }
    }

    #[test]
    fn what_is_written_is_what_numpy_writes() {
        // numpy leaves room for the first axis to grow: 192 bytes, where the text alone would fit 128.
        assert_eq!(NpyHeader::encode("<f8", &[2048]).len(), 128);
        assert_eq!(NpyHeader::encode("<f8", &[1; 16]).len(), 192);
        // numpy.save of zeros(2048) and of zeros((2, 3), float32), numpy 2.4.
        for (descr, shape, text) in
            [("<f8", &[2048_u64][..], "(2048,)"), ("<f4", &[2, 3], "(2, 3)"), ("<f8", &[], "()")]
        {
            let bytes = NpyHeader::encode(descr, shape);
            let front = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {text}, }}");
            assert_eq!(bytes[10..10 + front.len()], *front.as_bytes());
            assert!(bytes.len().is_multiple_of(64) && bytes.ends_with(b" \n"));
            let found = NpyHeader::read(&mut &bytes[..]).expect("a header");
            assert_eq!(
                found,
                NpyHeader {
                    descr: descr.to_owned(),
                    fortran_order: false,
                    shape: shape.to_vec(),
                    bytes: bytes.len() as u64
                }
            );
        }
    }

    #[test]
    fn other_headers_are_refused_with_what_was_found() {
        for (header, words) in [
            ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", "a structured type"),
            ("{'descr': '|u1', 'fortran_order': 0, 'shape': (1,), }", "True or False"),
            ("{'descr': '|u1', 'shape': (1,), }", "no \"fortran_order\""),
            ("{'descr': '|u1', 'descr': '|u1', 'fortran_order': False, 'shape': (1,), }", "\"descr\" twice"),
            ("{'descr': '|u1', 'fortran_order': False, 'shape': (-1,), }", "a length must be"),
            ("{'descr': '|u1', 'fortran_order': False, 'shape': (1,), 'x': 1}", "unknown key \"x\""),
            ("{'descr': '|u1', 'fortran_order': False, 'shape': (1,), } + 1", "behind the end"),
            ("{'descr': '|u1', 'fortran_order': False, 'shape': (1,)", "where \"}\" must be"),
        ] {
            let problem = refused(&file([1, 0], header));
            assert!(problem.contains(words) && problem.contains("array header"), "{problem}");
        }
        assert!(refused(b"PK\x03\x04 no array at all").contains("no array"));
        assert!(refused(&file([4, 0], "{}")).contains("format 4.0"));
        assert!(refused(&file([1, 0], "{}")[..11]).contains("ends within its header"));
        let mut long = file([2, 0], "{}");
        long[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(refused(&long).contains("4294967295 bytes"));
    }
}
