//! Contexts: which bus, as whom, in which namespace. One file each, as the NATS CLI keeps its own.
//!
//! `$XDG_CONFIG_HOME/ostler/context/NAME.json` holds one, `$XDG_CONFIG_HOME/ostler/context.txt` names the selected
//! one. Which is used: `--context`, else `OSTLER_CONTEXT`, else the selected one. A value with a slash or ending in
//! `.json` is a file. Files are replaced whole, never edited in place.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use ostler_schemas::{Name, Namespace};
use serde::{Deserialize, Serialize};

use crate::failure::Failure;

/// What is needed to reach a control plane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Context {
    /// Who calls: the name that the credentials prove.
    pub user: Name,
    /// Servers of the bus: `tls://host:port`.
    pub servers: Vec<String>,
    /// File with the caller's secret key; relative to the folder of this file.
    pub credentials: PathBuf,
    /// File with the certificate authority of the servers; relative to the folder of this file.
    pub ca: PathBuf,
    /// Namespace of commands that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Namespace>,
    /// One line for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

impl Context {
    /// From a file; paths in it become absolute.
    ///
    /// # Errors
    /// When it cannot be read or is no context; the file is named.
    pub fn read(file: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(file).map_err(|error| {
            Failure::local(&format!("cannot read context file {}", file.display()), error)
        })?;
        let mut context: Context = serde_json::from_str(&text)
            .map_err(|error| Failure::local(&format!("{} is not a context", file.display()), error))?;
        let folder = file.parent().unwrap_or(Path::new("."));
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
        context.credentials = folder.join(&context.credentials);
        context.ca = folder.join(&context.ca);
        Ok(context)
    }
}

/// The contexts of this user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contexts {
    folder: PathBuf,
}

/// The folder of a program's settings: `$XDG_CONFIG_HOME/PROGRAM`, by default `~/.config/PROGRAM`.
///
/// # Errors
/// When neither variable that tells it is set.
pub fn settings_folder(program: &str) -> Result<PathBuf, Failure> {
    let absolute =
        |variable: &str| std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_CONFIG_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".config")))
        .map(|base| base.join(program))
        .ok_or_else(|| {
            Failure::message("neither XDG_CONFIG_HOME nor HOME is an absolute path: contexts have no place")
        })
}

impl Contexts {
    /// Those of the user who runs this.
    ///
    /// # Errors
    /// As [`settings_folder`].
    pub fn of_user() -> Result<Self, Failure> {
        Ok(Self { folder: settings_folder("ostler")? })
    }

    /// Those below `folder`.
    #[must_use]
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// The file of a context.
    #[must_use]
    pub fn file(&self, name: &Name) -> PathBuf {
        self.folder.join("context").join(format!("{name}.json"))
    }

    /// The names, in order.
    #[must_use]
    pub fn names(&self) -> Vec<Name> {
        let entries = fs::read_dir(self.folder.join("context")).into_iter().flatten().flatten();
        let mut names: Vec<Name> = entries
            .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".json")?.parse().ok())
            .collect();
        names.sort();
        names
    }

    /// The selected one's name.
    #[must_use]
    pub fn selected(&self) -> Option<String> {
        let text = fs::read_to_string(self.folder.join("context.txt")).ok()?;
        Some(text.trim().to_owned()).filter(|name| !name.is_empty())
    }

    /// Selects one, or none.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn select(&self, name: Option<&str>) -> Result<(), Failure> {
        match name {
            Some(name) => replace_file(&self.folder.join("context.txt"), name.as_bytes()),
            None => remove_file(&self.folder.join("context.txt")),
        }
    }

    /// Keeps one; its paths should be absolute.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, name: &Name, context: &Context) -> Result<(), Failure> {
        let mut text = serde_json::to_string_pretty(context)
            .map_err(|error| Failure::local("cannot write the context", error))?;
        text.push('\n');
        replace_file(&self.file(name), text.as_bytes())
    }

    /// Forgets one.
    ///
    /// # Errors
    /// When it is there and cannot be removed.
    pub fn remove(&self, name: &Name) -> Result<(), Failure> {
        remove_file(&self.file(name))
    }

    /// The one to use, and what it is called.
    ///
    /// # Errors
    /// When there is none, or it cannot be read; says what to do.
    pub fn resolve(&self, asked: Option<&str>) -> Result<(String, Context), Failure> {
        let name = match asked {
            Some(path) if path.contains('/') || path.ends_with(".json") => {
                return Ok((path.to_owned(), Context::read(Path::new(path))?));
            }
            Some(name) => name.to_owned(),
            None => self.selected().ok_or_else(|| self.none_selected())?,
        };
        let parsed: Name = name.parse().map_err(|error| Failure::local("no such context", error))?;
        if !self.file(&parsed).exists() {
            return Err(self.unknown(&name));
        }
        Ok((name, Context::read(&self.file(&parsed))?))
    }

    fn none_selected(&self) -> Failure {
        let names = self.names();
        let next = if names.is_empty() {
            "start one with \"ostler dev\", or take over an operator's: ostler context add NAME --file context.json"
                .to_owned()
        } else {
            format!("select one with \"ostler context use NAME\"; there are {}", listed(&names))
        };
        Failure::message(format!("no context is selected, so no control plane is known\nnext:  {next}"))
    }

    /// That there is no such context.
    #[must_use]
    pub fn unknown(&self, name: &str) -> Failure {
        let names = self.names();
        let near = crate::near::nearest(name, names.iter().map(Name::as_str));
        let hint = near.map(|n| format!("; did you mean {n}?")).unwrap_or_default();
        let have = if names.is_empty() { "none".to_owned() } else { listed(&names) };
        Failure::message(format!("no context {name:?}{hint} (there are: {have})"))
    }
}

fn listed(names: &[Name]) -> String {
    names.iter().map(Name::as_str).collect::<Vec<_>>().join(", ")
}

/// Replaces a file whole: readers see the old or the new one. Its folder is made if need be.
///
/// # Errors
/// When it cannot be written; the file is named.
pub fn replace_file(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let act = format!("cannot write {}", file.display());
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|error| Failure::local(&act, error))?;
    let mut temporary =
        tempfile::NamedTempFile::new_in(folder).map_err(|error| Failure::local(&act, error))?;
    temporary.write_all(bytes).map_err(|error| Failure::local(&act, error))?;
    temporary.as_file().sync_all().map_err(|error| Failure::local(&act, error))?;
    temporary.persist(file).map(|_| ()).map_err(|error| Failure::local(&act, error.error))
}

/// Removes a file if it is there.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove_file(file: &Path) -> Result<(), Failure> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::local(&format!("cannot remove {}", file.display()), error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Context {
        Context {
            user: "anna".parse().expect("a name"),
            servers: vec!["tls://127.0.0.1:4222".to_owned()],
            credentials: PathBuf::from("operator.nk"),
            ca: PathBuf::from("ca.pem"),
            namespace: None,
            description: None,
        }
    }

    #[test]
    fn the_selected_context_is_found_and_its_paths_are_absolute() {
        let folder = tempfile::tempdir().expect("a folder");
        let contexts = Contexts::at(folder.path().to_path_buf());
        let name: Name = "prod".parse().expect("a name");
        contexts.write(&name, &sample()).expect("written");
        contexts.select(Some("prod")).expect("selected");
        let (found, context) = contexts.resolve(None).expect("resolved");
        assert_eq!(found, "prod");
        assert!(context.credentials.is_absolute());
        assert!(context.credentials.ends_with("context/operator.nk"));
    }

    #[test]
    fn what_is_missing_is_said_with_what_to_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let contexts = Contexts::at(folder.path().to_path_buf());
        let nothing = contexts.resolve(None).expect_err("none").to_string();
        assert!(nothing.contains("ostler dev"), "{nothing}");
        contexts.write(&"prod".parse().expect("a name"), &sample()).expect("written");
        let wrong = contexts.resolve(Some("prdo")).expect_err("none").to_string();
        assert_eq!(wrong, "no context \"prdo\"; did you mean prod? (there are: prod)");
    }

    #[test]
    fn unknown_fields_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("x.json");
        fs::write(&file, r#"{"user":"a","servers":[],"credentials":"k","ca":"c","tls":false}"#)
            .expect("written");
        assert!(Context::read(&file).expect_err("refused").to_string().contains("unknown field `tls`"));
    }
}
