//! How many lines two texts differ in.

use similar::{ChangeTag, TextDiff};

/// Texts beyond this are not compared: comparing is quadratic at worst, and a replica has more to do.
const COMPARED: usize = 128 << 10;

/// Lines added and removed from `before` to `after`, where both are text and not too long.
pub(super) fn changed(before: &[u8], after: &[u8]) -> Option<(u32, u32)> {
    if before.len() > COMPARED || after.len() > COMPARED {
        return None;
    }
    let (before, after) = (std::str::from_utf8(before).ok()?, std::str::from_utf8(after).ok()?);
    let diff = TextDiff::from_lines(before, after);
    let count = |tag: ChangeTag| {
        let n = diff.iter_all_changes().filter(|c| c.tag() == tag).count();
        u32::try_from(n).unwrap_or(u32::MAX)
    };
    Some((count(ChangeTag::Insert), count(ChangeTag::Delete)))
}

#[cfg(test)]
mod tests {
    use super::changed;

    #[test]
    fn only_text_is_compared() {
        assert_eq!(changed(b"a\nb\n", b"a\nc\nd\n"), Some((2, 1)));
        assert_eq!(changed(b"a", b"a"), Some((0, 0)));
        assert_eq!(changed(b"\xff", b"a"), None);
        assert_eq!(changed(&vec![b'a'; 1 << 20], b"a"), None);
    }
}
