//! Words of other systems, and words with slips: what was probably meant.

/// What to write instead of a word of Kubernetes, Nomad or systemd that is none here.
const FOREIGN: &[(&str, &str)] = &[
    ("minReadySeconds", "use rollout.bake"),
    ("terminationGracePeriodSeconds", "use timeoutStopSec"),
    ("MemoryMax", "use resources.limits.memory"),
    ("MemoryLimit", "use resources.limits.memory"),
    ("CPUQuota", "use resources.limits.cpu"),
    ("containers", "a process has no containers: put command here"),
    ("initContainers", "a process has no containers: use needs"),
    ("selector", "not needed: processes belong to their owner by reference"),
    ("requiredDuringSchedulingIgnoredDuringExecution", "use required"),
    ("preferredDuringSchedulingIgnoredDuringExecution", "use preferred"),
    ("initialDelaySeconds", "use initialDelay with a unit, for example 5s"),
    ("periodSeconds", "use period with a unit, for example 10s"),
    ("timeoutSeconds", "use timeout with a unit, for example 1s"),
    ("tolerationSeconds", "use tolerationTime with a unit, for example 30s"),
    ("progressDeadlineSeconds", "use rollout.progressDeadline"),
    ("revisionHistoryLimit", "use versionHistoryLimit"),
    ("restartPolicy", "use restart: never, on-failure or always"),
    ("image", "there are no images: put the program's path in command"),
    ("containerPort", "use port"),
    ("hostPort", "use port"),
    ("targetPort", "use port"),
    ("envFrom", "use env"),
    ("Environment", "use env"),
    ("EnvironmentFile", "use environmentFile"),
    ("ExecStart", "use command"),
    ("ExecStartPre", "use execStartPre"),
    ("ExecStartPost", "there is none: use startupProbe, or type notify"),
    ("postStart", "there is none: use startupProbe, or type notify"),
    ("preStop", "use execStop, or preStopDelay"),
    ("lifecycle", "use execStartPre, execStop and preStopDelay"),
    ("TimeoutSec", "use timeoutStartSec and timeoutStopSec"),
    ("kill_timeout", "use timeoutStopSec"),
    ("shutdown_delay", "use preStopDelay"),
    ("CPUShares", "use cpuWeight"),
    ("BlockIOWeight", "use ioWeight"),
    ("CPUAffinity", "use allowedCPUs"),
    ("DynamicUser", "not needed: who names no user runs as an unprivileged one"),
    ("runAsNonRoot", "not needed: nothing runs as root unless user asks for it"),
    ("allowPrivilegeEscalation", "use noNewPrivileges"),
    ("capabilities", "use ambientCapabilities and capabilityBoundingSet"),
    ("supplementalGroups", "use supplementaryGroups"),
    ("fsGroup", "use group and supplementaryGroups"),
    ("readOnlyRootFilesystem", "use readOnlyPaths"),
    ("artifact", "use artifacts"),
    ("destination", "use path"),
    ("checksum", "use sha256"),
    ("max_file_size", "use maxSize"),
    ("securityContext", "use user and group"),
    ("runAsUser", "use user"),
    ("runAsGroup", "use group"),
    ("serviceAccountName", "use user"),
    ("workingDir", "use workingDirectory"),
    ("volumes", "there are no volumes: paths are those of the host"),
    ("volumeMounts", "there are no volumes: paths are those of the host"),
    ("count", "use replicas"),
    ("resourceVersion", "use revision"),
    ("generateName", "not possible: give a name"),
    ("data", "use content"),
    ("binaryData", "use contentBase64"),
    ("owners", "use owner"),
    ("<<", "there are no merge keys in YAML 1.2: use an alias for the whole value"),
];

/// What to write instead of a known word of another system.
#[must_use]
pub fn translate(word: &str) -> Option<&'static str> {
    FOREIGN.iter().find(|(foreign, _)| *foreign == word).map(|(_, advice)| *advice)
}

/// The candidate that was probably meant: the same but for upper and lower case, else the nearest within a few slips.
/// Of equally near ones the first.
#[must_use]
pub fn suggest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    /// Longer words are no slips of a name; comparing them would only cost time.
    const LONGEST: usize = 80;
    if word.is_empty() || word.len() > LONGEST {
        return None;
    }
    let lower = word.to_lowercase();
    let slips = match lower.chars().count() {
        0..=2 => 0,
        3..=5 => 1,
        6..=8 => 2,
        _ => 3,
    };
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        let distance = strsim::damerau_levenshtein(&lower, &candidate.to_lowercase());
        if distance <= slips && best.is_none_or(|(least, _)| distance < least) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}
