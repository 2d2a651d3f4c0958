//! Which lines of a log somebody wants.

use ostler_schemas::v1::log_line::{LogStream, Note, Source, parse};

use super::about::Window;

/// Decides line by line, in the order of the log.
#[derive(Debug, Clone)]
pub struct LineFilter {
    window: Window,
    stream: Option<LogStream>,
    /// Whether the last line with a time was in the window: what has none goes with it.
    inside: bool,
}

impl LineFilter {
    /// Lines of a stretch, and of one stream if one is named.
    #[must_use]
    pub const fn new(window: Window, stream: Option<LogStream>) -> Self {
        Self { window, stream, inside: window.from_us == 0 }
    }

    /// The stretch.
    #[must_use]
    pub const fn window(&self) -> Window {
        self.window
    }

    /// Whether a line is wanted. What is no line of a log is wanted like the line before it.
    pub fn wants(&mut self, line: &[u8]) -> bool {
        let Some(line) = parse(line) else { return self.inside };
        self.inside = self.window.has(line.at_us);
        self.inside
            && match line.source {
                Source::Process(stream) => self.stream.is_none_or(|wanted| wanted == stream),
                Source::Host => match Note::parse(line.text) {
                    // Of use to readers of files only.
                    Note::Part { .. } => false,
                    Note::Begins { .. } | Note::Lost { .. } | Note::Overtaken { .. } | Note::Other(_) => true,
                },
            }
    }

    /// Whether a line ends something that a reader counts as a line, and lies in the stretch; for reading backwards.
    #[must_use]
    pub fn counts(&self, line: &[u8]) -> bool {
        parse(line).is_none_or(|line| {
            let Source::Process(stream) = line.source else { return false };
            self.window.has(line.at_us) && !line.partial && self.stream.is_none_or(|wanted| wanted == stream)
        })
    }

    /// Whether a line lies before the stretch.
    #[must_use]
    pub fn is_before(&self, line: &[u8]) -> bool {
        parse(line).is_some_and(|line| line.at_us < self.window.from_us)
    }
}

#[cfg(test)]
mod tests {
    use ostler_schemas::v1::log_line::{push, stamp};

    use super::*;

    fn line(at: u64, stream: LogStream, partial: bool) -> Vec<u8> {
        let mut out = Vec::new();
        push(&mut out, &stamp(at), (Source::Process(stream), partial), &[b"x"]);
        out
    }

    #[test]
    fn lines_of_the_stretch_and_the_stream() {
        let mut filter = LineFilter::new(Window { from_us: 5, to_us: 9 }, Some(LogStream::Stderr));
        assert!(!filter.wants(b"plain\n"), "before the first line with a time");
        assert!(!filter.wants(&line(4, LogStream::Stderr, false)));
        assert!(filter.wants(&line(5, LogStream::Stderr, false)));
        assert!(filter.wants(b"plain\n"));
        assert!(!filter.wants(&line(6, LogStream::Stdout, false)));
        assert!(filter.wants(&Note::Lost { lines: 3, why: "x".to_owned() }.line(6)));
        assert!(!filter.wants(&Note::Part { part: 3, after: 7 }.line(6)));
        assert!(!filter.wants(&line(9, LogStream::Stderr, false)));
        assert!(!filter.wants(b"plain\n"));
        assert!(filter.counts(&line(5, LogStream::Stderr, false)));
        assert!(!filter.counts(&line(5, LogStream::Stderr, true)));
        assert!(filter.is_before(&line(4, LogStream::Stderr, false)));
    }

    #[test]
    fn without_a_beginning_everything_is_inside() {
        assert!(LineFilter::new(Window::ALL, None).wants(b"plain\n"));
    }
}
