//! From bytes to trees. YAML 1.2; JSON is a part of it.
//!
//! Nothing here panics, and memory stays within a small multiple of [`MAX_TEXT`] whatever the bytes are: nesting is
//! bounded, aliases are counted with everything they bring in, and what they copy counts as text.

use std::collections::BTreeMap;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span};

use super::{Document, Entry, MAX_DEPTH, Node, Problem, Scalar, Value, join};
use crate::manifest::finding::{FindingCode, Place};

/// How many aliases may be expanded in one file (CONTRACT.md 1.2); those inside of what an alias stands for count.
pub const MAX_ALIASES: usize = 1_000;

/// How much text one file may have, aliases expanded: a few file contents of the largest size, and no more than
/// fits comfortably in memory several times over.
pub const MAX_TEXT: usize = 64 << 20;

/// What a value costs beside its text, counted against [`MAX_TEXT`]: about what it takes in memory, with its place.
const NODE_COST: usize = 128;

/// Reads all documents of a file. What cannot be read is a problem of the document in which it stands, and ends the
/// file; documents before it are whole. Documents without anything in them are left out.
#[must_use]
pub fn read_documents(file: Option<&str>, bytes: &[u8]) -> Vec<Document> {
    let mut reader = Reader::new(file);
    match printable_text(bytes) {
        Ok(text) => {
            if let Err(problem) = reader.read(text) {
                reader.give_up(problem);
            }
        }
        Err(problem) => reader.give_up(problem),
    }
    reader.documents
}

/// The text, if it is UTF-8 of printable characters (YAML's `c-printable`; the parser takes NUL for the end).
fn printable_text(bytes: &[u8]) -> Result<&str, Problem> {
    if bytes.len() > MAX_TEXT {
        let message = format!("is {} bytes, the limit is {MAX_TEXT}", bytes.len());
        let place = Place { line: 1, column: 1 };
        return Err(Problem { place, field: String::new(), code: FindingCode::TooLarge, message });
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let good = std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default();
            let found = bytes.get(error.valid_up_to()).copied().unwrap_or_default();
            return Err(problem_at(end_of(good), format!("is not UTF-8: byte 0x{found:02x}")));
        }
    };
    let bad = text.char_indices().find(|(_, c)| {
        !matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..)
    });
    match bad {
        Some((at, c)) => {
            Err(problem_at(end_of(&text[..at]), format!("has the control character U+{:04X}", u32::from(c))))
        }
        None => Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
    }
}

fn problem_at(place: Place, message: String) -> Problem {
    Problem { place, field: String::new(), code: FindingCode::BadValue, message }
}

fn end_of(text: &str) -> Place {
    let line = text.matches('\n').count() + 1;
    let column = text.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Place { line: number(line), column: number(column) }
}

fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn start(span: Span) -> Place {
    Place { line: number(span.start.line()), column: number(span.start.col() + 1) }
}

/// A finished value with what it cost.
#[derive(Clone)]
struct Built {
    node: Node,
    cost: usize,
    aliases: usize,
    /// How many lists and maps are in one another; none in a scalar.
    depth: usize,
}

/// A list or map that is not finished.
struct Frame {
    place: Place,
    anchor: usize,
    cost: usize,
    aliases: usize,
    depth: usize,
    open: Open,
}

enum Open {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, first: BTreeMap<String, Place>, key: Option<(String, Place)> },
}

struct Reader {
    file: Option<String>,
    documents: Vec<Document>,
    frames: Vec<Frame>,
    anchors: BTreeMap<usize, Built>,
    problems: Vec<Problem>,
    root: Option<Node>,
    /// Of the whole file.
    spent: usize,
    aliases: usize,
}

impl Reader {
    fn new(file: Option<&str>) -> Reader {
        Reader {
            file: file.map(str::to_owned),
            documents: Vec::new(),
            frames: Vec::new(),
            anchors: BTreeMap::new(),
            problems: Vec::new(),
            root: None,
            spent: 0,
            aliases: 0,
        }
    }

    fn read(&mut self, text: &str) -> Result<(), Problem> {
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| not_yaml(&error))?;
            self.take(event, span)?;
        }
        Ok(())
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let place = start(span);
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd => {}
            Event::DocumentStart(_) => self.anchors.clear(),
            Event::DocumentEnd => self.finish_document(),
            Event::Alias(anchor) => self.alias(anchor, place)?,
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), place);
                let is_plain = style == ScalarStyle::Plain;
                let cost = text.len() + NODE_COST;
                let scalar = Scalar { text: text.into_owned(), is_plain };
                let node = Node { place, value: Value::Scalar(scalar) };
                self.place(Built { node, cost, aliases: 0, depth: 0 }, anchor)?;
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), place);
                self.open(place, anchor, Open::List(Vec::new()))?;
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_tag(tag.as_deref(), place);
                let open = Open::Map { entries: Vec::new(), first: BTreeMap::new(), key: None };
                self.open(place, anchor, open)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close()?,
        }
        Ok(())
    }

    fn refuse_tag(&mut self, tag: Option<&saphyr_parser::Tag>, place: Place) {
        if let Some(tag) = tag {
            let shown = if tag.is_yaml_core_schema() { "!!".to_owned() } else { tag.handle.clone() };
            let message = format!("tags are not allowed: remove {shown}{}", tag.suffix);
            let field = self.path();
            self.problems.push(Problem { place, field, code: FindingCode::BadValue, message });
        }
    }

    fn open(&mut self, place: Place, anchor: usize, open: Open) -> Result<(), Problem> {
        if let Some(Frame { open: Open::Map { key: None, .. }, .. }) = self.frames.last() {
            return Err(self.problem(place, "a key must be text".to_owned()));
        }
        if self.frames.len() >= MAX_DEPTH {
            return Err(self.problem(place, too_deep()));
        }
        self.frames.push(Frame { place, anchor, cost: NODE_COST, aliases: 0, depth: 1, open });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Problem> {
        // The parser gives an end only for a start.
        let Some(Frame { place, anchor, cost, aliases, depth, open }) = self.frames.pop() else {
            return Ok(());
        };
        let value = match open {
            Open::List(items) => Value::List(items),
            Open::Map { entries, .. } => Value::Map(entries),
        };
        self.place(Built { node: Node { place, value }, cost, aliases, depth }, anchor)
    }

    fn alias(&mut self, anchor: usize, place: Place) -> Result<(), Problem> {
        let Some(built) = self.anchors.get(&anchor).cloned() else {
            return Err(self.problem(place, "an alias cannot stand inside of what it stands for".to_owned()));
        };
        self.aliases += 1 + built.aliases;
        if self.aliases > MAX_ALIASES {
            return Err(self.problem(place, format!("has more than {MAX_ALIASES} alias expansions")));
        }
        if self.frames.len() + built.depth > MAX_DEPTH {
            return Err(self.problem(place, too_deep()));
        }
        self.place(Built { aliases: built.aliases + 1, ..built }, 0)
    }

    /// Puts a finished value where it belongs: as key, value, item or root.
    fn place(&mut self, built: Built, anchor: usize) -> Result<(), Problem> {
        // A container's parts are counted already when they were put into it.
        let fresh = match &built.node.value {
            Value::Scalar(_) => built.cost,
            Value::List(_) | Value::Map(_) => NODE_COST,
        };
        self.spend(if built.aliases > 0 { built.cost } else { fresh }, built.node.place)?;
        if anchor > 0 {
            self.spend(built.cost, built.node.place)?;
            self.anchors.insert(anchor, built.clone());
        }
        let Some(frame) = self.frames.last_mut() else {
            self.root = Some(built.node);
            return Ok(());
        };
        frame.cost += built.cost;
        frame.aliases += built.aliases;
        frame.depth = frame.depth.max(built.depth + 1);
        match &mut frame.open {
            Open::List(items) => items.push(built.node),
            Open::Map { entries, first, key } => match key.take() {
                Some((key, place)) => match first.get(&key).copied() {
                    Some(before) => {
                        let message = format!("given twice: first at line {}", before.line);
                        let (field, code) = (join(&self.path(), &key), FindingCode::Duplicate);
                        self.problems.push(Problem { place, field, code, message });
                    }
                    None => {
                        first.insert(key.clone(), place);
                        entries.push(Entry { key, place, value: built.node });
                    }
                },
                None => {
                    let Value::Scalar(scalar) = built.node.value else {
                        return Err(self.problem(built.node.place, "a key must be text".to_owned()));
                    };
                    *key = Some((scalar.text, built.node.place));
                }
            },
        }
        Ok(())
    }

    fn spend(&mut self, cost: usize, place: Place) -> Result<(), Problem> {
        self.spent = self.spent.saturating_add(cost);
        if self.spent > 2 * MAX_TEXT {
            let message = format!("has more than {MAX_TEXT} bytes of text with its aliases expanded");
            return Err(Problem { code: FindingCode::TooLarge, ..self.problem(place, message) });
        }
        Ok(())
    }

    fn problem(&self, place: Place, message: String) -> Problem {
        Problem { field: self.path(), ..problem_at(place, message) }
    }

    /// The path of the value that is being read.
    fn path(&self) -> String {
        let mut path = String::new();
        for frame in &self.frames {
            match &frame.open {
                Open::List(items) => path.push_str(&format!("[{}]", items.len())),
                Open::Map { key: Some((key, _)), .. } => path = join(&path, key),
                Open::Map { key: None, .. } => {}
            }
        }
        path
    }

    fn finish_document(&mut self) {
        let root = self.root.take().unwrap_or_else(Node::null);
        let problems = std::mem::take(&mut self.problems);
        if !root.is_null() || !problems.is_empty() {
            self.documents.push(Document { problems, ..Document::new(self.file.clone(), root) });
        }
    }

    /// Ends the file at a problem. What is finished of the document stays, so that the refusal can name its object.
    fn give_up(&mut self, problem: Problem) {
        self.problems.push(problem);
        while let Some(frame) = self.frames.pop() {
            let value = match frame.open {
                Open::List(items) => Value::List(items),
                Open::Map { entries, .. } => Value::Map(entries),
            };
            let node = Node { place: frame.place, value };
            match self.frames.last_mut().map(|parent| &mut parent.open) {
                None => self.root = Some(node),
                Some(Open::List(items)) => items.push(node),
                Some(Open::Map { entries, first, key }) => {
                    if let Some((key, place)) = key.take().filter(|(key, _)| !first.contains_key(key)) {
                        entries.push(Entry { key, place, value: node });
                    }
                }
            }
        }
        self.finish_document();
        if let Some(last) = self.documents.last_mut() {
            last.is_whole = false;
        }
    }
}

fn too_deep() -> String {
    format!("nests deeper than {MAX_DEPTH}")
}

fn not_yaml(error: &ScanError) -> Problem {
    let place = Place { line: number(error.marker().line()), column: number(error.marker().col() + 1) };
    problem_at(place, format!("is not YAML: {}", error.info()))
}
