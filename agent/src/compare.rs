//! How what is on disk differs from what should be: for people, in the form that `diff -u` has.

use std::time::Duration;

use ostler_agent_core::file::Difference;
use ostler_agent_core::file::evidence::shortened;
use similar::{ChangeTag, TextDiff};

/// Contents up to this size are compared line by line: a drift must be put back at once, and a report is no archive.
pub(crate) const COMPARED_MAX: u64 = 256 << 10;
/// How long a comparison may look for the shortest answer; after that a longer one will do.
const PATIENCE: Duration = Duration::from_millis(20);
/// Lines around a change.
const CONTEXT: usize = 3;

/// Compares what is there with what should be; none if they are the same. `found` is none where it was not read.
pub(crate) fn compare(wanted: &[u8], found: Option<&[u8]>) -> Option<Difference> {
    let without = |why: &str| Some(Difference { lines: None, text: Err(why.to_owned()) });
    let Some(found) = found.filter(|_| wanted.len() as u64 <= COMPARED_MAX) else {
        return without("it is larger than 256 KiB");
    };
    if wanted == found {
        return None;
    }
    let (Ok(wanted), Ok(found)) = (std::str::from_utf8(wanted), std::str::from_utf8(found)) else {
        return without("it is no text");
    };
    let diff = TextDiff::configure().timeout(PATIENCE).diff_lines(wanted, found);
    let (mut came, mut went) = (0u32, 0u32);
    for change in diff.iter_all_changes() {
        match change.tag() {
            ChangeTag::Insert => came = came.saturating_add(1),
            ChangeTag::Delete => went = went.saturating_add(1),
            ChangeTag::Equal => {}
        }
    }
    let text = shortened(diff.unified_diff().context_radius(CONTEXT).to_string());
    Some(Difference { lines: Some((came, went)), text: Ok(text) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_compared_line_by_line_and_others_say_why_not() {
        assert_eq!(compare(b"one\n", Some(b"one\n")), None);
        let found = compare(b"a\nb\nc\n", Some(b"a\nx\nc\nd\n")).expect("differ");
        assert_eq!(found.lines, Some((2, 1)));
        assert_eq!(found.text.as_deref(), Ok("@@ -1,3 +1,4 @@\n a\n-b\n+x\n c\n+d\n"));
        let bytes = compare(b"one", Some(&[0xff])).expect("differ");
        assert_eq!((bytes.lines, bytes.text), (None, Err("it is no text".to_owned())));
        let large = compare(b"one", None).expect("not read");
        assert!(large.text.expect_err("not compared").contains("larger"));
    }
}
