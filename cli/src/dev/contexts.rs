//! The contexts that `dev` writes and selects, for this program and for the stock NATS CLI, and what was there before.

use std::fs;
use std::path::{Path, PathBuf};

use ostler_schemas::Name;
use serde::{Deserialize, Serialize};

use crate::context::{Context, Contexts, remove_file, replace_file, settings_folder};
use crate::failure::Failure;

/// What both contexts are called.
pub const NAME: &str = "dev";
/// What contexts of fleets of `dev` say of themselves: ours, and the stock CLI's as setup writes it.
const OURS: [&str; 2] = ["the fleet of ostler dev", "\"description\": \"Ostler, read only\""];

/// Files as they were, to be put back: none means that there was none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    files: Vec<(PathBuf, Option<String>)>,
}

impl Saved {
    fn keep(&mut self, file: PathBuf) {
        // What an earlier `dev` left is nobody's: putting it back would keep a context of a fleet that is gone.
        let text = fs::read_to_string(&file).ok().filter(|text| !OURS.iter().any(|mark| text.contains(mark)));
        self.files.push((file, text));
    }

    /// Puts everything back. A selection that somebody made meanwhile is theirs, and stays.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn restore(&self) -> Result<(), Failure> {
        for (file, before) in &self.files {
            let is_selection = file.extension().is_some_and(|e| e == "txt");
            if is_selection && fs::read_to_string(file).is_ok_and(|now| now.trim() != NAME) {
                continue;
            }
            match before {
                Some(text) => replace_file(file, text.as_bytes())?,
                None => remove_file(file)?,
            }
        }
        Ok(())
    }
}

/// Writes and selects the contexts of a setup; what was there before.
///
/// # Errors
/// When a file cannot be read or written.
pub fn select(setup: &Path) -> Result<Saved, Failure> {
    select_in(setup, settings_folder("ostler")?, &settings_folder("nats")?)
}

fn select_in(setup: &Path, ours: PathBuf, stock: &Path) -> Result<Saved, Failure> {
    let mut saved = Saved::default();
    for folder in [ours.as_path(), stock] {
        // A context `dev` that is selected is a leftover: selecting nothing is better than selecting what is gone.
        let selection = folder.join("context.txt");
        let before = fs::read_to_string(&selection).ok().filter(|text| text.trim() != NAME);
        saved.files.push((selection, before));
        let file = folder.join("context").join(format!("{NAME}.json"));
        saved.keep(file);
    }
    let name: Name = NAME.parse().map_err(|error| Failure::local("context", error))?;
    let mut context = Context::read(&setup.join("operators").join(NAME).join("context.json"))?;
    context.description = Some(OURS[0].to_owned());
    let contexts = Contexts::at(ours);
    contexts.write(&name, &context)?;
    contexts.select(Some(NAME))?;
    let view = setup.join("view/nats-context.json");
    let text =
        fs::read(&view).map_err(|error| Failure::local(&format!("cannot read {}", view.display()), error))?;
    replace_file(&stock.join("context").join(format!("{NAME}.json")), &text)?;
    replace_file(&stock.join("context.txt"), NAME.as_bytes())?;
    Ok(saved)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(file: &Path, text: &str) {
        fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        fs::write(file, text).expect("written");
    }

    fn setup(folder: &Path) -> PathBuf {
        let setup = folder.join("setup");
        write(
            &setup.join("operators/dev/context.json"),
            r#"{"user":"dev","servers":["tls://127.0.0.1:1"],"credentials":"operator.nk","ca":"ca.pem"}"#,
        );
        write(&setup.join("view/nats-context.json"), "{\"description\": \"Ostler, read only\"}");
        setup
    }

    #[test]
    fn what_was_selected_before_is_selected_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let (ours, stock) = (folder.path().join("ostler"), folder.path().join("nats"));
        write(&stock.join("context.txt"), "prod");
        write(&ours.join("context/dev.json"), "somebody's own");
        let saved = select_in(&setup(folder.path()), ours, &stock).expect("selected");
        let read = |file: &str| fs::read_to_string(folder.path().join(file)).ok();
        assert_eq!(read("ostler/context.txt").as_deref(), Some("dev"));
        assert_eq!(read("nats/context.txt").as_deref(), Some("dev"));
        assert!(
            read("ostler/context/dev.json").is_some_and(|text| text.contains("operators/dev/operator.nk"))
        );
        saved.restore().expect("restored");
        assert_eq!(read("ostler/context.txt"), None);
        assert_eq!(read("nats/context.txt").as_deref(), Some("prod"));
        assert_eq!(read("ostler/context/dev.json").as_deref(), Some("somebody's own"));
        assert_eq!(read("nats/context/dev.json"), None);
    }

    #[test]
    fn a_selection_made_meanwhile_stays_and_leftovers_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let (ours, stock) = (folder.path().join("ostler"), folder.path().join("nats"));
        // As an earlier fleet that was killed together with its watcher left it.
        drop(select_in(&setup(folder.path()), ours.clone(), &stock).expect("selected"));
        let saved = select_in(&setup(folder.path()), ours.clone(), &stock).expect("selected");
        write(&ours.join("context.txt"), "prod");
        saved.restore().expect("restored");
        assert_eq!(fs::read_to_string(ours.join("context.txt")).expect("read"), "prod");
        assert!(!ours.join("context/dev.json").exists());
        assert!(!stock.join("context.txt").exists() && !stock.join("context/dev.json").exists());
    }
}
