//! Names in the listings of stores, where they would end the listing.
//!
//! S3, GCS, Azure and WebDAV list in XML, a page a request, and `object_store` refuses a page whole for one name that it could not ask
//! for, or takes the name for another (it cuts a slash or a space at its end). So each page is looked through before
//! the client reads it: such a name is put down in hexadecimal behind a mark, which passes, and [`original`] gives it back.

use object_store::path::Path;
use percent_encoding::{percent_decode, percent_decode_str};
use quick_xml::{
    Reader,
    events::{BytesRef, Event},
};
use std::borrow::Cow;

/// What a name that was put down otherwise begins with. A name that begins so itself is put down otherwise too.
const MARK: &str = "~name~in~hexadecimal~";

/// A page of a listing with every name fit for the client; `None` when all were.
///
/// What is no XML is left to the client to refuse.
pub(super) fn with_fit_names(page: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader::from_reader(page);
    let mut fit = Vec::new();
    let mut copied = 0;
    // Where the name begins that is being read, whether it is escaped as in a URL, and what was read of it.
    let mut name: Option<(usize, bool, Vec<u8>)> = None;
    let mut within = Within::Nothing;
    loop {
        let before = position(&reader);
        match reader.read_event().ok()? {
            Event::Eof => break,
            Event::Start(tag) => match (within, tag.local_name().as_ref()) {
                (Within::Nothing, b"Contents" | b"Blob") => within = Within::Object,
                (Within::Nothing, b"response") => within = Within::Response,
                (Within::Object, b"Key" | b"Name") | (Within::Response, b"href") => {
                    // Azure's word for a name with letters that XML does not allow.
                    let encoded = tag.attributes().flatten().any(|attribute| attribute.key.as_ref() == b"Encoded");
                    name = Some((position(&reader), encoded, Vec::new()));
                }
                _ => {}
            },
            Event::Text(text) => {
                if let Some((.., read)) = &mut name {
                    read.extend_from_slice(&text);
                }
            }
            Event::CData(text) => {
                if let Some((.., read)) = &mut name {
                    read.extend_from_slice(&text);
                }
            }
            Event::GeneralRef(reference) => {
                if let Some((.., read)) = &mut name {
                    let mut utf8 = [0; 4];
                    read.extend_from_slice(letter(&reference)?.encode_utf8(&mut utf8).as_bytes());
                }
            }
            Event::End(tag) => match tag.local_name().as_ref() {
                b"Contents" | b"Blob" | b"response" => within = Within::Nothing,
                b"Key" | b"Name" | b"href" => {
                    if let Some((start, encoded, read)) = name.take()
                        && let Some(put_down) = put_down_otherwise(within, encoded, &read)
                    {
                        fit.extend_from_slice(&page[copied..start]);
                        fit.extend_from_slice(put_down.as_bytes());
                        copied = before;
                    }
                }
                _ => {}
            },
            _ => {}
        }
    }
    (copied > 0).then(|| {
        fit.extend_from_slice(&page[copied..]);
        fit
    })
}

/// The name that stands behind the mark; `None` for a name that is itself.
pub(super) fn original(name: &str) -> Option<Vec<u8>> {
    let digits = name.strip_prefix(MARK)?.as_bytes();
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    digits.chunks(2).map(|pair| Some(digit(*pair.first()?)? << 4 | digit(*pair.get(1)?)?)).collect()
}

/// What the reader is within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    Nothing,
    /// An object of S3, GCS or Azure.
    Object,
    /// A file or folder of WebDAV.
    Response,
}

fn position(reader: &Reader<&[u8]>) -> usize {
    // A page is in memory, so its length fits.
    usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX)
}

/// The letter that a reference stands for, also one that XML does not allow: S3 writes control characters so.
fn letter(reference: &BytesRef<'_>) -> Option<char> {
    if reference.is_char_ref() {
        return reference.resolve_char_ref().ok()?;
    }
    match &**reference {
        b"amp" => Some('&'),
        b"lt" => Some('<'),
        b"gt" => Some('>'),
        b"quot" => Some('"'),
        b"apos" => Some('\''),
        _ => None,
    }
}

/// What to write in the place of a name; `None` when the client takes it as it is.
fn put_down_otherwise(within: Within, encoded: bool, read: &[u8]) -> Option<String> {
    let in_hexadecimal = |name: &[u8]| format!("{MARK}{}", schemas::hex(name));
    match within {
        Within::Object if encoded => Some(in_hexadecimal(&percent_decode(read).collect::<Vec<_>>())),
        // The client trims what it reads.
        Within::Object => {
            let fits = std::str::from_utf8(read).is_ok_and(|name| is_itself(name) && name.trim() == name);
            (!fits).then(|| in_hexadecimal(read))
        }
        // An address or a path, escaped as in a URL. Folders end with a slash; the client leaves them out.
        _ => {
            let address = std::str::from_utf8(read).ok()?.trim();
            let path = match address.split_once("://") {
                Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
                None => address.strip_prefix('/').unwrap_or(address),
            };
            let path = path.split(['?', '#']).next().unwrap_or_default();
            let name: Cow<'_, [u8]> = percent_decode_str(path).into();
            let fits = std::str::from_utf8(&name).is_ok_and(|name| is_itself(name.strip_suffix('/').unwrap_or(name)));
            (!fits).then(|| format!("/{}", in_hexadecimal(&name)))
        }
    }
}

/// Whether the client takes a name for itself and nothing else.
fn is_itself(name: &str) -> bool {
    !name.starts_with(MARK) && Path::parse(name).is_ok_and(|path| path.as_ref() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_of(page: &str) -> Vec<String> {
        let names = page.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
        names.map(str::to_owned).collect()
    }

    #[test]
    fn a_page_of_plain_names_is_left_as_it_is() {
        let page = "<ListBucketResult><Prefix>a//</Prefix><Contents><Key>a/b &amp; c.jpg</Key><Size>1</Size></Contents></ListBucketResult>";
        assert_eq!(with_fit_names(page.as_bytes()), None);
        assert_eq!(with_fit_names(b"no XML at all <"), None);
    }

    #[test]
    fn names_that_the_client_would_refuse_or_change_pass_and_come_back() {
        let names = [
            "a//b.jpg",
            "a/./b.jpg",
            "a/../b",
            "/lead.jpg",
            "folder/",
            "a\nb.jpg",
            " a.jpg ",
            "a\u{1}b",
            "~name~in~hexadecimal~61",
        ];
        let written = |name: &str| name.replace('\u{1}', "&#x1;").replace('\n', "&#10;");
        let contents: String = names
            .iter()
            .map(|name| {
                format!(
                    "<Contents><Key>{}</Key><ETag>&quot;1&quot;</ETag></Contents><Contents><Key>plain</Key></Contents>",
                    written(name)
                )
            })
            .collect();
        let page =
            format!("<?xml version=\"1.0\"?><ListBucketResult><Name>bucket//</Name>{contents}</ListBucketResult>");
        let fit = String::from_utf8(with_fit_names(page.as_bytes()).expect("some names do not fit")).expect("text");
        let found = names_of(&fit);
        assert_eq!(found.len(), 2 * names.len());
        for (at, name) in names.iter().enumerate() {
            assert_eq!(Path::parse(&found[2 * at]).expect("fit").as_ref(), found[2 * at]);
            assert_eq!(original(&found[2 * at]).as_deref(), Some(name.as_bytes()), "{name:?}");
            assert_eq!((found[2 * at + 1].as_str(), original(&found[2 * at + 1])), ("plain", None));
        }
        assert!(
            fit.starts_with("<?xml version=\"1.0\"?><ListBucketResult><Name>bucket//</Name>")
                && fit.contains("&quot;1&quot;")
        );
    }

    #[test]
    fn addresses_of_webdav_are_looked_through_as_they_are_escaped() {
        let page = "<D:multistatus xmlns:D=\"DAV:\"><D:response><D:href>/a/b%20c.jpg</D:href></D:response>\
                    <D:response><D:href>/a/</D:href></D:response><D:response><D:href>https://host/a/%FF.jpg</D:href></D:response>\
                    <D:response><D:href>/a//d.jpg</D:href></D:response></D:multistatus>";
        let fit = String::from_utf8(with_fit_names(page.as_bytes()).expect("two do not fit")).expect("text");
        let names: Vec<_> = fit.split("<D:href>/").skip(1).filter_map(|rest| rest.split("</D:href>").next()).collect();
        assert_eq!((names[0], names[1]), ("a/b%20c.jpg", "a/"));
        assert_eq!(original(names[2]).as_deref(), Some(&b"a/\xff.jpg"[..]));
        assert_eq!(original(names[3]).as_deref(), Some(&b"a//d.jpg"[..]));
    }
}
