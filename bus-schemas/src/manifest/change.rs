//! Fields that cannot change after creation.

use crate::spec::Spec;

/// The immutable fields in which two specs of one object differ, each with the message of its refusal.
#[must_use]
pub fn immutable_changes(is: &Spec, asked: &Spec) -> Vec<(&'static str, String)> {
    let mut out = Vec::new();
    let mut compare = |field, is: String, asked: String| {
        if is != asked {
            let message =
                format!("cannot change after creation (is {is}, asked {asked}): create another object");
            out.push((field, message));
        }
    };
    match (is, asked) {
        (Spec::ConfigFile(is), Spec::ConfigFile(asked)) => {
            compare("spec.path", is.path.clone(), asked.path.clone());
            let what = |spec: &crate::spec::ConfigFileSpec| match spec.is_folder() {
                true => "a folder with files".to_owned(),
                false => "one file".to_owned(),
            };
            // Nothing was written yet while there is no content: then it may still become either.
            if is.has_content() {
                compare("spec.files", what(is), what(asked));
            }
        }
        (Spec::Process(is), Spec::Process(asked)) => {
            let name = |node: &Option<crate::ids::NodeName>| {
                node.as_ref().map_or("none".to_owned(), ToString::to_string)
            };
            compare("spec.nodeName", name(&is.0.node_name), name(&asked.0.node_name));
        }
        (Spec::Secret(is), Spec::Secret(asked)) => {
            if is.immutable && !asked.has_values_of(is) {
                let message = "cannot change: the Secret is immutable; create another one";
                out.push(("spec", message.to_owned()));
            }
            if is.immutable && !asked.immutable {
                out.push(("spec.immutable", "cannot be taken back; create another Secret".to_owned()));
            }
        }
        // A Deployment's processes are made anew with each template, so its nodeName may change.
        (Spec::Deployment(_), Spec::Deployment(_))
        | (Spec::Node(_), Spec::Node(_))
        | (Spec::Namespace(_), Spec::Namespace(_)) => {}
        (is, asked) => compare("kind", is.kind().to_string(), asked.kind().to_string()),
    }
    out
}
