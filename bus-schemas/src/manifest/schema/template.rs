//! The process template (CONTRACT.md section 2).

use super::probe::PROBE;
use super::{Field, Object, Type, WORDS, choice};

const ANY_TIME: Type = Type::Duration { positive: false };
const SOME_TIME: Type = Type::Duration { positive: true };
const MANY: i64 = 1_000_000;
const WEIGHT: Type = Type::Int { min: 1, max: 10_000 };
const OUTPUT: Type = choice(&["file", "journal", "null"]);
/// The kernel has no more pids than these (`PID_MAX_LIMIT`).
const MOST_TASKS: i64 = 4_194_304;

/// Most entries of `env` (CONTRACT.md 1.3).
pub(in crate::manifest) const MAX_ENV: usize = 500;
/// Most entries of any other list of one process, as ports or needs: far above use, so that checking pairs stays cheap.
pub(in crate::manifest) const MAX_ENTRIES: usize = 500;

const fn several(of: &'static Type) -> Type {
    Type::List { of, max: MAX_ENTRIES }
}

const FIELD_REF: Object = Object {
    fields: &[Field::new("fieldPath", Type::FieldPath, "Which fact of the process or its node.")
        .required("for example node.name")],
};

const ENV_SOURCE: Object = Object {
    fields: &[
        Field::new("fieldRef", Type::Object(&FIELD_REF), "A fact of the process or its node."),
        Field::new("secretKeyRef", Type::Object(&SECRET_KEY_REF), "A value of a Secret."),
    ],
};

const SECRET_KEY_REF: Object = Object {
    fields: &[
        Field::new("name", Type::Name, "The Secret, in the same namespace.").required("for example db"),
        Field::new("key", Type::SecretKey, "The name of the value in it.").required("for example password"),
        Field::new("optional", Type::Bool, "Whether to start without it where it does not exist.")
            .or("false"),
    ],
};

const CREDENTIAL: Object = Object {
    fields: &[
        Field::new("name", Type::SecretKey, "The name of the file in CREDENTIALS_DIRECTORY.")
            .required("for example db-password"),
        Field::new("secretKeyRef", Type::Object(&SECRET_KEY_REF), "What is in it.")
            .required("for example {name: db, key: password}"),
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

const ARTIFACT: Object = Object {
    fields: &[
        Field::new("source", Type::Source, "Where it is fetched from: https:, http: or file:.")
            .required("for example https://repo.example.net/web/1.4.2/web"),
        Field::new("sha256", Type::Sha256, "The hash of what is fetched.")
            .required("it is what sha256sum prints"),
        Field::new(
            "path",
            Type::Relative,
            "Where it lies below OSTLER_ARTIFACTS; the last part of source if left out. Of an archive, the folder.",
        ),
        Field::new("mode", Type::Mode, "Permission bits of the file, as text.").or("\"0755\""),
        Field::new("unpack", choice(&["none", "tar", "zip"]), "Whether it is an archive.").or("none"),
    ],
};

const ENVIRONMENT_FILE: Object = Object {
    fields: &[
        Field::new("path", Type::Path, "Where it is.").required("for example /etc/default/app"),
        Field::new("optional", Type::Bool, "Whether the process starts without it too.").or("false"),
    ],
};

const EXEC: Object = Object {
    fields: &[
        Field::new("command", Type::Command, "The program and its words; no shell.")
            .required("for example [\"/usr/bin/app\", \"--x\"]"),
        Field::new("user", Type::Account, "Name or number; the user of the process if left out."),
        Field::new("timeout", SOME_TIME, "How long it may take before it has failed.").or("30s"),
    ],
};

const LOGS: Object = Object {
    fields: &[
        Field::new("maxSize", Type::Size, "Size at which a file is rotated.").or("10Mi"),
        Field::new(
            "maxFiles",
            Type::Int { min: 1, max: 1_000 },
            "How many files are kept, the growing one included.",
        )
        .or("5"),
        Field::new("keepAfterExit", ANY_TIME, "How long they are kept after the process is gone.").or("7d"),
        Field::new("overflow", choice(&["drop", "block"]), "What happens to lines that come too fast.")
            .or("drop"),
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
        Field::new(
            "artifacts",
            several(&Type::Object(&ARTIFACT)),
            "Files fetched, checked and laid ready before the start.",
        )
        .or("[]"),
        Field::new("type", choice(&["exec", "notify", "oneshot"]), "How the process says that it is up.")
            .or("exec"),
        Field::new("user", Type::Account, "Name or number; the agent's default user if left out."),
        Field::new("group", Type::Account, "Name or number; the user's primary group if left out."),
        Field::new("supplementaryGroups", several(&Type::Account), "More groups, by name or number.")
            .or("[]"),
        Field::new("workingDirectory", Type::Path, "Where it starts.").or("/"),
        Field::new("umask", Type::Mode, "Permission bits taken away from new files, as text.").or("\"0022\""),
        Field::new("env", Type::List { of: &Type::Object(&ENV), max: MAX_ENV }, "Variables, in order.")
            .or("[]"),
        Field::new(
            "environmentFile",
            several(&Type::Object(&ENVIRONMENT_FILE)),
            "Variables read on the host at each start.",
        )
        .or("[]"),
        Field::new(
            "credentials",
            several(&Type::Object(&CREDENTIAL)),
            "Values of Secrets as files on memory.",
        )
        .or("[]"),
        Field::new(
            "rollOnSecretChange",
            Type::Bool,
            "Whether a changed Secret is a new version; else it is used at the next start.",
        )
        .or("false"),
        Field::ignored("secretVersions", "The Secrets that it starts with at least."),
        Field::new(
            "ports",
            Type::List { of: &Type::Object(&PORT), max: MAX_ENTRIES },
            "Ports that it listens on.",
        )
        .or("[]"),
        Field::new("resources", Type::Object(&RESOURCES), "What it needs and may use.").or("{}"),
        Field::new("tasksMax", Type::Int { min: 1, max: MOST_TASKS }, "Most tasks of the process tree.")
            .or("4096"),
        Field::new("memoryMin", Type::Size, "Memory that is not taken from it; none if left out."),
        Field::new("memoryHigh", Type::Size, "Memory above which it is slowed; none if left out."),
        Field::new("memorySwapMax", Type::Size, "Most swap; no limit if left out."),
        Field::new("allowedCPUs", Type::CpuList, "On which cores it runs, as 0-3,8; all if left out."),
        Field::new(
            "ioReadBandwidthMax",
            Type::Rate,
            "Most bytes read from disks in a second; no limit if left out.",
        ),
        Field::new(
            "ioWriteBandwidthMax",
            Type::Rate,
            "Most bytes written to disks in a second; no limit if left out.",
        ),
        Field::new("cpuWeight", WEIGHT, "Its share when cores are short.").or("100"),
        Field::new("ioWeight", WEIGHT, "Its share when disks are short.").or("100"),
        Field::new("nice", Type::Int { min: -20, max: 19 }, "Its priority; lower comes first.").or("0"),
        Field::new(
            "oomScoreAdjust",
            Type::Int { min: -1_000, max: 1_000 },
            "How readily it is killed when memory is short.",
        )
        .or("0"),
        Field::new("limitNOFILE", Type::Rlimit, "Most open files.").or("1024:524288"),
        Field::new("limitNPROC", Type::Rlimit, "Most processes of its user; the host's if left out."),
        Field::new("limitCORE", Type::Rlimit, "Largest core dump; the host's if left out."),
        Field::new("limitMEMLOCK", Type::Rlimit, "Most locked memory; the host's if left out."),
        Field::new("limitSTACK", Type::Rlimit, "Largest stack; the host's if left out."),
        Field::new("limitFSIZE", Type::Rlimit, "Largest file; the host's if left out."),
        Field::new("limitAS", Type::Rlimit, "Most address space; the host's if left out."),
        Field::new("noNewPrivileges", Type::Bool, "Whether it can never gain privileges by exec.").or("true"),
        Field::new(
            "ambientCapabilities",
            several(&Type::Capability),
            "Capabilities that it has although it is not root.",
        )
        .or("[]"),
        Field::new(
            "capabilityBoundingSet",
            several(&Type::Capability),
            "Capabilities that it can have; all for root, else none beside ambientCapabilities, if left out.",
        ),
        Field::new(
            "stateDirectory",
            several(&Type::Directory),
            "Folders under /var/lib, made for user; named in STATE_DIRECTORY.",
        )
        .or("[]"),
        Field::new(
            "cacheDirectory",
            several(&Type::Directory),
            "Folders under /var/cache, made for user; named in CACHE_DIRECTORY.",
        )
        .or("[]"),
        Field::new(
            "logsDirectory",
            several(&Type::Directory),
            "Folders under /var/log, made for user; named in LOGS_DIRECTORY.",
        )
        .or("[]"),
        Field::new(
            "runtimeDirectory",
            several(&Type::Directory),
            "Folders under /run, made for user; named in RUNTIME_DIRECTORY.",
        )
        .or("[]"),
        Field::new("privateTmp", Type::Bool, "Whether /tmp and /var/tmp are its own.").or("false"),
        Field::new("readOnlyPaths", several(&Type::Path), "Paths that it cannot write to.").or("[]"),
        Field::reserved("protectSystem", "System folders that it cannot write."),
        Field::reserved("protectHome", "Home folders that it cannot see."),
        Field::reserved("systemCallFilter", "System calls that it may make."),
        Field::reserved("unit", "An existing systemd unit instead of command."),
        Field::new(
            "execStartPre",
            several(&Type::Object(&EXEC)),
            "Run one after the other before each start.",
        )
        .or("[]"),
        Field::new("execReload", Type::Object(&EXEC), "Run to reload it; reloadSignal if left out."),
        Field::new("execStop", Type::Object(&EXEC), "Run to stop it; killSignal if left out."),
        Field::new("execStopPost", Type::Object(&EXEC), "Run after each end."),
        Field::new(
            "timeoutStartSec",
            SOME_TIME,
            "From its start until it must be up (type notify, or startupProbe).",
        )
        .or("1m30s"),
        Field::new("watchdogSec", SOME_TIME, "How often it must say WATCHDOG=1; never if left out."),
        Field::new("killSignal", Type::Signal, "Asks it to end.").or("SIGTERM"),
        Field::new(
            "killMode",
            choice(&["mixed", "control-group", "process"]),
            "Whom a stop signals and kills.",
        )
        .or("mixed"),
        Field::new("timeoutStopSec", ANY_TIME, "How long it may take to end before it is killed.").or("30s"),
        Field::new("preStopDelay", ANY_TIME, "From leaving the endpoints to the first signal.").or("0s"),
        Field::new("reloadSignal", Type::Signal, "Asks it to read its configuration again.").or("SIGHUP"),
        Field::new(
            "restart",
            choice(&["never", "on-failure", "always"]),
            "When it is started again on its node.",
        )
        .or("always"),
        Field::new(
            "successExitStatus",
            several(&Type::ExitStatus),
            "More codes and signals that mean success.",
        )
        .or("[]"),
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
        Field::new(
            "startupProbe",
            Type::Object(&PROBE),
            "Tells whether it is up; no other probe asks before.",
        ),
        Field::new("livenessProbe", Type::Object(&PROBE), "Tells whether it must be started again."),
        Field::new(
            "readinessProbe",
            Type::Object(&PROBE),
            "Tells whether it is ready; ready when running if left out.",
        ),
        Field::new("standardOutput", OUTPUT, "Where its output goes.").or("file"),
        Field::new("standardError", OUTPUT, "Where its errors go.").or("file"),
        Field::new("logs", Type::Object(&LOGS), "How much output is kept, and for how long.").or("{}"),
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
