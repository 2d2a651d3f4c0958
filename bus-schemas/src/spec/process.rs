//! What a process is: its program, its surroundings, its limits, how it is stopped, restarted, probed and placed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::Digest;

use super::{EnvVar, FieldPath, Labels, Need, Probe, TextMap, Toleration};
use crate::ids::{NodeName, Sha256};
use crate::quantity::{Cpu, Dur, Rlimit, Signal, Size};

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
    /// The labels of its processes, for variables taken from them. Only in a stored template, which stands alone: in a
    /// manifest and in an object they are in the metadata, and this is empty.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
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
        self.env.iter().filter_map(|v| v.value_from.as_ref()).map(|from| &from.field_ref.field_path)
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
