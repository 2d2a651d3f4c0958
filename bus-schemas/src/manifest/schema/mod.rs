//! Every field of every kind, as data: its name, type, default and marks, with one line for people.
//!
//! The checker, the JSON Schema and the suggestions for misspelt names all read these tables. A field that this
//! version does not serve stands here too, marked reserved: it is answered with `NotSupported`, never ignored and
//! never called unknown. Rules that concern several fields are in [`super::check`].

mod action;
mod json_schema;
mod kinds;
mod probe;
mod reference;
mod template;
mod words;

pub use json_schema::json_schema;
pub use kinds::{DOCUMENT, METADATA, spec_of};
pub use reference::field_reference;
pub use template::TEMPLATE;
pub use words::{suggest, translate};

/// Types of values.
#[derive(Debug, Clone, Copy)]
pub enum Type {
    /// Any text.
    Text,
    /// `true` or `false`.
    Bool,
    /// A whole number within bounds.
    Int {
        /// The lowest.
        min: i64,
        /// The highest.
        max: i64,
    },
    /// A duration.
    Duration {
        /// Whether 0 is refused.
        positive: bool,
    },
    /// A size in bytes.
    Size,
    /// A size per second, more than nothing.
    Rate,
    /// An amount of CPU, at least `1m`.
    Cpu,
    /// A count or a percentage.
    Share,
    /// A percentage of what was before.
    Increase,
    /// A span of time that comes again each week.
    Window,
    /// Permission bits as text.
    Mode,
    /// A signal's name.
    Signal,
    /// A resource limit.
    Rlimit,
    /// An exit code, or a signal's name.
    ExitStatus,
    /// A capability's name.
    Capability,
    /// Numbers of cores.
    CpuList,
    /// A hash, in hex.
    Sha256,
    /// Where an artifact is fetched from.
    Source,
    /// One of a few words.
    Choice {
        /// Those that are served.
        words: &'static [&'static str],
        /// Those that are known and not served yet.
        reserved: &'static [&'static str],
    },
    /// The name of an object: a DNS label.
    Name,
    /// Labels: keys and values as in Kubernetes.
    Labels {
        /// Whether keys below `ostler/` may be written (selectors name them, nobody sets them).
        own: bool,
    },
    /// The key of a label, alone.
    LabelKey,
    /// The value of a label, alone.
    LabelValue,
    /// Keys as of labels, values any text.
    Annotations,
    /// A program and its first words.
    Command,
    /// The name of an environment variable.
    EnvName,
    /// An absolute path.
    Path,
    /// The path of a managed file: absolute, in normal form, not below what belongs to the kernel or to Ostler.
    FilePath,
    /// Where something lies below a folder: relative, never above it.
    Relative,
    /// A folder of a process below one of the host's: as relative paths, and fit for a list separated by colons.
    Directory,
    /// Name or number of a user or group.
    Account,
    /// A fact of the process or its node.
    FieldPath,
    /// What must hold before a start.
    Need,
    /// The name of a value of a Secret, which may be the name of a file.
    SecretKey,
    /// Values of a Secret by name. No message repeats any of them.
    SecretValues,
    /// A port by number or name.
    PortRef,
    /// What is in a file, as text.
    Content,
    /// What is in a file, as base64.
    Base64,
    /// Values for templates: a map of anything.
    Vars,
    /// A value of a fixed text.
    Exactly(&'static str),
    /// A kind.
    Kind,
    /// Fields.
    Object(&'static Object),
    /// Several of one type.
    List {
        /// What each is.
        of: &'static Type,
        /// At most so many.
        max: usize,
    },
    /// Anything: of fields that are not looked at.
    Anything,
}

/// The fields of a map.
#[derive(Debug)]
pub struct Object {
    /// In the order of the contract.
    pub fields: &'static [Field],
}

impl Object {
    /// The field of that name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// Whether a field must be given, and what its absence means.
#[derive(Debug, Clone, Copy)]
pub enum Presence {
    /// May be left out; absent means the default, or nothing.
    Optional,
    /// Must be given; with what to write.
    Required(&'static str),
    /// Keeps its value when left out, because it has a verb of its own.
    Kept,
    /// Set by Ostler; accepted and ignored.
    Ignored,
    /// Known, and refused until the server has it.
    Reserved,
}

/// One field.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub ty: Type,
    /// What is taken when it is left out, as it would be written.
    pub default: Option<&'static str>,
    /// Whether it must be given.
    pub presence: Presence,
    /// Whether it cannot change after creation.
    pub is_immutable: bool,
    /// One line for people.
    pub doc: &'static str,
}

impl Field {
    const fn new(name: &'static str, ty: Type, doc: &'static str) -> Field {
        Field { name, ty, default: None, presence: Presence::Optional, is_immutable: false, doc }
    }

    const fn or(mut self, default: &'static str) -> Field {
        self.default = Some(default);
        self
    }

    const fn required(mut self, example: &'static str) -> Field {
        self.presence = Presence::Required(example);
        self
    }

    const fn kept(mut self) -> Field {
        self.presence = Presence::Kept;
        self
    }

    const fn immutable(mut self) -> Field {
        self.is_immutable = true;
        self
    }

    const fn reserved(name: &'static str, doc: &'static str) -> Field {
        let field = Field::new(name, Type::Anything, doc);
        Field { presence: Presence::Reserved, ..field }
    }

    const fn ignored(name: &'static str, doc: &'static str) -> Field {
        let field = Field::new(name, Type::Anything, doc);
        Field { presence: Presence::Ignored, ..field }
    }
}

/// Several texts, for arguments and such; bounded only by the size of the object.
const WORDS: Type = Type::List { of: &Type::Text, max: usize::MAX };

const fn choice(words: &'static [&'static str]) -> Type {
    Type::Choice { words, reserved: &[] }
}

#[cfg(test)]
mod tests;
