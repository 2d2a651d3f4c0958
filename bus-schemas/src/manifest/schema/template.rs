//! The process template (CONTRACT.md section 2).

use super::{Field, Object, Type, WORDS, choice};

const ANY_TIME: Type = Type::Duration { positive: false };
const SOME_TIME: Type = Type::Duration { positive: true };
const MANY: i64 = 1_000_000;

/// Most entries of `env` (CONTRACT.md 1.3).
pub(in crate::manifest) const MAX_ENV: usize = 500;
/// Most ports, tolerations or needs of one process: far above use, so that checking pairs stays cheap.
pub(in crate::manifest) const MAX_ENTRIES: usize = 500;

const FIELD_REF: Object = Object {
    fields: &[Field::new("fieldPath", Type::FieldPath, "Which fact of the process or its node.")
        .required("for example node.name")],
};

const ENV_SOURCE: Object = Object {
    fields: &[
        Field::new("fieldRef", Type::Object(&FIELD_REF), "A fact of the process or its node."),
        Field::reserved("secretKeyRef", "A key of a Secret."),
    ],
};

const ENV: Object = Object {
    fields: &[
        Field::new("name", Type::EnvName, "The variable.").required("for example LOG_LEVEL"),
        Field::new("value", Type::Text, "Its value; $(NAME) stands for a variable given before it."),
        Field::new("valueFrom", Type::Object(&ENV_SOURCE), "Where its value is taken from."),
    ],
};

const PORT: Object = Object {
    fields: &[
        Field::new("name", Type::Name, "The port's name; its number is in OSTLER_PORT_<NAME>.")
            .required("for example http"),
        Field::new(
            "port",
            Type::Int { min: 0, max: 65_535 },
            "Its number; 0 is assigned from the node's range.",
        )
        .or("0"),
        Field::new("protocol", choice(&["TCP", "UDP"]), "Its protocol.").or("TCP"),
    ],
};

const AMOUNTS: Object = Object {
    fields: &[
        Field::new("cpu", Type::Cpu, "In cores: 2, 0.25, 250m."),
        Field::new("memory", Type::Size, "In bytes: 512Mi, 2G."),
    ],
};

const RESOURCES: Object = Object {
    fields: &[
        Field::new(
            "requests",
            Type::Object(&AMOUNTS),
            "What the scheduler counts; the limit if left out, else 10m and 16Mi.",
        )
        .or("{}"),
        Field::new("limits", Type::Object(&AMOUNTS), "What the process may use at most.").or("{}"),
    ],
};

const HEADER: Object = Object {
    fields: &[
        Field::new("name", Type::Text, "The header.").required("for example Host"),
        Field::new("value", Type::Text, "Its value.").or("\"\""),
    ],
};

const HTTP_GET: Object = Object {
    fields: &[
        Field::new("path", Type::Text, "Path and query.").or("/"),
        Field::new("port", Type::PortRef, "Number, or a name from ports.").required("for example http"),
        Field::new("host", Type::Text, "Which host; the node's own address if left out."),
        Field::new("scheme", Type::Choice { words: &["HTTP"], reserved: &["HTTPS"] }, "With or without TLS.")
            .or("HTTP"),
        Field::new(
            "httpHeaders",
            Type::List { of: &Type::Object(&HEADER), max: MAX_ENTRIES },
            "Headers sent with it.",
        )
        .or("[]"),
    ],
};

const TCP_SOCKET: Object = Object {
    fields: &[
        Field::new("port", Type::PortRef, "Number, or a name from ports.").required("for example http"),
        Field::new("host", Type::Text, "Which host; the node's own address if left out."),
    ],
};

const PROBE: Object = Object {
    fields: &[
        Field::new("httpGet", Type::Object(&HTTP_GET), "Ask over HTTP; 200 to 399 is good."),
        Field::new("tcpSocket", Type::Object(&TCP_SOCKET), "Open a TCP connection."),
        Field::reserved("exec", "Run a command."),
        Field::reserved("grpc", "Ask over gRPC."),
        Field::new("initialDelay", ANY_TIME, "From the start to the first question.").or("0s"),
        Field::new("period", SOME_TIME, "From one question to the next.").or("10s"),
        Field::new("timeout", SOME_TIME, "How long an answer may take.").or("1s"),
        Field::new("successThreshold", Type::Int { min: 1, max: MANY }, "So many good answers in a row.")
            .or("1"),
        Field::new("failureThreshold", Type::Int { min: 1, max: MANY }, "So many bad answers in a row.")
            .or("3"),
    ],
};

const TOLERATION: Object = Object {
    fields: &[
        Field::new("key", Type::LabelKey, "The taint's key; all keys if left out (with Exists)."),
        Field::new("operator", choice(&["Equal", "Exists"]), "How it compares.").or("Equal"),
        Field::new("value", Type::LabelValue, "The taint's value, with Equal.").or("\"\""),
        Field::new(
            "effect",
            choice(&["NoSchedule", "PreferNoSchedule", "NoExecute"]),
            "The effect; all if left out.",
        ),
        Field::new(
            "tolerationTime",
            ANY_TIME,
            "How long a NoExecute taint is borne; without end if left out.",
        ),
    ],
};

/// What a process is: `spec` of a Process, `template.spec` of a workload.
pub const TEMPLATE: Object = Object {
    fields: &[
        Field::new("command", Type::Command, "The program and its first words; no shell.")
            .required("for example [\"/usr/bin/app\", \"--x\"]"),
        Field::new("args", WORDS, "More words, appended to command.").or("[]"),
        Field::reserved("artifacts", "Files fetched before the start."),
        Field::reserved("type", "How the process says that it is up."),
        Field::new("user", Type::Account, "Name or number; the agent's default user if left out."),
        Field::new("group", Type::Account, "Name or number; the user's primary group if left out."),
        Field::reserved("supplementaryGroups", "More groups."),
        Field::new("workingDirectory", Type::Path, "Where it starts.").or("/"),
        Field::reserved("umask", "Permission bits taken away from new files."),
        Field::new("env", Type::List { of: &Type::Object(&ENV), max: MAX_ENV }, "Variables, in order.")
            .or("[]"),
        Field::reserved("environmentFile", "Variables read on the host."),
        Field::reserved("credentials", "Secrets as files in memory."),
        Field::reserved("rollOnSecretChange", "Whether a changed Secret is a new version."),
        Field::new(
            "ports",
            Type::List { of: &Type::Object(&PORT), max: MAX_ENTRIES },
            "Ports that it listens on.",
        )
        .or("[]"),
        Field::new("resources", Type::Object(&RESOURCES), "What it needs and may use.").or("{}"),
        Field::reserved("tasksMax", "Most tasks of the process tree."),
        Field::reserved("memoryMin", "Memory that is not taken from it."),
        Field::reserved("memoryHigh", "Memory above which it is slowed."),
        Field::reserved("memorySwapMax", "Most swap."),
        Field::reserved("allowedCPUs", "On which cores it runs."),
        Field::reserved("ioReadBandwidthMax", "Most bytes read in a second."),
        Field::reserved("ioWriteBandwidthMax", "Most bytes written in a second."),
        Field::reserved("cpuWeight", "Its share when cores are short."),
        Field::reserved("ioWeight", "Its share when disks are short."),
        Field::reserved("nice", "Its priority."),
        Field::reserved("oomScoreAdjust", "How readily it is killed when memory is short."),
        Field::new("limitNOFILE", Type::Rlimit, "Most open files.").or("1024:524288"),
        Field::reserved("limitNPROC", "Most processes of its user."),
        Field::reserved("limitCORE", "Largest core dump."),
        Field::reserved("limitMEMLOCK", "Most locked memory."),
        Field::reserved("limitSTACK", "Largest stack."),
        Field::reserved("limitFSIZE", "Largest file."),
        Field::reserved("limitAS", "Most address space."),
        Field::reserved("noNewPrivileges", "Whether it can gain privileges."),
        Field::reserved("ambientCapabilities", "Capabilities that it has."),
        Field::reserved("capabilityBoundingSet", "Capabilities that it can have."),
        Field::reserved("stateDirectory", "Folders under /var/lib."),
        Field::reserved("cacheDirectory", "Folders under /var/cache."),
        Field::reserved("logsDirectory", "Folders under /var/log."),
        Field::reserved("runtimeDirectory", "Folders under /run."),
        Field::reserved("privateTmp", "A /tmp of its own."),
        Field::reserved("readOnlyPaths", "Paths that it cannot write."),
        Field::reserved("protectSystem", "System folders that it cannot write."),
        Field::reserved("protectHome", "Home folders that it cannot see."),
        Field::reserved("systemCallFilter", "System calls that it may make."),
        Field::reserved("unit", "An existing systemd unit instead of command."),
        Field::reserved("execStartPre", "Run before each start."),
        Field::reserved("execReload", "Run to reload."),
        Field::reserved("execStop", "Run to stop."),
        Field::reserved("execStopPost", "Run after each end."),
        Field::reserved("timeoutStartSec", "How long a start may take."),
        Field::reserved("watchdogSec", "How often it must show life."),
        Field::new("killSignal", Type::Signal, "Asks it to end.").or("SIGTERM"),
        Field::reserved("killMode", "Whom the signal goes to."),
        Field::new("timeoutStopSec", ANY_TIME, "How long it may take to end before it is killed.").or("30s"),
        Field::reserved("preStopDelay", "From leaving the endpoints to the signal."),
        Field::reserved("reloadSignal", "Asks it to reload."),
        Field::new(
            "restart",
            choice(&["never", "on-failure", "always"]),
            "When it is started again on its node.",
        )
        .or("always"),
        Field::reserved("successExitStatus", "More codes that mean success."),
        Field::new("restartSec", ANY_TIME, "Before the first restart; doubles with each.").or("1s"),
        Field::new("restartMaxDelaySec", ANY_TIME, "The longest wait before a restart.").or("1m"),
        Field::new(
            "startLimitBurst",
            Type::Int { min: 1, max: MANY },
            "So many failed starts end the trying.",
        )
        .or("5"),
        Field::new("startLimitIntervalSec", SOME_TIME, "The time in which starts are counted.").or("10m"),
        Field::new(
            "startLimitAction",
            choice(&["none", "replace"]),
            "What follows; replace on Deployment, else none.",
        ),
        Field::reserved("startupProbe", "Tells whether it is up."),
        Field::reserved("livenessProbe", "Tells whether it must be restarted."),
        Field::new(
            "readinessProbe",
            Type::Object(&PROBE),
            "Tells whether it is ready; ready when running if left out.",
        ),
        Field::reserved("standardOutput", "Where its output goes."),
        Field::reserved("standardError", "Where its errors go."),
        Field::reserved("logs", "How much output is kept."),
        Field::new(
            "needs",
            Type::List { of: &Type::Need, max: MAX_ENTRIES },
            "What must hold on the node before it starts.",
        )
        .or("[]"),
        Field::new("nodeName", Type::Name, "Its node, bound by hand.").immutable(),
        Field::new("nodeSelector", Type::Labels { own: true }, "Labels that its node must have.").or("{}"),
        Field::reserved("priorityClassName", "How it stands against others."),
        Field::reserved("affinity", "Near or far from what it should be."),
        Field::reserved("topologySpreadConstraints", "How evenly it is spread."),
        Field::reserved("onDisconnect", "What the agent does when cut off."),
        Field::new(
            "tolerations",
            Type::List { of: &Type::Object(&TOLERATION), max: MAX_ENTRIES },
            "Taints that it may live with.",
        )
        .or("[]"),
    ],
};
