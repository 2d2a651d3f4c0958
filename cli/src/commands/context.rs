//! `context`: which control plane is spoken to.

use std::path::{Path, PathBuf};

use ostler_schemas::Name;
use serde_json::json;

use crate::args::Global;
use crate::args::local::{Context as Args, ContextAdd};
use crate::context::{Context, Contexts};
use crate::failure::Failure;
use crate::out::Out;
use crate::render::form::pretty;
use crate::render::table::{Table, dash};

/// Runs it.
///
/// # Errors
/// Whatever keeps it from ending well.
pub fn run(args: &Args, global: &Global, out: &mut Out) -> Result<(), Failure> {
    let contexts = Contexts::of_user()?;
    match args {
        Args::Ls => list(&contexts, out),
        Args::Use { name } => {
            let known = known(&contexts, name)?;
            contexts.select(Some(known.as_str()))?;
            out.say(&format!("context {known} is selected"));
            Ok(())
        }
        Args::Show { name } => {
            let asked = name.as_deref().or(global.context.as_deref());
            let (name, context) = contexts.resolve(asked)?;
            let mut shown = json!(context);
            shown["context"] = json!(name);
            out.data(&pretty(&shown))
        }
        Args::Add(args) => add(&contexts, args, global, out),
        Args::Rm { name } => {
            let known = known(&contexts, name)?;
            contexts.remove(&known)?;
            if contexts.selected().as_deref() == Some(known.as_str()) {
                contexts.select(None)?;
                out.warn("it was the selected one: select another with \"ostler context use NAME\"");
            }
            out.say(&format!("context {known} is forgotten; keys that it named are left alone"));
            Ok(())
        }
    }
}

fn known(contexts: &Contexts, name: &str) -> Result<Name, Failure> {
    contexts.names().into_iter().find(|n| n.as_str() == name).ok_or_else(|| contexts.unknown(name))
}

fn list(contexts: &Contexts, out: &mut Out) -> Result<(), Failure> {
    let names = contexts.names();
    if names.is_empty() {
        out.say("no contexts; start a fleet with \"ostler dev\", or see \"ostler context add --help\"");
        return Ok(());
    }
    let selected = contexts.selected();
    let mut table = Table::new(vec!["SELECTED", "NAME", "USER", "NAMESPACE", "SERVERS"]);
    for name in names {
        let mark = if selected.as_deref() == Some(name.as_str()) { "*" } else { "-" };
        let context = Context::read(&contexts.file(&name));
        let (user, namespace, servers) = match context {
            Ok(context) => (context.user.to_string(), dash(context.namespace), context.servers.join(",")),
            Err(error) => {
                out.warn(&error.to_string());
                ("?".to_owned(), "?".to_owned(), "?".to_owned())
            }
        };
        table.push(vec![mark.to_owned(), name.to_string(), user, namespace, servers]);
    }
    out.data(&table.text(true, false))
}

fn add(contexts: &Contexts, args: &ContextAdd, global: &Global, out: &mut Out) -> Result<(), Failure> {
    let name: Name = args.name.parse().map_err(|error| Failure::message(format!("context: {error}")))?;
    let mut context = match &args.file {
        Some(file) => Context::read(file)?,
        None => from_parts(args)?,
    };
    for file in [&context.credentials, &context.ca] {
        if !file.exists() {
            return Err(Failure::message(format!("{} does not exist", file.display())));
        }
    }
    if let Some(namespace) = &global.namespace {
        let parsed = namespace.parse().map_err(|error| Failure::message(format!("namespace: {error}")))?;
        context.namespace = Some(parsed);
    }
    context.description = args.description.clone().or(context.description);
    contexts.write(&name, &context)?;
    // The first one is the one to use.
    if args.select || contexts.selected().is_none() {
        contexts.select(Some(name.as_str()))?;
        out.say(&format!("context {name} is kept and selected"));
    } else {
        out.say(&format!("context {name} is kept; select it with \"ostler context use {name}\""));
    }
    Ok(())
}

fn from_parts(args: &ContextAdd) -> Result<Context, Failure> {
    let missing = |what: &str| Failure::message(format!("--{what} is missing"));
    let user = args.user.as_deref().ok_or_else(|| missing("user"))?;
    Ok(Context {
        user: user.parse().map_err(|error| Failure::message(format!("--user: {error}")))?,
        servers: args.server.clone(),
        credentials: absolute(args.credentials.as_deref().ok_or_else(|| missing("credentials"))?)?,
        ca: absolute(args.ca.as_deref().ok_or_else(|| missing("ca"))?)?,
        namespace: None,
        description: None,
    })
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::local(&format!("cannot use {}", path.display()), error))
}
