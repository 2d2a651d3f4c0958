//! Documents, metadata, and the spec of every kind (CONTRACT.md sections 1, 3 and 4).

use super::action::{ACTION, MOST_ACTIONS};
use super::probe::PROBE;
use super::{Field, Object, TEMPLATE, Type, choice};
use crate::ids::Kind;

/// More replicas than any server's `max_replicas`: what fits the type. The server's own limit is a rule.
const REPLICAS: Type = Type::Int { min: 0, max: u32::MAX as i64 };

/// A whole document.
pub const DOCUMENT: Object = Object {
    fields: &[
        Field::new("apiVersion", Type::Exactly("ostler/v1"), "The version of this contract.")
            .required("write ostler/v1"),
        Field::new("kind", Type::Kind, "What the object is.").required("for example Deployment").immutable(),
        Field::new("metadata", Type::Object(&METADATA), "What it is called.")
            .required("for example {name: web}"),
        Field::new("spec", Type::Anything, "What is asked for."),
        Field::ignored("status", "What is so."),
    ],
};

/// What an object is called and marked with.
pub const METADATA: Object = Object {
    fields: &[
        Field::new("name", Type::Name, "Unique per kind and namespace.")
            .required("for example web-1")
            .immutable(),
        Field::new("namespace", Type::Name, "The context's namespace if left out, else default.").immutable(),
        Field::new("labels", Type::Labels { own: false }, "For selection.").or("{}"),
        Field::new("annotations", Type::Annotations, "For people and programs outside.").or("{}"),
        Field::new(
            "revision",
            Type::Int { min: 1, max: i64::MAX },
            "Refused if the object has another revision by now.",
        ),
        Field::ignored("uid", "The object for all time."),
        Field::ignored("generation", "Counts changes of the spec."),
        Field::ignored("creationTimestamp", "When it was made."),
        Field::ignored("deletionTimestamp", "When its end was asked."),
        Field::ignored("finalizers", "What must be done before it goes."),
        Field::ignored("ownerReferences", "Who made it."),
        Field::ignored("applied", "What was applied last."),
        Field::ignored("version", "What is rolled out."),
        Field::ignored("touched", "What other verbs changed since the last apply."),
    ],
};

const TEMPLATE_METADATA: Object = Object {
    fields: &[
        Field::new("labels", Type::Labels { own: false }, "Of every process.").or("{}"),
        Field::new("annotations", Type::Annotations, "Of every process.").or("{}"),
    ],
};

const WORKLOAD_TEMPLATE: Object = Object {
    fields: &[
        Field::new("metadata", Type::Object(&TEMPLATE_METADATA), "Labels and annotations of every process.")
            .or("{}"),
        Field::new("spec", Type::Object(&TEMPLATE), "What every process is.")
            .required("for example {command: [/usr/bin/app]}"),
    ],
};

const WAVES: Field = Field::new(
    "waves",
    Type::List { of: &Type::Share, max: 100 },
    "Rising and cumulative, last 100%; of replicas, or of nodes that beat.",
);
const BAKE: Field =
    Field::new("bake", Type::Duration { positive: false }, "How long a wave must stay healthy.").or("10s");
const MAX_FAILURES: Field =
    Field::new("maxFailures", Type::Share, "So many failures in a wave are borne; a share is of the wave.")
        .or("0");
const ON_FAILURE: Field =
    Field::new("onFailure", choice(&["rollback", "pause"]), "What is done when a version fails.")
        .or("rollback");
const PAUSE_AFTER: Field = Field::new(
    "pauseAfter",
    Type::List { of: &Type::Int { min: 1, max: 99 }, max: 99 },
    "Waves after which a person goes on by rollout resume.",
)
.or("[]");
const PROGRESS_DEADLINE: Field =
    Field::new("progressDeadline", Type::Duration { positive: true }, "How long a wave may be waited for.")
        .or("10m");
const MAX_UNAVAILABLE: Field = Field::new(
    "maxUnavailable",
    Type::Share,
    "Nodes in action or unhealthy at one time, of the wave; the whole wave if left out. ConfigFile only.",
);
const GROUP_BY: Field =
    Field::new("groupBy", Type::LabelKey, "A node label whose values a wave never mixes. ConfigFile only.");
const WINDOWS: Field = Field::new(
    "windows",
    Type::List { of: &Type::Window, max: 50 },
    "When a wave may start; always if left out.",
)
.or("[]");
const MAX_MEMORY: Field = Field::new(
    "maxMemoryIncrease",
    Type::Increase,
    "More memory than the version before, while baking, is a failure.",
);
const MAX_ERROR_LINES: Field = Field::new(
    "maxErrorLineIncrease",
    Type::Increase,
    "More error lines than the version before, while baking, are a failure.",
);

/// Of workloads, whose strategy paces them already.
const ROLLOUT: Object = Object {
    fields: &[
        WAVES.or("[100%]"),
        BAKE,
        MAX_FAILURES,
        ON_FAILURE,
        PAUSE_AFTER,
        PROGRESS_DEADLINE,
        MAX_UNAVAILABLE,
        GROUP_BY,
        WINDOWS,
        MAX_MEMORY,
        MAX_ERROR_LINES,
    ],
};

/// Of files, which reach every host: one node goes before the others.
const FILE_ROLLOUT: Object = Object {
    fields: &[
        WAVES.or("[1, 10%, 100%]"),
        BAKE,
        MAX_FAILURES,
        ON_FAILURE,
        PAUSE_AFTER,
        PROGRESS_DEADLINE,
        MAX_UNAVAILABLE,
        GROUP_BY,
        WINDOWS,
        MAX_MEMORY,
        MAX_ERROR_LINES,
    ],
};

const ROLLING_UPDATE: Object = Object {
    fields: &[
        Field::new("maxSurge", Type::Share, "How many above replicas; rounds up.").or("25%"),
        Field::new("maxUnavailable", Type::Share, "How many below replicas; rounds down.").or("25%"),
    ],
};

const STRATEGY: Object = Object {
    fields: &[
        Field::new("type", choice(&["RollingUpdate", "Recreate"]), "A few at a time, or all at once.")
            .or("RollingUpdate"),
        Field::new("rollingUpdate", Type::Object(&ROLLING_UPDATE), "The bounds of RollingUpdate."),
    ],
};

const DEPLOYMENT: Object = Object {
    fields: &[
        Field::new("replicas", REPLICAS, "How many processes; 1 at first.").kept(),
        Field::new("strategy", Type::Object(&STRATEGY), "How old processes are exchanged for new ones.")
            .or("{}"),
        Field::reserved("singleton", "Never two live copies."),
        Field::reserved("fence", "What proves that a lost copy is gone."),
        Field::new("paused", Type::Bool, "Whether rollouts stand still; false at first.").kept(),
        Field::reserved("versionHistoryLimit", "How many versions are kept."),
        Field::new("rollout", Type::Object(&ROLLOUT), "How a new version spreads and is judged.").or("{}"),
        Field::new("template", Type::Object(&WORKLOAD_TEMPLATE), "What every process is.")
            .required("for example {spec: {command: [/usr/bin/app]}}"),
    ],
};

/// Most files of one ConfigFile: with all they refer to they must fit one file spec.
const MOST_FILES: usize = 200;
/// Most overrides of one ConfigFile: each is looked at for every node.
const MOST_OVERRIDES: usize = 200;
/// Most nodes that one override names.
const MOST_NODES: usize = 1_000;

const FILE_ITEM: Object = Object {
    fields: &[
        Field::new("name", Type::Relative, "Where it is below path.").required("for example main.conf"),
        Field::new("content", Type::Content, "What is in it, as text."),
        Field::new("contentBase64", Type::Base64, "What is in it, as base64."),
        Field::new("template", Type::Content, "What is in it, rendered for each node."),
        Field::new("mode", Type::Mode, "Permission bits, as text; those of the ConfigFile if left out."),
    ],
};

const OVERRIDE: Object = Object {
    fields: &[
        Field::new("nodeSelector", Type::Labels { own: true }, "For nodes with these labels."),
        Field::new("nodes", Type::List { of: &Type::Name, max: MOST_NODES }, "For nodes of these names."),
        Field::new("vars", Type::Vars, "Values, merged over those before, key by key.")
            .required("for example {debug: true}"),
    ],
};

const VALIDATOR: Object = Object {
    fields: &[
        Field::new(
            "command",
            Type::Command,
            "The program and its words; $(FILE) is the candidate; code 0 is good.",
        ),
        Field::new("user", Type::Account, "Name or number; the owner of the file if left out."),
        Field::new(
            "timeout",
            Type::Duration { positive: true },
            "How long the command may take before it is killed.",
        )
        .or("10s"),
        Field::new(
            "syntax",
            choice(&["json", "yaml", "toml", "ini"]),
            "What every file of the version must be.",
        ),
    ],
};

const CONFIG_FILE: Object = Object {
    fields: &[
        Field::new("path", Type::FilePath, "Where the file is.")
            .required("for example /etc/app.conf")
            .immutable(),
        Field::new("nodeSelector", Type::Labels { own: true }, "Which nodes have it; {} is every node.")
            .required("write {} for every node"),
        Field::new("content", Type::Content, "What is in it, as text.").kept(),
        Field::new("contentBase64", Type::Base64, "What is in it, as base64.").kept(),
        Field::new("template", Type::Content, "What is in it, rendered for each node.").kept(),
        Field::new(
            "files",
            Type::List { of: &Type::Object(&FILE_ITEM), max: MOST_FILES },
            "Several files; path is then a folder.",
        )
        .or("[]"),
        Field::new("unlisted", choice(&["keep", "delete"]), "What is done with files that are not named.")
            .or("keep"),
        Field::new("vars", Type::Vars, "Values for templates.").or("{}"),
        Field::new(
            "overrides",
            Type::List { of: &Type::Object(&OVERRIDE), max: MOST_OVERRIDES },
            "Other values for some nodes; the last that matches wins.",
        )
        .or("[]"),
        Field::new("owner", Type::Account, "Name or number.").or("root"),
        Field::new("group", Type::Account, "Name or number; the owner's group if left out."),
        Field::new("mode", Type::Mode, "Permission bits, as text.").or("\"0644\""),
        Field::new("createDirectories", Type::Bool, "Whether missing parent folders are made.").or("true"),
        Field::new(
            "validator",
            Type::Object(&VALIDATOR),
            "What looks at a version before it is put in place.",
        ),
        Field::new(
            "onChange",
            Type::List { of: &Type::Object(&ACTION), max: MOST_ACTIONS },
            "What is done on a node after a change there, in order.",
        )
        .or("[]"),
        Field::new("probe", Type::Object(&PROBE), "Asked from the action to the end of the bake."),
        Field::new(
            "drift",
            choice(&["enforce", "warn", "ignore"]),
            "What is done when it was changed by hand.",
        )
        .or("enforce"),
        Field::new(
            "onExisting",
            choice(&["replace", "refuse"]),
            "At first contact with a file not written by Ostler.",
        )
        .or("replace"),
        Field::new("onRemove", choice(&["keep", "restore", "delete"]), "What stays when the object goes.")
            .or("keep"),
        Field::new("paused", Type::Bool, "Whether rollouts stand still; false at first.").kept(),
        Field::new("rollout", Type::Object(&FILE_ROLLOUT), "How a new version spreads and is judged.")
            .or("{}"),
    ],
};

const TAINT: Object = Object {
    fields: &[
        Field::new("key", Type::LabelKey, "What it is about.").required("for example maintenance"),
        Field::new("value", Type::LabelValue, "More of it.").or("\"\""),
        Field::new("effect", choice(&["NoSchedule", "PreferNoSchedule", "NoExecute"]), "What it does.")
            .required("for example NoSchedule"),
    ],
};

const RESERVED: Object = Object {
    fields: &[
        Field::new("cpu", Type::Cpu, "Of the processor.").or("100m"),
        Field::new("memory", Type::Size, "Of main memory.").or("256Mi"),
    ],
};

const NODE: Object = Object {
    fields: &[
        Field::new("unschedulable", Type::Bool, "Whether it takes no new processes; false at first.").kept(),
        Field::new(
            "taints",
            Type::List { of: &Type::Object(&TAINT), max: 100 },
            "What processes must tolerate.",
        )
        .kept(),
        Field::new("vars", Type::Vars, "Values for the templates of ConfigFiles.").kept(),
        Field::new("reserved", Type::Object(&RESERVED), "What is left to programs outside Ostler.").or("{}"),
    ],
};

const STATEFUL_SET: Object = Object {
    fields: &[
        Field::reserved("replicas", "How many members."),
        Field::reserved("ordinals", "Where counting starts."),
        Field::reserved("updateStrategy", "How members are updated."),
        Field::reserved("managementPolicy", "In order or at once."),
        Field::reserved("serviceName", "The Service that names members."),
        Field::reserved("dataDirectories", "Folders that stay."),
        Field::reserved("fence", "What proves that a lost copy is gone."),
        Field::reserved("onNodeLoss", "Wait or make anew."),
        Field::reserved("rollout", "How a new version spreads."),
        Field::reserved("paused", "Whether rollouts stand still."),
        Field::reserved("versionHistoryLimit", "How many versions are kept."),
        Field::reserved("template", "What every member is."),
    ],
};

const DAEMON_SET: Object = Object {
    fields: &[
        Field::reserved("updateStrategy", "How processes are updated."),
        Field::reserved("versionHistoryLimit", "How many versions are kept."),
        Field::reserved("rollout", "How a new version spreads."),
        Field::reserved("paused", "Whether rollouts stand still."),
        Field::reserved("template", "What every process is."),
    ],
};

const JOB: Object = Object {
    fields: &[
        Field::reserved("parallelism", "How many at a time."),
        Field::reserved("completions", "How many successes."),
        Field::reserved("completionMode", "Whether they are numbered."),
        Field::reserved("backoffLimit", "So many failures end it."),
        Field::reserved("activeDeadline", "How long it may take."),
        Field::reserved("ttlAfterFinished", "How long it is kept."),
        Field::reserved("suspend", "Whether it stands still."),
        Field::reserved("perNode", "One on each node."),
        Field::reserved("template", "What every process is."),
    ],
};

const CRON_JOB: Object = Object {
    fields: &[
        Field::reserved("schedule", "When."),
        Field::reserved("timeZone", "Whose clock."),
        Field::reserved("concurrencyPolicy", "What if the last one still runs."),
        Field::reserved("missedRuns", "What if a time was missed."),
        Field::reserved("startingDeadline", "How late it may start."),
        Field::reserved("randomizedDelaySec", "Spread of starts."),
        Field::reserved("suspend", "Whether it stands still."),
        Field::reserved("successfulJobsHistoryLimit", "How many are kept."),
        Field::reserved("failedJobsHistoryLimit", "How many are kept."),
        Field::reserved("jobTemplate", "What every Job is."),
    ],
};

/// Names to keep: far more than values of 256 Ki in all are ever given.
const MOST_KEYS: usize = 10_000;

const SECRET: Object = Object {
    fields: &[
        Field::new("stringData", Type::SecretValues, "Values as text; never shown again.").kept(),
        Field::new("data", Type::SecretValues, "Values as base64; never shown again.").kept(),
        Field::new(
            "keep",
            Type::List { of: &Type::SecretKey, max: MOST_KEYS },
            "Names of values that stay beside those that are given; all stay where nothing is given.",
        )
        .kept(),
        Field::new("immutable", Type::Bool, "Whether its values can never change.").or("false"),
    ],
};

const SERVICE: Object = Object {
    fields: &[
        Field::reserved("selector", "Labels of its processes."),
        Field::reserved("ports", "Names of their ports."),
        Field::reserved("publishNotReadyAddresses", "Whether processes count before they are ready."),
    ],
};

const NAMESPACE_LOGS: Object = Object {
    fields: &[Field::new(
        "ship",
        Type::Bool,
        "Whether the output of its processes is also stored on the bus, to outlive its host.",
    )
    .or("false")],
};

const NAMESPACE: Object = Object {
    fields: &[Field::new(
        "logs",
        Type::Object(&NAMESPACE_LOGS),
        "What becomes of the output of its processes, beyond the files on their hosts.",
    )
    .or("{}")],
};

const QUOTA: Object = Object { fields: &[Field::reserved("hard", "The most of each.")] };
const ROLE: Object = Object { fields: &[Field::reserved("rules", "What is allowed.")] };
const ROLE_BINDING: Object = Object {
    fields: &[Field::reserved("roleRef", "Which Role."), Field::reserved("subjects", "Who has it.")],
};
const PRIORITY_CLASS: Object = Object {
    fields: &[
        Field::reserved("value", "The higher, the sooner."),
        Field::reserved("preemptionPolicy", "Whether it pushes others out."),
    ],
};

/// The fields under `spec:` of a kind.
#[must_use]
pub const fn spec_of(kind: Kind) -> &'static Object {
    match kind {
        Kind::Node => &NODE,
        Kind::Namespace => &NAMESPACE,
        Kind::Process => &TEMPLATE,
        Kind::Deployment => &DEPLOYMENT,
        Kind::ConfigFile => &CONFIG_FILE,
        Kind::StatefulSet => &STATEFUL_SET,
        Kind::DaemonSet => &DAEMON_SET,
        Kind::Job => &JOB,
        Kind::CronJob => &CRON_JOB,
        Kind::Secret => &SECRET,
        Kind::Service => &SERVICE,
        Kind::ResourceQuota => &QUOTA,
        Kind::Role => &ROLE,
        Kind::RoleBinding => &ROLE_BINDING,
        Kind::PriorityClass => &PRIORITY_CLASS,
    }
}
