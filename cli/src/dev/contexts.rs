//! The contexts that `dev` writes and selects, for this program and for the stock NATS CLI, and what was there before.

use std::fs;
use std::path::{Path, PathBuf};

use ostler_schemas::Name;
use serde::{Deserialize, Serialize};

use crate::context::{Context, Contexts, remove_file, replace_file, settings_folder};
use crate::failure::Failure;

/// What both contexts are called.
pub const NAME: &str = "dev";

/// Files as they were, to be put back: none means that there was none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    files: Vec<(PathBuf, Option<String>)>,
}

impl Saved {
    fn keep(&mut self, file: PathBuf) {
        let text = fs::read_to_string(&file).ok();
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
    let (ours, stock) = (settings_folder("ostler")?, settings_folder("nats")?);
    let mut saved = Saved::default();
    for folder in [&ours, &stock] {
        // A context `dev` that is selected is a leftover: selecting nothing is better than selecting what is gone.
        let selection = folder.join("context.txt");
        let before = fs::read_to_string(&selection).ok().filter(|text| text.trim() != NAME);
        saved.files.push((selection, before));
        let file = folder.join("context").join(format!("{NAME}.json"));
        saved.keep(file);
    }
    let name: Name = NAME.parse().map_err(|error| Failure::local("context", error))?;
    let mut context = Context::read(&setup.join("operators").join(NAME).join("context.json"))?;
    context.description = Some("the fleet of ostler dev".to_owned());
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
