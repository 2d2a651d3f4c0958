//! The words and variables that a process starts with. Nothing is inherited from the agent.
//!
//! Of several values of one variable the last holds: what Ostler gives, then folders (`STATE_DIRECTORY` …), then `env`
//! of the template, then its environment files, as systemd's `EnvironmentFile=` goes before `Environment=`.

pub mod file;

use std::collections::BTreeMap;

use ostler_schemas::spec::{EnvSource, FieldPath, ProcessTemplate, port_variable};
use ostler_schemas::v1::epoch::Token;
use ostler_schemas::{Name, Namespace, NodeName, Uid, Version};

use crate::secrets::{self, Opened};

/// Where programs are looked for: systemd's default for services.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The node, as far as processes may see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its full name.
    pub hostname: String,
    /// Its address.
    pub address: String,
    /// What managed paths lie below; empty on a host.
    pub root: String,
    /// Its labels as far as the agent knows them: those of its own configuration and its facts, and over them those
    /// that its run document carries.
    pub labels: BTreeMap<String, String>,
}

/// The user that a process runs as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserFacts {
    /// Name.
    pub name: String,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

/// Everything that words and variables come from.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// The template.
    pub template: &'a ProcessTemplate,
    /// The process's uid.
    pub uid: Uid,
    /// Its namespace.
    pub namespace: &'a Namespace,
    /// Its name.
    pub name: &'a Name,
    /// The owner's version.
    pub version: Version,
    /// The fencing token.
    pub token: Token,
    /// Ports by name, as bound.
    pub ports: &'a BTreeMap<String, u16>,
    /// The node's name.
    pub node: &'a NodeName,
    /// The node.
    pub facts: &'a NodeFacts,
    /// The user.
    pub user: &'a UserFacts,
    /// Where its artifacts lie, if it has any.
    pub artifacts: Option<&'a str>,
    /// The values of Secrets that it is given.
    pub secrets: &'a Opened,
    /// Where its credentials lie, if it has any.
    pub credentials: Option<&'a str>,
}

/// What a process starts with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// Command and arguments.
    pub argv: Vec<String>,
    /// The whole environment, in order; a later variable of the same name has replaced the earlier one.
    pub env: Vec<(String, String)>,
}

impl Words {
    /// With the variables of environment files, which win over those of the template. The command does not see them:
    /// it was refused if it referred to one.
    #[must_use]
    pub fn with_files(mut self, variables: &[(String, String)]) -> Self {
        for (name, value) in variables {
            set(&mut self.env, name, value.clone());
        }
        self
    }
}

/// Why words cannot be made. Admission refuses most of these; a node can meet them when facts are missing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WordsError {
    /// A name in `$(…)` that is no variable of the process.
    #[error("{place} refers to $({name}), which is not set")]
    UnknownName {
        /// Where.
        place: String,
        /// The name.
        name: String,
    },
    /// A fact that this node does not have.
    #[error("variable {variable} takes {path}, which is not known on this node")]
    UnknownFact {
        /// The variable.
        variable: String,
        /// The fact.
        path: String,
    },
    /// A value of a Secret that no variable can have.
    #[error("variable {variable}: {why}")]
    NoText {
        /// The variable.
        variable: String,
        /// Why; nothing of the value.
        why: String,
    },
    /// There is no program to start.
    #[error("command is empty")]
    NoCommand,
}

/// Makes the words of one start.
///
/// # Errors
/// [`WordsError`], in words for people.
pub fn words(s: &Surroundings<'_>) -> Result<Words, WordsError> {
    let mut vars = given(s);
    for var in &s.template.env {
        let value = match (&var.value, &var.value_from) {
            (Some(text), _) => expand(text, &vars, &format!("variable {}", var.name))?,
            (None, Some(EnvSource::FieldRef(field))) => {
                let path = &field.field_path;
                fact(s, path).ok_or_else(|| WordsError::UnknownFact {
                    variable: var.name.clone(),
                    path: path.to_string(),
                })?
            }
            (None, Some(EnvSource::SecretKeyRef(secret))) => {
                let text = secrets::text(s.secrets, secret);
                let text = text.map_err(|why| WordsError::NoText { variable: var.name.clone(), why })?;
                match text {
                    Some(text) => text.to_owned(),
                    // It is optional and not there.
                    None => continue,
                }
            }
            (None, None) => String::new(),
        };
        set(&mut vars, &var.name, value);
    }
    let mut argv = Vec::with_capacity(s.template.command.len() + s.template.args.len());
    for word in s.template.command.iter().chain(&s.template.args) {
        argv.push(expand(word, &vars, "the command")?);
    }
    if argv.first().is_none_or(String::is_empty) {
        return Err(WordsError::NoCommand);
    }
    Ok(Words { argv, env: vars })
}

fn set(vars: &mut Vec<(String, String)>, name: &str, value: String) {
    match vars.iter_mut().find(|(n, _)| n == name) {
        Some((_, slot)) => *slot = value,
        None => vars.push((name.to_owned(), value)),
    }
}

fn given(s: &Surroundings<'_>) -> Vec<(String, String)> {
    let mut vars = vec![
        ("PATH".to_owned(), PATH.to_owned()),
        ("HOME".to_owned(), s.user.home.clone()),
        ("USER".to_owned(), s.user.name.clone()),
        ("LOGNAME".to_owned(), s.user.name.clone()),
        ("SHELL".to_owned(), s.user.shell.clone()),
        ("OSTLER_NAME".to_owned(), s.name.to_string()),
        ("OSTLER_NAMESPACE".to_owned(), s.namespace.to_string()),
        ("OSTLER_NODE".to_owned(), s.node.to_string()),
        ("OSTLER_UID".to_owned(), s.uid.to_string()),
        ("OSTLER_VERSION".to_owned(), s.version.to_string()),
        ("OSTLER_ROOT".to_owned(), s.facts.root.clone()),
        ("OSTLER_EPOCH".to_owned(), s.token.to_string()),
    ];
    let folders = crate::confine::folder_variables(s.template, &s.facts.root);
    vars.extend(folders.into_iter().map(|(name, paths)| (name.to_owned(), paths)));
    if let Some(folder) = s.artifacts {
        vars.push(("OSTLER_ARTIFACTS".to_owned(), folder.to_owned()));
    }
    if let Some(every) = s.template.watchdog_sec {
        // The holder says the same to who is watched.
        vars.push(("WATCHDOG_USEC".to_owned(), every.as_millis().saturating_mul(1_000).to_string()));
    }
    if let Some(folder) = s.credentials {
        vars.push(("CREDENTIALS_DIRECTORY".to_owned(), folder.to_owned()));
    }
    for port in &s.template.ports {
        if let Some(number) = crate::probe::port_number(&port.name, s.template, s.ports) {
            vars.push((port_variable(&port.name), number.to_string()));
        }
    }
    vars
}

fn fact(s: &Surroundings<'_>, path: &FieldPath) -> Option<String> {
    match path {
        FieldPath::Name => Some(s.name.to_string()),
        FieldPath::Namespace => Some(s.namespace.to_string()),
        FieldPath::Uid => Some(s.uid.to_string()),
        FieldPath::NodeName => Some(s.node.to_string()),
        FieldPath::NodeHostname => Some(s.facts.hostname.clone()),
        FieldPath::NodeLabel(key) => match key.as_str() {
            "ostler/node" => Some(s.node.to_string()),
            "ostler/hostname" => Some(s.facts.hostname.clone()),
            key => s.facts.labels.get(key).cloned(),
        },
        FieldPath::NodeAddress(which) => (which == "internal").then(|| s.facts.address.clone()),
        FieldPath::LimitCpu => s.template.resources.limits.cpu.map(|c| c.to_string()),
        FieldPath::LimitMemory => s.template.resources.limits.memory.map(|m| m.as_bytes().to_string()),
        FieldPath::Label(key) => s.template.labels.get(key).cloned(),
        // Nodes have no variables yet.
        FieldPath::NodeVar(_) => None,
    }
}

/// Fills in `$(NAME)`, by the same reading of the text as admission's: what it let pass as text is text here, too.
fn expand(text: &str, vars: &[(String, String)], place: &str) -> Result<String, WordsError> {
    let value_of = |name: &str| vars.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
    ostler_schemas::spec::expand(text, value_of)
        .map_err(|name| WordsError::UnknownName { place: place.to_owned(), name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars() -> Vec<(String, String)> {
        vec![("A".to_owned(), "1".to_owned()), ("OSTLER_PORT_HTTP".to_owned(), "8080".to_owned())]
    }

    #[test]
    fn names_are_expanded_and_doubled_signs_are_not() {
        let go = |text: &str| expand(text, &vars(), "the command");
        assert_eq!(go(":$(OSTLER_PORT_HTTP)/x").as_deref(), Ok(":8080/x"));
        assert_eq!(go("$$(A) $A $ $(").as_deref(), Ok("$(A) $A $ $("));
        assert!(matches!(go("$(B)"), Err(WordsError::UnknownName { .. })));
        assert_eq!(go("ls=$(ls -l) $$ ${A}").as_deref(), Ok("ls=$(ls -l) $$ ${A}"), "a shell's own words");
    }

    #[test]
    fn what_admission_lets_words_refer_to_is_known() {
        let template = ProcessTemplate {
            args: vec!["$(WATCHDOG_USEC)".to_owned()],
            watchdog_sec: Some("1500ms".parse().expect("a time")),
            ..crate::unit::tests::template("/bin/app", ostler_schemas::spec::Restart::Always)
        };
        assert_eq!(argv(&template), Ok(vec!["/bin/app".to_owned(), "1500000".to_owned()]));
        let without = ProcessTemplate { watchdog_sec: None, ..template };
        assert!(matches!(argv(&without), Err(WordsError::UnknownName { .. })));
    }

    fn argv(template: &ProcessTemplate) -> Result<Vec<String>, WordsError> {
        let (ports, facts, user) = (BTreeMap::new(), NodeFacts::default(), UserFacts::default());
        let words = words(&Surroundings {
            template,
            uid: Uid::from_bytes([1; 16]),
            namespace: &Namespace::default_namespace(),
            name: &"web-1".parse().expect("a name"),
            version: Version(1),
            token: Token::default(),
            ports: &ports,
            node: &"n1".parse().expect("a node"),
            facts: &facts,
            user: &user,
            artifacts: None,
            secrets: &Opened::default(),
            credentials: None,
        })?;
        Ok(words.argv)
    }

    fn taking(path: &str) -> ostler_schemas::spec::EnvVar {
        let field_path = path.parse().expect("a path");
        let field_ref = ostler_schemas::spec::FieldRef { field_path };
        let value_from = Some(EnvSource::FieldRef(field_ref));
        ostler_schemas::spec::EnvVar { name: "V".to_owned(), value: None, value_from }
    }

    #[test]
    fn facts_are_taken_from_the_template_and_from_the_node() {
        let label = |k: &str, v: &str| -> BTreeMap<String, String> { [(k.to_owned(), v.to_owned())].into() };
        let (user, ports) = (UserFacts::default(), BTreeMap::new());
        let facts = NodeFacts { labels: label("rack", "r7"), ..NodeFacts::default() };
        let value = |path: &str| {
            let template = ProcessTemplate {
                env: vec![taking(path)],
                labels: label("app", "web"),
                ..crate::unit::tests::template("/bin/app", ostler_schemas::spec::Restart::Always)
            };
            let words = words(&Surroundings {
                template: &template,
                uid: Uid::from_bytes([1; 16]),
                namespace: &Namespace::default_namespace(),
                name: &"web-1".parse().expect("a name"),
                version: Version(1),
                token: Token::default(),
                ports: &ports,
                node: &"n1".parse().expect("a node"),
                facts: &facts,
                user: &user,
                artifacts: None,
                secrets: &Opened::new(),
                credentials: None,
            })?;
            Ok(words
                .env
                .into_iter()
                .find(|(name, _)| name == "V")
                .map(|(_, value)| value)
                .unwrap_or_default())
        };
        assert_eq!(value("metadata.labels['app']").as_deref(), Ok("web"));
        assert_eq!(value("node.labels['rack']").as_deref(), Ok("r7"));
        assert_eq!(value("node.labels['ostler/node']").as_deref(), Ok("n1"));
        for unknown in ["metadata.labels['x']", "node.labels['x']"] {
            assert!(matches!(value(unknown), Err(WordsError::UnknownFact { .. })), "{unknown}");
        }
    }

    #[test]
    fn port_variables_are_capitals() {
        assert_eq!(port_variable("http-alt"), "OSTLER_PORT_HTTP_ALT");
    }
}
