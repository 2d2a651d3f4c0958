//! What is done after a change of a file, and selectors of what it is done to.

use super::template::MAX_ENTRIES;
use super::{Field, Object, Type, choice};

/// Most actions of one ConfigFile: each is a step that somebody has thought of.
pub(super) const MOST_ACTIONS: usize = 20;

const REQUIREMENT: Object = Object {
    fields: &[
        Field::new("key", Type::LabelKey, "The label that is looked at.").required("for example app"),
        Field::new(
            "operator",
            choice(&["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]),
            "How it is compared.",
        )
        .required("for example In"),
        Field::new("values", Type::List { of: &Type::LabelValue, max: MAX_ENTRIES }, "With what.").or("[]"),
    ],
};

/// A selector with expressions.
const SELECTOR: Object = Object {
    fields: &[
        Field::new("matchLabels", Type::Labels { own: true }, "These labels have these values.").or("{}"),
        Field::new(
            "matchExpressions",
            Type::List { of: &Type::Object(&REQUIREMENT), max: MAX_ENTRIES },
            "And these expressions hold.",
        )
        .or("[]"),
    ],
};

const TARGET: Object = Object {
    fields: &[
        Field::new(
            "processSelector",
            Type::Object(&SELECTOR),
            "Processes of the same namespace on the same node.",
        ),
        Field::new("unit", Type::Text, "A unit of the host's systemd, as nginx.service."),
    ],
};

const EXEC: Object = Object {
    fields: &[
        Field::new("command", Type::Command, "The program and its words; no shell.")
            .required("for example [\"/usr/bin/app\", \"--x\"]"),
        Field::new("user", Type::Account, "Name or number; the owner of the file if left out."),
        Field::new(
            "timeout",
            Type::Duration { positive: true },
            "How long it may take before it has failed.",
        )
        .or("30s"),
    ],
};

pub(super) const ACTION: Object = Object {
    fields: &[
        Field::new("reload", Type::Object(&TARGET), "Has what is named read its configuration again."),
        Field::new("restart", Type::Object(&TARGET), "Ends what is named in order and starts it anew."),
        Field::new("exec", Type::Object(&EXEC), "Runs a command."),
    ],
};
