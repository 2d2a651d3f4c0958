//! What a process waits for on its node before it starts, and what is said while it waits.

use std::collections::BTreeMap;

use ostler_schemas::spec::Need;
use ostler_schemas::{Kind, Name, Namespace, Version};

/// What holds on the node. Only what is in sync or ready is told; a file or process that is there but not well is
/// known by its entry alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Present {
    /// ConfigFiles of this node: the version in sync, if one is.
    pub files: BTreeMap<(Namespace, Name), Option<Version>>,
    /// Processes of this node and whether each is ready.
    pub processes: BTreeMap<(Namespace, Name), bool>,
    /// Owners with how many of their processes on this node are ready.
    pub workloads: BTreeMap<(Kind, Namespace, Name), usize>,
}

/// What only the host can tell.
pub trait HostFacts {
    /// Whether something is mounted at a path.
    fn is_mounted(&self, path: &str) -> bool;
    /// Whether something exists at a path.
    fn exists(&self, path: &str) -> bool;
}

/// The first need that does not hold, in words; `None` when all hold.
#[must_use]
pub fn unmet(
    needs: &[Need],
    namespace: &Namespace,
    present: &Present,
    host: &dyn HostFacts,
) -> Option<String> {
    needs.iter().find_map(|need| unmet_one(need, namespace, present, host))
}

fn unmet_one(need: &Need, namespace: &Namespace, present: &Present, host: &dyn HostFacts) -> Option<String> {
    match need {
        Need::ConfigFile { name, at_least } => match present.files.get(&(namespace.clone(), name.clone())) {
            None => Some(format!("needs {need}, which is not for this node")),
            Some(None) => Some(format!("needs {need}, which is not in sync here")),
            Some(Some(version)) => {
                at_least.filter(|least| version < least).map(|_| format!("needs {need}, here is {version}"))
            }
        },
        Need::Process { name } => match present.processes.get(&(namespace.clone(), name.clone())) {
            None => Some(format!("needs {need}, which is not on this node")),
            Some(false) => Some(format!("needs {need}, which is not ready")),
            Some(true) => None,
        },
        Need::Workload { kind, name } => {
            match present.workloads.get(&(*kind, namespace.clone(), name.clone())) {
                None => Some(format!("needs {need}, which has no process on this node")),
                Some(0) => Some(format!("needs {need}, which has no ready process on this node")),
                Some(_) => None,
            }
        }
        Need::Mount(path) => {
            (!host.is_mounted(path)).then(|| format!("needs {need}, but nothing is mounted there"))
        }
        Need::Path(path) => (!host.exists(path)).then(|| format!("needs {need}, which does not exist")),
    }
}

/// Whether needs can come to hold without anything happening that the agent hears of: then they are looked at again
/// from time to time.
#[must_use]
pub fn must_poll(needs: &[Need]) -> bool {
    needs.iter().any(|need| match need {
        Need::Mount(_) | Need::Path(_) => true,
        Need::ConfigFile { .. } | Need::Process { .. } | Need::Workload { .. } => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;
    impl HostFacts for Nothing {
        fn is_mounted(&self, _: &str) -> bool {
            false
        }
        fn exists(&self, path: &str) -> bool {
            path == "/there"
        }
    }

    fn check(need: &str, present: &Present) -> Option<String> {
        let needs = [need.parse().expect("a need")];
        unmet(&needs, &Namespace::default_namespace(), present, &Nothing)
    }

    #[test]
    fn the_words_are_those_of_the_contract() {
        let mut present = Present::default();
        let key = (Namespace::default_namespace(), "app-conf".parse::<Name>().expect("a name"));
        assert_eq!(
            check("configfile/app-conf", &present).as_deref(),
            Some("needs configfile/app-conf, which is not for this node")
        );
        present.files.insert(key.clone(), Some(Version(6)));
        assert_eq!(
            check("configfile/app-conf@>=7", &present).as_deref(),
            Some("needs configfile/app-conf@>=7, here is 6")
        );
        present.files.insert(key, Some(Version(7)));
        assert_eq!(check("configfile/app-conf@>=7", &present), None);
    }

    #[test]
    fn paths_mounts_and_processes() {
        let mut present = Present::default();
        assert_eq!(check("path:/there", &present), None);
        assert!(check("path:/not", &present).is_some());
        assert!(check("mount:/there", &present).is_some());
        let key = (Kind::Deployment, Namespace::default_namespace(), "db".parse().expect("a name"));
        present.workloads.insert(key.clone(), 0);
        assert!(check("deployment/db", &present).is_some());
        present.workloads.insert(key, 1);
        assert_eq!(check("deployment/db", &present), None);
    }
}
