//! What a template of a ConfigFile becomes on a node.
//!
//! Pure, and the same on every machine: the text follows from the template, the values and the node's facts, and from
//! nothing else. Controllers render to check what they admit, agents render to write; they share this code and nothing
//! more. There is no time, no randomness, no file and no network in here, and no template can load another.
//!
//! Guarantees: an undefined value is an error with its place; the number of instructions, the depth and the size of
//! what is written are bounded. The size of a value in between is bounded only where it is printed: somebody who may
//! push templates and means harm can make one that needs much memory.

mod input;
mod limits;
pub mod syntax;
mod unrenderable;
mod uses;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use minijinja::value::{Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, syntax::SyntaxConfig};

pub use input::Input;
pub use limits::MAX_RENDERED;
pub use unrenderable::{Unrenderable, Why};
pub use uses::Uses;

use limits::{Bounded, Budget};

/// The one name under which a template is known to the engine.
const NAME: &str = "template";

/// What a template may ask for by `secret(name, key)`.
pub trait Secrets: Send + Sync {
    /// The value.
    ///
    /// # Errors
    /// Why it cannot be had, for people; never with any part of a value.
    fn get(&self, name: &str, key: &str) -> Result<String, String>;
}

/// There are no secrets here.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSecrets;

impl Secrets for NoSecrets {
    fn get(&self, name: &str, _: &str) -> Result<String, String> {
        Err(format!("secret/{name} cannot be opened here"))
    }
}

/// What a template became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The bytes of the file.
    pub text: String,
    /// The secrets in it, by name and key. A text that has any never leaves the node, nor does its hash.
    pub secrets: BTreeSet<(String, String)>,
}

/// A template that was read and can be rendered many times.
pub struct Template<'s> {
    engine: Environment<'s>,
    source: &'s str,
    budget: Arc<Budget>,
}

impl<'s> Template<'s> {
    /// Reads a template.
    ///
    /// # Errors
    /// Where and why it is none.
    pub fn parse(source: &'s str) -> Result<Template<'s>, Unrenderable> {
        let budget = Arc::new(Budget::default());
        let mut engine = Environment::new();
        engine.set_undefined_behavior(UndefinedBehavior::Strict);
        engine.set_auto_escape_callback(|_| AutoEscape::None);
        engine.set_fuel(Some(limits::fuel(source.len())));
        engine.set_recursion_limit(limits::DEPTH);
        // A file ends as its template does.
        if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
            engine.set_syntax(syntax);
        }
        // It shows what the engine holds, in words that change from one version of it to the next.
        engine.remove_global("debug");
        let spent = Arc::clone(&budget);
        engine.set_formatter(move |out, _, value| {
            let text = printed(value)?;
            spent.spend(text.len())?;
            out.write_str(&text).map_err(|_| Error::from(ErrorKind::WriteFailure))
        });
        match engine.add_template(NAME, source) {
            Ok(()) => Ok(Template { engine, source, budget }),
            Err(error) => Err(Unrenderable::of(&error, source, None)),
        }
    }

    /// What it asks for, as far as that can be told without rendering it.
    #[must_use]
    pub fn uses(&self) -> Uses {
        let names = self.engine.get_template(NAME).map(|t| t.undeclared_variables(true));
        Uses::new(names.unwrap_or_default())
    }

    /// Renders it.
    ///
    /// # Errors
    /// Where and why it cannot be.
    pub fn render(&self, input: &Input<'_>, secrets: &Arc<dyn Secrets>) -> Result<Rendered, Unrenderable> {
        self.budget.reset();
        let asked = Arc::new(Asked::default());
        let context = input.context(secret_function(secrets, &asked));
        let mut out = Bounded::default();
        let done = self
            .engine
            .get_template(NAME)
            .and_then(|template| template.render_captured_to(context, &mut out).map(drop));
        match done {
            Ok(()) => Ok(Rendered { text: out.into_text(), secrets: asked.take() }),
            Err(_) if out.is_full() => Err(Unrenderable::too_large()),
            Err(error) => Err(Unrenderable::of(&error, self.source, asked.refusal())),
        }
    }
}

/// As people write values into files: truth in lower case, nothing as nothing.
fn printed(value: &Value) -> Result<String, Error> {
    match value.kind() {
        ValueKind::Undefined => Err(Error::from(ErrorKind::UndefinedError)),
        ValueKind::Bool => Ok(if value.is_true() { "true" } else { "false" }.to_owned()),
        ValueKind::None => Ok(String::new()),
        _ => Ok(value.to_string()),
    }
}

/// What was asked for in one rendering.
#[derive(Default)]
struct Asked {
    secrets: Mutex<BTreeSet<(String, String)>>,
    refused: Mutex<Option<String>>,
}

impl Asked {
    fn take(&self) -> BTreeSet<(String, String)> {
        std::mem::take(&mut *lock(&self.secrets))
    }

    fn refusal(&self) -> Option<String> {
        lock(&self.refused).take()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn secret_function(secrets: &Arc<dyn Secrets>, asked: &Arc<Asked>) -> Value {
    let (secrets, asked) = (Arc::clone(secrets), Arc::clone(asked));
    Value::from_function(move |name: String, key: String| -> Result<String, Error> {
        match secrets.get(&name, &key) {
            Ok(value) => {
                lock(&asked.secrets).insert((name, key));
                Ok(value)
            }
            Err(why) => {
                *lock(&asked.refused) = Some(why.clone());
                Err(Error::new(ErrorKind::InvalidOperation, why))
            }
        }
    })
}
