//! What a process is: its program, its surroundings, its limits, how it is stopped, restarted, probed and placed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::Digest;

use super::restarts::{Surroundings, is_none_of_these};
use super::{
    Artifact, Capability, CpuList, Credential, EnvSource, EnvVar, EnvironmentFile, Exec, ExitStatus,
    FieldPath, KillMode, Labels, Logs, Need, OutputTo, Probe, ProcessType, SecretKeyRef, SecretNeeds,
    TextMap, Toleration,
};
use crate::ids::{Name, NodeName, Sha256};
use crate::quantity::{Cpu, Dur, Mode, Rlimit, Signal, Size};
use crate::v1::secret::SecretVersion;

/// A template of processes, as a Deployment has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Template {
    /// What each process is called and marked with.
    pub metadata: TemplateMeta,
    /// What each process is.
    pub spec: ProcessTemplate,
}

/// Labels and annotations that every process of a template gets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateMeta {
    /// For selection.
    pub labels: Labels,
    /// For people and programs outside.
    pub annotations: TextMap,
}

/// The spec of a Process applied by hand: the template's fields directly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProcessSpec(pub ProcessTemplate);

/// One supervised process tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProcessTemplate {
    /// The program and its first words; no shell.
    pub command: Vec<String>,
    /// More words, appended to `command`.
    pub args: Vec<String>,
    /// Variables, in order.
    pub env: Vec<EnvVar>,
    /// Name or number of the user; none means the agent's default user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Name or number of the group; none means the user's primary group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Where it starts.
    pub working_directory: String,
    /// Ports that it listens on.
    pub ports: Vec<Port>,
    /// What it needs and what it may use.
    pub resources: Resources,
    /// The signal that asks it to end.
    pub kill_signal: Signal,
    /// How long it may take to end before it is killed.
    pub timeout_stop_sec: Dur,
    /// When it is started again on its node.
    pub restart: Restart,
    /// How long to wait before the first restart; doubles with each.
    pub restart_sec: Dur,
    /// The longest such wait.
    pub restart_max_delay_sec: Dur,
    /// So many failed starts within the interval are the end of trying.
    pub start_limit_burst: u32,
    /// The interval in which starts are counted, and how long it must run for delays to begin anew.
    pub start_limit_interval_sec: Dur,
    /// What follows the end of trying.
    pub start_limit_action: LimitAction,
    /// Tells whether it is ready; none means ready when running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness_probe: Option<Probe>,
    /// Labels that its node must have.
    pub node_selector: Labels,
    /// Its node, bound by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<NodeName>,
    /// Taints that it may live with.
    pub tolerations: Vec<Toleration>,
    /// The limit of open files.
    #[serde(rename = "limitNOFILE")]
    pub limit_nofile: Rlimit,
    /// What must hold on the node before it starts.
    pub needs: Vec<Need>,
    /// Files fetched, checked and laid ready before a start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<Artifact>,
    /// How it says that it is up.
    #[serde(rename = "type", default, skip_serializing_if = "is_default")]
    pub kind: ProcessType,
    /// More groups, by name or number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub supplementary_groups: Vec<String>,
    /// Permission bits taken away from files that it makes.
    #[serde(default = "umask", skip_serializing_if = "is_umask")]
    pub umask: Mode,
    /// Values of Secrets as files on memory.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<Credential>,
    /// Whether a change of a Secret that it refers to is a new version of it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub roll_on_secret_change: bool,
    /// At least which Secrets it starts with, by name. Set by the API server: those that there are when the template
    /// changes, and with `rollOnSecretChange` whenever one of them does.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secret_versions: BTreeMap<Name, SecretVersion>,
    /// Files of variables, read on the host at each start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environment_file: Vec<EnvironmentFile>,
    /// Bounds of its tree beside `resources.limits`.
    #[serde(default = "tasks_max", skip_serializing_if = "is_tasks_max")]
    pub tasks_max: u64,
    /// Memory that is not taken from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_min: Option<Size>,
    /// Memory above which it is slowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_high: Option<Size>,
    /// Most swap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_swap_max: Option<Size>,
    /// On which cores it runs.
    #[serde(rename = "allowedCPUs", default, skip_serializing_if = "Option::is_none")]
    pub allowed_cpus: Option<CpuList>,
    /// Most bytes read from disks in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_read_bandwidth_max: Option<Size>,
    /// Most bytes written to disks in a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io_write_bandwidth_max: Option<Size>,
    /// Its share when cores are short.
    #[serde(default = "weight", skip_serializing_if = "is_weight")]
    pub cpu_weight: u32,
    /// Its share when disks are short.
    #[serde(default = "weight", skip_serializing_if = "is_weight")]
    pub io_weight: u32,
    /// Its priority among others on a core, from -20 (first) to 19.
    #[serde(default, skip_serializing_if = "is_default")]
    pub nice: i32,
    /// How readily it is killed when the host's memory is short, from -1000 (never) to 1000.
    #[serde(default, skip_serializing_if = "is_default")]
    pub oom_score_adjust: i32,
    /// Most processes of its user; none means the host's.
    #[serde(rename = "limitNPROC", default, skip_serializing_if = "Option::is_none")]
    pub limit_nproc: Option<Rlimit>,
    /// Largest core dump in bytes; none means the host's.
    #[serde(rename = "limitCORE", default, skip_serializing_if = "Option::is_none")]
    pub limit_core: Option<Rlimit>,
    /// Most locked memory in bytes; none means the host's.
    #[serde(rename = "limitMEMLOCK", default, skip_serializing_if = "Option::is_none")]
    pub limit_memlock: Option<Rlimit>,
    /// Largest stack in bytes; none means the host's.
    #[serde(rename = "limitSTACK", default, skip_serializing_if = "Option::is_none")]
    pub limit_stack: Option<Rlimit>,
    /// Largest file in bytes; none means the host's.
    #[serde(rename = "limitFSIZE", default, skip_serializing_if = "Option::is_none")]
    pub limit_fsize: Option<Rlimit>,
    /// Most address space in bytes; none means the host's.
    #[serde(rename = "limitAS", default, skip_serializing_if = "Option::is_none")]
    pub limit_as: Option<Rlimit>,
    /// Whether neither it nor what it starts can gain privileges by exec.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub no_new_privileges: bool,
    /// Capabilities that it has although it is not root.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ambient_capabilities: Vec<Capability>,
    /// Capabilities that it can ever have; none means all for root, else those of `ambientCapabilities`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capability_bounding_set: Option<Vec<Capability>>,
    /// Folders under `/var/lib`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub state_directory: Vec<String>,
    /// Folders under `/var/cache`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cache_directory: Vec<String>,
    /// Folders under `/var/log`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logs_directory: Vec<String>,
    /// Folders under `/run`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runtime_directory: Vec<String>,
    /// Whether `/tmp` and `/var/tmp` are its own.
    #[serde(default, skip_serializing_if = "is_default")]
    pub private_tmp: bool,
    /// Paths that it cannot write to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read_only_paths: Vec<String>,
    /// Run one after the other before each start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exec_start_pre: Vec<Exec>,
    /// Run to reload it; none means `reload_signal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec_reload: Option<Exec>,
    /// Run to stop it; none means `kill_signal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec_stop: Option<Exec>,
    /// Run after each end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec_stop_post: Option<Exec>,
    /// From its start until it must be up (`type: notify`, or a startup probe).
    #[serde(default = "timeout_start", skip_serializing_if = "is_timeout_start")]
    pub timeout_start_sec: Dur,
    /// How often it must say `WATCHDOG=1`; none means never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watchdog_sec: Option<Dur>,
    /// Whom a stop signals and kills.
    #[serde(default, skip_serializing_if = "is_default")]
    pub kill_mode: KillMode,
    /// From leaving the endpoints to the first signal of a stop.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pre_stop_delay: Dur,
    /// Asks it to read its configuration again.
    #[serde(default = "reload_signal", skip_serializing_if = "is_reload_signal")]
    pub reload_signal: Signal,
    /// More ends that mean success, beside code 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub success_exit_status: Vec<ExitStatus>,
    /// Tells whether it is up; no other probe asks before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup_probe: Option<Probe>,
    /// Tells whether it must be started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness_probe: Option<Probe>,
    /// Where its standard output goes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub standard_output: OutputTo,
    /// Where its standard error goes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub standard_error: OutputTo,
    /// How much of its output is kept, and for how long.
    #[serde(default, skip_serializing_if = "is_default")]
    pub logs: Logs,
    /// The labels of its processes, for variables taken from them. Only in a stored template, which stands alone: in a
    /// manifest and in an object they are in the metadata, and this is empty.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
}

impl ProcessTemplate {
    /// A template of which nothing is said but the command: every default of a Process (CONTRACT.md section 2).
    #[must_use]
    pub fn of(command: Vec<String>) -> Self {
        Self {
            command,
            args: Vec::new(),
            env: Vec::new(),
            user: None,
            group: None,
            working_directory: "/".to_owned(),
            ports: Vec::new(),
            resources: Resources::default(),
            kill_signal: Signal::TERM,
            timeout_stop_sec: Dur::from_secs(30),
            restart: Restart::Always,
            restart_sec: Dur::from_secs(1),
            restart_max_delay_sec: Dur::from_secs(60),
            start_limit_burst: 5,
            start_limit_interval_sec: Dur::from_secs(600),
            start_limit_action: LimitAction::None,
            readiness_probe: None,
            node_selector: Labels::new(),
            node_name: None,
            tolerations: Vec::new(),
            limit_nofile: Rlimit::NOFILE,
            needs: Vec::new(),
            artifacts: Vec::new(),
            kind: ProcessType::Exec,
            supplementary_groups: Vec::new(),
            umask: umask(),
            credentials: Vec::new(),
            roll_on_secret_change: false,
            secret_versions: BTreeMap::new(),
            environment_file: Vec::new(),
            tasks_max: TASKS_MAX,
            memory_min: None,
            memory_high: None,
            memory_swap_max: None,
            allowed_cpus: None,
            io_read_bandwidth_max: None,
            io_write_bandwidth_max: None,
            cpu_weight: WEIGHT,
            io_weight: WEIGHT,
            nice: 0,
            oom_score_adjust: 0,
            limit_nproc: None,
            limit_core: None,
            limit_memlock: None,
            limit_stack: None,
            limit_fsize: None,
            limit_as: None,
            no_new_privileges: true,
            ambient_capabilities: Vec::new(),
            capability_bounding_set: None,
            state_directory: Vec::new(),
            cache_directory: Vec::new(),
            logs_directory: Vec::new(),
            runtime_directory: Vec::new(),
            private_tmp: false,
            read_only_paths: Vec::new(),
            exec_start_pre: Vec::new(),
            exec_reload: None,
            exec_stop: None,
            exec_stop_post: None,
            timeout_start_sec: timeout_start(),
            watchdog_sec: None,
            kill_mode: KillMode::Mixed,
            pre_stop_delay: Dur::ZERO,
            reload_signal: Signal::HUP,
            success_exit_status: Vec::new(),
            startup_probe: None,
            liveness_probe: None,
            standard_output: OutputTo::File,
            standard_error: OutputTo::File,
            logs: Logs::default(),
            labels: Labels::new(),
        }
    }
}

/// `tasksMax` when nothing is said: a wish, enforced where the host can, and no reason to avoid one that cannot.
pub const TASKS_MAX: u64 = 4_096;
/// `cpuWeight` and `ioWeight` when nothing is said: the kernel's own.
pub const WEIGHT: u32 = 100;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

const fn umask() -> Mode {
    Mode::from_bits(0o022)
}

fn is_umask(mode: &Mode) -> bool {
    *mode == umask()
}

const fn tasks_max() -> u64 {
    TASKS_MAX
}

const fn is_tasks_max(tasks: &u64) -> bool {
    *tasks == TASKS_MAX
}

const fn weight() -> u32 {
    WEIGHT
}

const fn is_weight(weight: &u32) -> bool {
    *weight == WEIGHT
}

const fn yes() -> bool {
    true
}

const fn is_yes(value: &bool) -> bool {
    *value
}

const fn timeout_start() -> Dur {
    Dur::from_secs(90)
}

fn is_timeout_start(time: &Dur) -> bool {
    *time == timeout_start()
}

fn is_zero(time: &Dur) -> bool {
    *time == Dur::ZERO
}

const fn reload_signal() -> Signal {
    Signal::HUP
}

fn is_reload_signal(signal: &Signal) -> bool {
    *signal == Signal::HUP
}

/// A port that a process listens on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Port {
    /// Its name, a DNS label.
    pub name: String,
    /// Its number; 0 is assigned by the scheduler from the node's range.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

/// The protocols of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// When a process is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Not at all.
    Never,
    /// When it did not end with success.
    OnFailure,
    /// Whenever it ended.
    Always,
}

/// What follows when a process used up its starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LimitAction {
    /// It stays failed.
    None,
    /// It is failed and its owner makes another, elsewhere if it can.
    Replace,
}

/// What a process asks for and what bounds it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What the scheduler counts.
    pub requests: Amounts,
    /// What it may use at most.
    pub limits: Amounts,
}

/// Amounts of CPU and memory, where they are given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Amounts {
    /// Processor time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Cpu>,
    /// Main memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Size>,
}

/// What the scheduler counts for a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Requests {
    /// Processor time.
    pub cpu: Cpu,
    /// Main memory.
    pub memory: Size,
}

impl Requests {
    /// What is counted for a process that says nothing: enough to matter when there are many.
    pub const LEAST: Requests = Requests { cpu: Cpu::from_millis(10), memory: Size::from_mib(16) };
}

impl Resources {
    /// The requests that count: as given, else the limit if given, else [`Requests::LEAST`].
    #[must_use]
    pub fn effective_requests(&self) -> Requests {
        Requests {
            cpu: self.requests.cpu.or(self.limits.cpu).unwrap_or(Requests::LEAST.cpu),
            memory: self.requests.memory.or(self.limits.memory).unwrap_or(Requests::LEAST.memory),
        }
    }
}

/// The fields whose change takes effect only in a new incarnation. What can be changed in place (resources, limits,
/// probes), what only moves a process (nodeSelector, nodeName, tolerations) and labels are not among them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RestartFields<'a> {
    command: &'a [String],
    args: &'a [String],
    env: &'a [EnvVar],
    user: Option<&'a str>,
    group: Option<&'a str>,
    working_directory: &'a str,
    ports: &'a [Port],
    kill_signal: Signal,
    timeout_stop_sec: Dur,
    restart: Restart,
    restart_sec: Dur,
    restart_max_delay_sec: Dur,
    start_limit_burst: u32,
    start_limit_interval_sec: Dur,
    start_limit_action: LimitAction,
    needs: &'a [Need],
    #[serde(skip_serializing_if = "is_none_of_these")]
    surroundings: Surroundings<'a>,
    /// Limits that variables are taken from: such a process sees a change only when it starts anew.
    #[serde(skip_serializing_if = "Option::is_none")]
    limits_in_env: Option<Amounts>,
    /// Likewise labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels_in_env: BTreeMap<&'a str, &'a str>,
}

impl ProcessTemplate {
    /// Names what a restart would be needed for: two templates with the same hash can be exchanged under a running
    /// process. The hash is over canonical JSON, so it is the same on every host and in every build.
    #[must_use]
    pub fn restart_hash(&self) -> Sha256 {
        let fields = RestartFields {
            command: &self.command,
            args: &self.args,
            env: &self.env,
            user: self.user.as_deref(),
            group: self.group.as_deref(),
            working_directory: &self.working_directory,
            ports: &self.ports,
            kill_signal: self.kill_signal,
            timeout_stop_sec: self.timeout_stop_sec,
            restart: self.restart,
            restart_sec: self.restart_sec,
            restart_max_delay_sec: self.restart_max_delay_sec,
            start_limit_burst: self.start_limit_burst,
            start_limit_interval_sec: self.start_limit_interval_sec,
            start_limit_action: self.start_limit_action,
            needs: &self.needs,
            surroundings: Surroundings::of(self),
            limits_in_env: self.limits_in_env(),
            labels_in_env: self.labels_in_env(),
        };
        // Structs of text, numbers and lists always have a JSON form; were that ever untrue, every template would
        // hash alike and the tests of this function would say so.
        let bytes = serde_json::to_vec(&fields).unwrap_or_default();
        Sha256::from_bytes(sha2::Sha256::digest(&bytes).into())
    }

    /// The facts that variables are taken from.
    fn paths(&self) -> impl Iterator<Item = &FieldPath> {
        self.env.iter().filter_map(|v| v.value_from.as_ref()).filter_map(EnvSource::field_path)
    }

    /// Every value of a Secret that it refers to.
    pub fn secret_refs(&self) -> impl Iterator<Item = &SecretKeyRef> {
        let variables = self.env.iter().filter_map(|v| v.value_from.as_ref()).filter_map(EnvSource::secret);
        variables.chain(self.credentials.iter().map(|credential| &credential.secret_key_ref))
    }

    /// Which values of which Secrets it refers to.
    #[must_use]
    pub fn secrets(&self) -> SecretNeeds {
        let mut needs = SecretNeeds::new();
        for secret in self.secret_refs() {
            needs.entry(secret.name.clone()).or_default().insert(secret.key.clone());
        }
        needs
    }

    /// The labels of its node that variables are taken from.
    pub fn node_labels_in_env(&self) -> impl Iterator<Item = &str> {
        self.paths().filter_map(|path| match path {
            FieldPath::NodeLabel(key) => Some(key.as_str()),
            FieldPath::Name
            | FieldPath::Namespace
            | FieldPath::Uid
            | FieldPath::Label(_)
            | FieldPath::NodeName
            | FieldPath::NodeHostname
            | FieldPath::NodeVar(_)
            | FieldPath::NodeAddress(_)
            | FieldPath::LimitCpu
            | FieldPath::LimitMemory => None,
        })
    }

    fn labels_in_env(&self) -> BTreeMap<&str, &str> {
        let refers = |key: &str| self.paths().any(|p| matches!(p, FieldPath::Label(k) if k == key));
        self.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).filter(|(key, _)| refers(key)).collect()
    }

    fn limits_in_env(&self) -> Option<Amounts> {
        let refers = |path: &FieldPath| self.paths().any(|p| p == path);
        let cpu = if refers(&FieldPath::LimitCpu) { self.resources.limits.cpu } else { None };
        let memory = if refers(&FieldPath::LimitMemory) { self.resources.limits.memory } else { None };
        (cpu.is_some() || memory.is_some()).then_some(Amounts { cpu, memory })
    }
}
