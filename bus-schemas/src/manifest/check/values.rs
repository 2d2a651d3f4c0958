//! Values that only process templates have: rates, ends, sources, and paths below a folder.

use serde_json::Value as Json;

use super::scalars::{Bad, Read};
use super::walk::not_supported;
use crate::ids::Sha256;
use crate::manifest::finding::FindingCode;
use crate::manifest::tree::Scalar;
use crate::quantity::Size;
use crate::spec::ExitStatus;

/// `NAME_MAX` of Linux, and far more than paths below a folder need; the rest of `PATH_MAX` is the folder's.
const LONGEST_PART: usize = 255;
const LONGEST_RELATIVE: usize = 1_024;
/// Longer addresses are refused by many servers.
const LONGEST_SOURCE: usize = 2_000;

/// Bytes in a second. The word for it says that it is per second, so the value does not.
pub(super) fn rate(text: &str) -> Read {
    let bare = ["/s", "/sec", "ps", "Bps"].into_iter().find_map(|unit| text.strip_suffix(unit));
    if let Some(size) = bare.and_then(|bare| bare.parse::<Size>().ok()) {
        return Err(Bad::value(format!("{text:?} is not a size: it is per second already; write {size}")));
    }
    let size: Size = text.parse()?;
    if size.as_bytes() == 0 {
        let message = format!("must be at least 1, found {text}; leave it out for no limit");
        return Err(Bad::new(FindingCode::OutOfRange, message));
    }
    Ok(Json::from(size.to_string()))
}

/// Codes come out as numbers, signals as text.
pub(super) fn exit_status(text: &str) -> Read {
    match text.parse::<ExitStatus>() {
        Ok(ExitStatus::Code(code)) => Ok(Json::from(code)),
        Ok(ExitStatus::Signal(signal)) => Ok(Json::from(signal.to_string())),
        Err(error) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
            Err(Bad::new(FindingCode::OutOfRange, error.to_string()))
        }
        Err(error) => Err(Bad::from(error)),
    }
}

/// A hash may be all digits, which YAML reads as a number; nobody means one.
pub(super) fn sha256(scalar: &Scalar) -> Read {
    let text = scalar.text.as_str();
    match text.to_ascii_lowercase().parse::<Sha256>() {
        Ok(hash) => Ok(Json::from(hash.to_string())),
        Err(_) => {
            let found = match text.chars().count() {
                count @ 0..=80 if text.is_ascii() => format!("{text:?} ({count} characters)"),
                count => format!("{count} characters"),
            };
            Err(Bad::value(format!("is not a sha256: write its 64 hex digits, found {found}")))
        }
    }
}

/// `https://host/path`, `http://host/path`, `file:///path`.
pub(super) fn source(text: &str) -> Read {
    let wrong = |why: &str| Err(Bad::value(format!("{text:?} {why}")));
    if text.len() > LONGEST_SOURCE {
        return Err(Bad::value(format!("is {} bytes long, the limit is {LONGEST_SOURCE}", text.len())));
    }
    if text.chars().any(char::is_control) {
        return wrong("has a control character");
    }
    let scheme = text.split_once(':').map(|(scheme, rest)| (scheme.to_ascii_lowercase(), rest));
    match scheme {
        Some((scheme, rest)) if scheme == "https" || scheme == "http" => {
            if rest.contains(char::is_whitespace) {
                return wrong("has a space: write %20 for it");
            }
            let Some((host, path)) = rest.strip_prefix("//").and_then(|rest| rest.split_once('/')) else {
                return wrong("names no file: write for example https://repo.example.net/web/1.4.2/web");
            };
            if host.contains('@') {
                return wrong(
                    "has a user or password in it: whoever may read the object would read them, too",
                );
            }
            if host.is_empty() || path.is_empty() {
                return wrong("names no file: write for example https://repo.example.net/web/1.4.2/web");
            }
            Ok(Json::from(format!("{scheme}:{rest}")))
        }
        Some((scheme, rest)) if scheme == "file" => {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            if !path.starts_with('/') || path.ends_with('/') {
                return wrong("names no file of the host: write for example file:///srv/builds/web");
            }
            Ok(Json::from(format!("file://{path}")))
        }
        Some((scheme, _)) if scheme == "bus" => {
            Err(Bad::new(FindingCode::NotSupported, format!("bus: {}", not_supported("source"))))
        }
        Some(_) | None => wrong("is not a source: begin with https:, http: or file:"),
    }
}

/// What folders of processes are below of, and was meant where someone wrote it.
const FOLDERS: [&str; 4] = ["/var/lib/", "/var/cache/", "/var/log/", "/run/"];

/// A path that stays below the folder which it is put to.
pub(super) fn relative(text: &str) -> Read {
    if text == "." {
        return Ok(Json::from(text));
    }
    check_relative(text, "a file, for example bin/web").map(|()| Json::from(text))
}

fn check_relative(text: &str, example: &str) -> Result<(), Bad> {
    let bad = |why: &str| Err(Bad::value(format!("{text:?} {why}")));
    if text.is_empty() {
        return bad(&format!("is not a path: name {example}"));
    }
    if text.starts_with('/') {
        let inside = FOLDERS.into_iter().find_map(|folder| text.strip_prefix(folder)).unwrap_or(text);
        return bad(&format!(
            "is an absolute path: write it relative, for example {}",
            inside.trim_matches('/')
        ));
    }
    let parts: Vec<&str> = text.split('/').collect();
    if parts.contains(&"..") {
        return bad("must not contain ..");
    }
    if parts.iter().any(|part| matches!(*part, "" | ".")) {
        return bad("is not in normal form: write it without //, . and a / at the end");
    }
    if text.chars().any(char::is_control) {
        return bad("has a control character");
    }
    if text.len() > LONGEST_RELATIVE || parts.iter().any(|part| part.len() > LONGEST_PART) {
        return Err(Bad::value("is too long for a path"));
    }
    Ok(())
}

/// A folder of a process: several of them stand in one variable, separated by colons.
pub(super) fn directory(text: &str) -> Read {
    check_relative(text, "a folder, for example app")?;
    if text.contains(':') {
        return Err(Bad::value(format!("{text:?} must not contain a colon: it separates folders")));
    }
    if text == "ostler" || text.starts_with("ostler/") {
        return Err(Bad::value(format!("{text:?} is not allowed: the folder ostler is Ostler's own")));
    }
    Ok(Json::from(text))
}

/// The last part of where an artifact comes from: its place when none is given. None if there is none to be used.
pub(in crate::manifest) fn last_part(source: &str) -> Option<&str> {
    // A path of the host may have any character; an address ends where its query begins.
    let is_path = source.starts_with("file:");
    let end = source.find(['?', '#']).filter(|_| !is_path).unwrap_or(source.len());
    let last = source[..end].rsplit('/').next().unwrap_or_default();
    check_relative(last, "").is_ok().then_some(last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(read: Read) -> Option<String> {
        read.ok().and_then(|value| value.as_str().map(str::to_owned))
    }

    #[test]
    fn the_last_part_of_a_source() {
        assert_eq!(last_part("https://h/a/web?x=/y#z"), Some("web"));
        assert_eq!(last_part("file:///srv/a#b c"), Some("a#b c"));
        for none in ["https://h/a/", "https://h/a/..", "https://h/?x"] {
            assert_eq!(last_part(none), None, "{none}");
        }
    }

    #[test]
    fn sources_have_one_form() {
        assert_eq!(text(source("HTTPS://h/a")).as_deref(), Some("https://h/a"));
        assert_eq!(text(source("file:/srv/a b")).as_deref(), Some("file:///srv/a b"));
        assert_eq!(text(source("file:///srv/a")).as_deref(), Some("file:///srv/a"));
        for bad in [
            "",
            "/srv/a",
            "file://host/a",
            "file:///srv/",
            "https://h",
            "https:///a",
            "https://h/a b",
            "ftp://h/a",
        ] {
            assert!(source(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_read_again_as_the_same(any in "[a-z./:0-9@?# -]{0,24}") {
            for (begin, read) in [("", relative as fn(&str) -> Read), ("", directory), ("https://h/", source), ("file:/", source), ("", source)] {
                if let Some(first) = text(read(&format!("{begin}{any}"))) {
                    prop_assert_eq!(text(read(&first)), Some(first));
                }
            }
        }

        #[test]
        fn what_is_below_stays_below(any in "[a./]{0,12}") {
            if let Some(path) = text(relative(&any)) {
                prop_assert!(!path.starts_with('/') && !path.split('/').any(|part| part == ".."));
            }
        }

        #[test]
        fn rates_are_sizes(number in 1u64..1 << 40, unit in prop::sample::select(vec!["", "k", "Mi"])) {
            let read = text(rate(&format!("{number}{unit}")));
            let size = format!("{number}{unit}").parse::<Size>().ok();
            prop_assert_eq!(read.and_then(|text| text.parse().ok()), size);
        }
    }
}
