//! `validate`, `version`, `completion`.

use clap::CommandFactory;
use serde_json::json;

use crate::args::local::{Completion, Validate, Version};
use crate::args::{Cli, Global};
use crate::connect::session;
use crate::failure::Failure;
use crate::manifests;
use crate::out::Out;
use crate::render::form::{Form, pretty};

/// `validate`.
///
/// # Errors
/// The refusal.
pub fn validate(global: &Global, args: &Validate, out: &mut Out) -> Result<(), Failure> {
    let form = Form::parse(args.output.as_deref())?;
    match manifests::read(&args.sources, &super::apply::local_namespace(global)?) {
        Ok(manifests) => {
            for object in manifests.objects() {
                out.line(&format!("{} valid", object.short()))?;
            }
            Ok(())
        }
        Err(Failure::Refused(refusal)) => {
            if form == Form::Json {
                out.data(&pretty(&refusal.to_json()))?;
            }
            Err(Failure::Refused(refusal))
        }
        Err(other) => Err(other),
    }
}

/// `version`. The control plane's is told if it can be; if it cannot the exit code says so.
///
/// # Errors
/// When the control plane was asked for and does not answer.
pub async fn version(global: &Global, args: &Version, out: &mut Out) -> Result<(), Failure> {
    let is_json = Form::parse(args.output.as_deref())? == Form::Json;
    let server = if args.client {
        None
    } else {
        Some(match session(global).await {
            Ok(session) => session.client.version().await.map(|reply| reply.version),
            Err(failure) => Err(failure),
        })
    };
    let known = server.as_ref().and_then(|s| s.as_ref().ok());
    if is_json {
        out.data(&pretty(&json!({"client": crate::VERSION, "server": known})))?;
    } else {
        out.line(&format!("client  {}", crate::VERSION))?;
        if !args.client {
            out.line(&format!("server  {}", known.map_or("?", String::as_str)))?;
        }
    }
    if let Some(version) = known.filter(|version| minor(version) != minor(crate::VERSION)) {
        out.warn(&format!("client {} and server {version} differ: use the server's version", crate::VERSION));
    }
    match server {
        Some(Err(failure)) => Err(failure),
        Some(Ok(_)) | None => Ok(()),
    }
}

fn minor(version: &str) -> Vec<&str> {
    version.split('.').take(2).collect()
}

/// `completion`.
///
/// # Errors
/// When output cannot be written.
pub fn completion(args: &Completion, out: &mut Out) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ostler", &mut script);
    out.bytes(&script)
}
