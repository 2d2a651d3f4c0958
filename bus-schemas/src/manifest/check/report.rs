//! Collects the findings of one document.

use crate::manifest::finding::{Finding, FindingCode, Place};
use crate::manifest::places::Places;
use crate::manifest::typed::Origin;

/// The findings of one document, and what each is told with.
pub(super) struct Report {
    file: Option<String>,
    object: String,
    places: Places,
    findings: Vec<Finding>,
}

/// More findings than a person reads; a document that is garbage throughout must not fill a terminal or a message.
const MOST: usize = 200;

impl Report {
    pub(super) fn new(file: Option<String>, object: String, places: Places) -> Report {
        Report { file, object, places, findings: Vec::new() }
    }

    /// At the value of `field`.
    pub(super) fn add(&mut self, field: &str, code: FindingCode, message: impl Into<String>) {
        self.at(self.places.value(field), field, code, message);
    }

    /// At the value of `field`, with what to do.
    pub(super) fn hint(
        &mut self,
        field: &str,
        code: FindingCode,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.push(self.places.value(field), field, code, message.into(), Some(hint.into()));
    }

    /// At the key of `field`.
    pub(super) fn key(
        &mut self,
        field: &str,
        code: FindingCode,
        message: impl Into<String>,
        hint: Option<String>,
    ) {
        self.push(self.places.key(field), field, code, message.into(), hint);
    }

    /// At a place.
    pub(super) fn at(&mut self, place: Place, field: &str, code: FindingCode, message: impl Into<String>) {
        self.push(place, field, code, message.into(), None);
    }

    /// Whether anything was found of a field, or of one whose path begins so.
    pub(super) fn concerns(&self, field: &str) -> bool {
        self.findings.iter().any(|finding| finding.field.starts_with(field))
    }

    /// Given twice.
    pub(super) fn duplicate(&mut self, field: &str, first: &str) {
        let first = self.places.value(first);
        let message = if first.is_known() {
            format!("given twice: first at line {}", first.line)
        } else {
            "given twice".to_owned()
        };
        self.add(field, FindingCode::Duplicate, message);
    }

    /// Larger than allowed, in bytes.
    pub(super) fn too_large(&mut self, field: &str, found: usize, limit: usize) {
        let message = format!("is {}, the limit is {}", bytes_text(found), bytes_text(limit));
        self.add(field, FindingCode::TooLarge, message);
    }

    fn push(&mut self, place: Place, field: &str, code: FindingCode, message: String, hint: Option<String>) {
        let (code, message, hint) = match self.findings.len() {
            0..MOST => (code, message, hint),
            MOST => (
                FindingCode::TooLarge,
                format!("has more findings than these {MOST}: correct them first"),
                None,
            ),
            _ => return,
        };
        let Place { line, column } = place;
        let (file, object, field) = (self.file.clone(), self.object.clone(), field.to_owned());
        self.findings.push(Finding { file, line, column, object, field, code, message, hint });
    }

    /// Whether `field`, or something in it, has a finding already: what is missing there may be what was refused.
    pub(super) fn has_at(&self, field: &str) -> bool {
        let inside = |rest: &str| rest.is_empty() || rest.starts_with(['.', '[']);
        self.findings.iter().any(|finding| finding.field.strip_prefix(field).is_some_and(inside))
    }

    /// Whether nothing more will be told; looking for suggestions is then a waste that hostile input could use.
    pub(super) fn is_full(&self) -> bool {
        self.findings.len() > MOST
    }

    pub(super) fn has_findings(&self) -> bool {
        !self.findings.is_empty()
    }

    pub(super) fn into_findings(self) -> Vec<Finding> {
        self.findings
    }

    pub(super) fn into_origin(self) -> Origin {
        Origin { file: self.file, places: self.places }
    }
}

/// `9.1Mi`: for people, rounded up, so that what is over a limit never looks as if it were not.
fn bytes_text(bytes: usize) -> String {
    for (unit, size) in [("Gi", 1usize << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)] {
        if bytes >= size {
            let tenths = (bytes.saturating_mul(10)).div_ceil(size);
            return if tenths.is_multiple_of(10) {
                format!("{}{unit}", tenths / 10)
            } else {
                format!("{}.{}{unit}", tenths / 10, tenths % 10)
            };
        }
    }
    bytes.to_string()
}
