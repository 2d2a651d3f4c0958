//! What the tests have running, and how it looks when nobody has touched it.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use harness::fleet::{Fleet, Running, alive, until};

/// The content of the managed file.
pub(crate) const CONTENT: &str = "workers = 4\n";

/// A Deployment of a shell that lives until it is told to end.
pub(crate) fn deployment(name: &str, replicas: u32) -> String {
    // The shell waits in `wait`, so that it ends at once when it is asked to.
    format!(
        "apiVersion: ostler/v1
kind: Deployment
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  replicas: {replicas}
  rollout: {{bake: 0s}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      command: [/bin/sh, -c, \"trap 'exit 0' TERM; echo up $OSTLER_NAME; while :; do sleep 1 & wait; done\"]
"
    )
}

/// A ConfigFile on every node.
pub(crate) fn config_file(name: &str, path: &str, content: &str) -> String {
    format!(
        "apiVersion: ostler/v1
kind: ConfigFile
metadata: {{name: {name}}}
spec:
  path: {path}
  nodeSelector: {{}}
  content: {content:?}
  rollout: {{bake: 0s}}
"
    )
}

/// Processes and files that must not change while the control plane is hurt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Untouched {
    processes: BTreeMap<String, Running>,
    files: BTreeMap<PathBuf, (u64, i64, i64)>,
    evictions: usize,
}

/// Applies three processes and a file, and says how they are.
pub(crate) fn settle(fleet: &Fleet) -> Untouched {
    let both = [deployment("web", 3), config_file("app-conf", "/etc/app.conf", CONTENT)].join("---\n");
    fleet.converges(&both);
    Untouched::now(fleet)
}

impl Untouched {
    /// Three processes of `web` and `/etc/app.conf` of every host, as they are.
    pub(crate) fn now(fleet: &Fleet) -> Self {
        let processes = fleet.until_running("web", 3);
        let files = fleet.phases().into_keys().map(|node| {
            let file = fleet.file(&node, "/etc/app.conf");
            let facts = until(&format!("{} is there", file.display()), || std::fs::metadata(&file).ok());
            assert_eq!(std::fs::read_to_string(&file).expect("readable"), CONTENT);
            (file, (facts.ino(), facts.mtime(), facts.mtime_nsec()))
        });
        Self { processes, files: files.collect(), evictions: fleet.count("Evicted") }
    }

    /// What needs no control plane: the same processes live, the same files lie there.
    #[track_caller]
    pub(crate) fn holds_on_the_hosts(&self) {
        for (name, process) in &self.processes {
            assert!(alive(process.pid), "{name} (pid {}) on {} has ended", process.pid, process.node);
        }
        for (file, facts) in &self.files {
            let now = std::fs::metadata(file).expect("the file is there");
            assert_eq!((now.ino(), now.mtime(), now.mtime_nsec()), *facts, "{} changed", file.display());
        }
    }

    /// That nothing has changed, as told by hosts and API.
    #[track_caller]
    pub(crate) fn holds(&self, fleet: &Fleet) {
        self.holds_on_the_hosts();
        assert_eq!(*self, Self::now(fleet));
        assert!(self.processes.values().all(|process| process.restarts == 0), "{:?}", self.processes);
    }
}
