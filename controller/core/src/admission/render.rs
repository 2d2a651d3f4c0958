//! Templates must render on every node that gets them, before anything is stored; and where a validator names a syntax,
//! what comes out must be written in it, as must contents that are the same everywhere.
//!
//! Admission knows which templates, which nodes and which values; the bytes of a template lie in the blob store or came
//! with the request. So a decision names its [`RenderCheck`]s, and the server, which has the bytes, runs them a few nodes
//! at a time before it commits.
//!
//! A template is rendered once for all nodes that look alike to it. A node that never reported is not checked: nothing
//! is rendered for it before it has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ostler_render::syntax::{self, Misspelt};
use ostler_render::{Input, NoSecrets, Secrets, Template, Unrenderable, Uses};
use ostler_schemas::manifest::{Finding, FindingCode};
use ostler_schemas::spec::{ConfigFileSpec, ContentRef, Labels, Source, Syntax, Var, Vars};
use ostler_schemas::v1::document::NodeFacts;
use ostler_schemas::{NodeName, ObjectRef};

use crate::configfile::values::facts_of;
use crate::fleet::Fleet;

/// Nodes that one finding names (CONTRACT.md 1.5).
const NAMED: usize = 5;
/// Different renderings of one template in one check: some seconds of work. Nodes beyond are told of by their agents.
const MOST_RENDERINGS: usize = 20_000;

/// Labels and values of nodes as they will be, where the request changes them.
pub type FutureNodes = BTreeMap<NodeName, (Labels, Vars)>;

/// One template that must render, or one content that must be well written.
#[derive(Debug, Clone, PartialEq)]
pub struct RenderCheck {
    /// Where a refusal points.
    at: Finding,
    /// The file of several, if it is one.
    part: String,
    source: Source,
    /// What it must be written in.
    syntax: Option<Syntax>,
    spec: Arc<ConfigFileSpec>,
    nodes: Vec<NodeName>,
    future: Arc<FutureNodes>,
}

/// The files of a ConfigFile as it will be, as far as there is anything to check. `at` makes a finding of a field.
pub(super) fn checks_of(
    spec: &ConfigFileSpec,
    nodes: &[NodeName],
    future: &Arc<FutureNodes>,
    at: &dyn Fn(&str) -> Finding,
) -> Vec<RenderCheck> {
    let whole = Arc::new(spec.clone());
    let syntax = spec.validator.as_ref().and_then(|validator| validator.syntax);
    let check = |(index, part): (usize, ostler_schemas::spec::Part<'_>)| {
        let field = match part.source {
            Source::Template(_) => "template",
            Source::Content(_) if syntax.is_some() => "content",
            Source::Content(_) => return None,
        };
        let field = match part.name {
            "" => format!("spec.{field}"),
            _ => format!("spec.files[{index}].{field}"),
        };
        Some(RenderCheck {
            at: at(&field),
            part: part.name.to_owned(),
            source: part.source,
            syntax,
            spec: Arc::clone(&whole),
            nodes: nodes.to_vec(),
            future: Arc::clone(future),
        })
    };
    spec.parts().enumerate().filter_map(check).collect()
}

/// A finding about an object for which no manifest was written.
pub(super) fn unplaced(object: &ObjectRef, field: &str) -> Finding {
    Finding {
        file: None,
        line: 0,
        column: 0,
        object: object.short(),
        field: field.to_owned(),
        code: FindingCode::Unrenderable,
        message: String::new(),
        hint: None,
    }
}

impl RenderCheck {
    /// What is looked at, by name.
    #[must_use]
    pub const fn content(&self) -> ContentRef {
        self.source.reference()
    }

    /// Looks at a content that is the same on every node; none of a template.
    #[must_use]
    pub fn look_at_literal(&self, bytes: &[u8]) -> Option<Vec<Finding>> {
        match (self.source, self.syntax) {
            (Source::Template(_), _) => None,
            (Source::Content(_), None) => Some(Vec::new()),
            (Source::Content(_), Some(syntax)) => {
                let misspelt = syntax::check(syntax, bytes).err();
                let finding = |error: Misspelt| self.finding(FindingCode::BadValue, error.to_string());
                Some(misspelt.map(finding).into_iter().collect())
            }
        }
    }

    /// Reads the template.
    ///
    /// # Errors
    /// It is none, or asks for what is not served.
    pub fn begin<'a>(&'a self, fleet: &'a Fleet, bytes: &'a [u8]) -> Result<Running<'a>, Box<Finding>> {
        let refused =
            |refused: Unrenderable| Box::new(self.finding(FindingCode::Unrenderable, refused.to_string()));
        let source = std::str::from_utf8(bytes).map_err(|_| refused(Unrenderable::not_text()))?;
        let template = Template::parse(source).map_err(refused)?;
        let uses = template.uses();
        for function in ["secret", "service"] {
            if uses.mentions(function) {
                let message =
                    format!("{function}() is a known function that this server does not support yet");
                return Err(Box::new(self.finding(FindingCode::NotSupported, message)));
            }
        }
        let secrets: Arc<dyn Secrets> = Arc::new(NoSecrets);
        let (seen, failures) = (BTreeMap::new(), BTreeMap::new());
        Ok(Running { check: self, fleet, template, uses, secrets, seen, failures, next: 0 })
    }

    fn finding(&self, code: FindingCode, message: String) -> Finding {
        let message = if self.part.is_empty() { message } else { format!("{}: {message}", self.part) };
        Finding { code, message, ..self.at.clone() }
    }
}

/// What is wrong with what a template becomes on a node.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Wrong {
    /// Nothing becomes of it.
    Unrenderable(Unrenderable),
    /// It is not written as its reader expects.
    Misspelt(Misspelt),
}

impl Wrong {
    /// Where, what, and what can be done.
    fn words(&self) -> (String, String, String) {
        match self {
            Wrong::Unrenderable(refused) => (
                refused.place().map(|place| format!("{place}: ")).unwrap_or_default(),
                refused.reason(),
                refused.advice().map(|advice| format!("; {advice}")).unwrap_or_default(),
            ),
            Wrong::Misspelt(misspelt) => {
                let place = format!("rendered, line {}, column {}: ", misspelt.line, misspelt.column);
                (place, format!("is not {}: {}", misspelt.syntax, misspelt.why), String::new())
            }
        }
    }
}

/// What a template looks at.
type Look = BTreeMap<String, Option<Var>>;

/// A check that is under way.
pub struct Running<'a> {
    check: &'a RenderCheck,
    fleet: &'a Fleet,
    template: Template<'a>,
    uses: Uses,
    secrets: Arc<dyn Secrets>,
    seen: BTreeMap<String, Option<Wrong>>,
    failures: BTreeMap<Wrong, BTreeSet<&'a NodeName>>,
    next: usize,
}

impl Running<'_> {
    /// Looks at so many more nodes; says whether there are any left.
    pub fn step(&mut self, nodes: usize) -> bool {
        let check = self.check;
        let end = self.next.saturating_add(nodes).min(check.nodes.len());
        for node in &check.nodes[self.next..end] {
            if let Some(refused) = self.render(node) {
                self.failures.entry(refused).or_default().insert(node);
            }
        }
        self.next = end;
        end < check.nodes.len() && self.seen.len() < MOST_RENDERINGS
    }

    fn render(&mut self, node: &NodeName) -> Option<Wrong> {
        let facts = self.facts(node)?;
        let vars = self.check.spec.vars_for(node, &facts.labels);
        let input = Input { node, facts: &facts, vars: &vars };
        let look: Look = self.uses.part_of(&input);
        let alike = format!("{look:?}");
        if let Some(known) = self.seen.get(&alike) {
            return known.clone();
        }
        let refused = match (self.template.render(&input, &self.secrets), self.check.syntax) {
            (Err(refused), _) => Some(Wrong::Unrenderable(refused)),
            (Ok(rendered), Some(syntax)) => {
                syntax::check(syntax, rendered.text.as_bytes()).err().map(Wrong::Misspelt)
            }
            (Ok(_), None) => None,
        };
        self.seen.insert(alike, refused.clone());
        refused
    }

    fn facts(&self, node: &NodeName) -> Option<NodeFacts> {
        let mut facts = facts_of(self.fleet, node)?;
        if let Some((labels, vars)) = self.check.future.get(node) {
            facts.labels.retain(|key, _| key.starts_with("ostler/"));
            facts.labels.extend(labels.clone());
            facts.vars.clone_from(vars);
        }
        Some(facts)
    }

    /// What was found.
    #[must_use]
    pub fn finish(self) -> Vec<Finding> {
        let total = self.check.nodes.len();
        let finding = |(wrong, nodes): (Wrong, BTreeSet<&NodeName>)| {
            let (place, what, advice) = wrong.words();
            let mut names: Vec<&str> = nodes.iter().take(NAMED).map(|node| node.as_str()).collect();
            if nodes.len() > NAMED {
                names.push("…");
            }
            let message =
                format!("{place}{what} on {} of {total} nodes: {}{advice}", nodes.len(), names.join(", "));
            self.check.finding(FindingCode::Unrenderable, message)
        };
        self.failures.into_iter().map(finding).collect()
    }
}
