//! Subjects with wildcards, as NATS matches them.

/// A subject in which `*` stands for one token and a last `>` for one or more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pattern(Vec<String>);

impl Pattern {
    pub(crate) fn new(text: &str) -> Self {
        Self(text.split('.').map(str::to_owned).collect())
    }

    /// Whether it names exactly one subject.
    pub(crate) fn is_literal(&self) -> bool {
        !self.0.iter().any(|t| t == "*" || t == ">")
    }

    /// The tokens of `subject` that its wildcards stand for (the rest as one text); `None` if it does not match.
    pub(crate) fn captures<'a>(&self, subject: &'a str) -> Option<Vec<&'a str>> {
        let mut captured = Vec::new();
        let mut rest = Some(subject);
        for token in &self.0 {
            let here = rest?;
            if token == ">" {
                captured.push(here);
                return Some(captured);
            }
            let (head, tail) = match here.split_once('.') {
                Some((head, tail)) => (head, Some(tail)),
                None => (here, None),
            };
            if token == "*" {
                captured.push(head);
            } else if token != head {
                return None;
            }
            rest = tail;
        }
        rest.is_none().then_some(captured)
    }

    pub(crate) fn matches(&self, subject: &str) -> bool {
        self.captures(subject).is_some()
    }

    /// Whether every subject that matches `other` matches this pattern too.
    pub(crate) fn covers(&self, other: &Pattern) -> bool {
        let mut theirs = other.0.iter();
        for mine in &self.0 {
            let Some(other) = theirs.next() else { return false };
            match (mine.as_str(), other.as_str()) {
                (">", _) => return true,
                (_, ">") => return false,
                ("*", _) => {}
                (mine, other) if mine == other => {}
                (_, _) => return false,
            }
        }
        theirs.next().is_none()
    }

    /// Up to two leading literal tokens, by which subscriptions are found.
    pub(crate) fn literal_prefix(&self) -> String {
        let literal: Vec<&str> =
            self.0.iter().take(2).map(String::as_str).take_while(|t| *t != "*" && *t != ">").collect();
        literal.join(".")
    }
}

/// `target` with its wildcards replaced, in order, by what was captured.
pub(crate) fn fill(target: &Pattern, captured: &[&str]) -> String {
    let mut captured = captured.iter();
    let mut filled = Vec::with_capacity(target.0.len());
    for token in &target.0 {
        filled.push(match token.as_str() {
            "*" | ">" => captured.next().copied().unwrap_or(token),
            literal => literal,
        });
    }
    filled.join(".")
}

/// The prefixes under which subscriptions that could match `subject` are kept.
pub(crate) fn prefixes_of(subject: &str) -> Vec<String> {
    let mut tokens = subject.split('.');
    let first = tokens.next().unwrap_or_default();
    let mut out = vec![String::new(), first.to_owned()];
    out.extend(tokens.next().map(|second| format!("{first}.{second}")));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_as_nats_does() {
        for (pattern, subject, matches) in [
            ("a.*", "a.b", true),
            ("a.*", "a", false),
            ("a.*", "a.b.c", false),
            ("a.>", "a.b.c", true),
            ("a.>", "a", false),
            ("a.b", "a.b", true),
            (">", "a.b", true),
            ("*.b", "a.b", true),
        ] {
            assert_eq!(Pattern::new(pattern).matches(subject), matches, "{pattern} {subject}");
        }
    }

    #[test]
    fn a_pattern_covers_what_is_narrower() {
        for (wide, narrow, covers) in [
            ("push.n1.>", "push.n1.run", true),
            ("push.n1.>", "push.n1.>", true),
            ("push.n1.>", "push.*.run", false),
            ("push.*", "push.>", false),
            ("beat.*", "beat.*", true),
            ("beat.n1", "beat.*", false),
        ] {
            assert_eq!(Pattern::new(wide).covers(&Pattern::new(narrow)), covers, "{wide} {narrow}");
        }
    }

    #[test]
    fn captures_fill_targets() {
        let captured = Pattern::new("put.event.*.>").captures("put.event.n1.a.b").expect("matches");
        let target = Pattern::new("ostler.v1.event.node.*.>");
        assert_eq!(fill(&target, &captured), "ostler.v1.event.node.n1.a.b");
    }
}
