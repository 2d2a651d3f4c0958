//! Which ConfigFile a path of this host belongs to: for other tools, which ask before they write (CONTRACT.md section 9).
//!
//! The answer comes from what the ledger remembers, so it is the same with the bus away, and with the agent down.

use ostler_agent_core::file::FileRecord;
use ostler_agent_core::ledger::Ledger;
use ostler_schemas::time::{Timestamp, age};
use ostler_schemas::v1::report::{FileReport, FileState};
use ostler_schemas::{Sha256, Uid, Version};
use serde::{Deserialize, Serialize};

/// Whose a path is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owned {
    /// `configfile/NAMESPACE/NAME`.
    pub of: String,
    /// Its uid.
    pub uid: Uid,
    /// The path on the host.
    pub path: String,
    /// The version that was written; 0 if none was yet.
    pub version: Version,
    /// What that version has there; none for a folder, and of what has a secret in it.
    pub sha256: Option<Sha256>,
    /// How it stands; none while no agent runs.
    pub state: Option<FileState>,
    /// Why, where it is not in sync.
    pub message: Option<String>,
    /// When what is there was written there.
    pub since: Option<Timestamp>,
}

impl Owned {
    /// One line for people and scripts.
    #[must_use]
    pub fn text(&self, now: Timestamp) -> String {
        let mut words = vec![format!("{} version {}", self.of, self.version)];
        words.extend(self.state.map(|state| format!("{state:?}")));
        words.extend(self.sha256.map(|hash| format!("content {}", hash.short())));
        words.extend(self.since.map(|at| format!("on disk since {at} ({})", age(now.since_ms(at)))));
        words.extend(self.message.clone());
        format!("{}\n", words.join("  "))
    }
}

/// Whose a path is, by what an agent remembers; `reports` are those of one that runs.
#[must_use]
pub fn owner(memory: &Ledger, reports: &[FileReport], path: &str) -> Option<Owned> {
    let record = memory.file_records.values().find(|record| holds(record, path))?;
    let (namespace, name) = record.named.as_ref()?;
    let report = reports.iter().find(|report| report.u == record.uid);
    let part = record
        .written
        .as_ref()
        .and_then(|written| written.all().into_iter().find(|part| record.path_of(&part.name) == path));
    // The hash of what has a secret in it is told to nobody; the report of a running agent knows which that is.
    let is_told = report.is_some_and(|report| report.sha256.is_some());
    Some(Owned {
        of: format!("configfile/{namespace}/{name}"),
        uid: record.uid,
        path: path.to_owned(),
        version: record.written.as_ref().map(|written| written.version).unwrap_or_default(),
        sha256: part.filter(|_| is_told).map(|part| part.sha256),
        state: report.map(|report| report.state),
        message: report.and_then(|report| report.message.clone()),
        since: None,
    })
}

/// Whether a record is of this path: the file itself, its folder if it is several, or one of these.
fn holds(record: &FileRecord, path: &str) -> bool {
    let parts = record.written.iter().flat_map(|written| written.all());
    !record.released
        && !record.path.is_empty()
        && (record.path == path || parts.into_iter().any(|part| record.path_of(&part.name) == path))
}

#[cfg(test)]
mod tests {
    use ostler_agent_core::file::{Owner, Part, Written};
    use ostler_schemas::Namespace;
    use ostler_schemas::hash::sha256;
    use ostler_schemas::quantity::Mode;

    use super::*;

    fn ledger() -> Ledger {
        let uid = Uid::from_bytes([1; 16]);
        let part = |name: &str| Part {
            name: name.to_owned(),
            sha256: sha256(name.as_bytes()),
            mode: Mode::from_bits(0o644),
        };
        let written = Written::of(
            Version(8),
            &[part("main.conf"), part("sub/host.conf")],
            Mode::from_bits(0o644),
            Owner::default(),
        );
        let mut record = FileRecord::new(uid);
        record.named = Some((Namespace::default_namespace(), "app-conf".parse().expect("a name")));
        record.path = "/etc/app.d".to_owned();
        record.written = Some(written);
        let mut ledger = Ledger::default();
        ledger.file_records.insert(uid, record);
        ledger
    }

    #[test]
    fn each_file_of_a_folder_and_the_folder_itself_have_an_owner() {
        let mut ledger = ledger();
        for path in ["/etc/app.d", "/etc/app.d/main.conf", "/etc/app.d/sub/host.conf"] {
            let owned = owner(&ledger, &[], path).expect("managed");
            assert_eq!(
                (owned.of.as_str(), owned.version),
                ("configfile/default/app-conf", Version(8)),
                "{path}"
            );
            assert_eq!((owned.state, owned.sha256), (None, None), "{path}");
        }
        for path in ["/etc", "/etc/app.d/other", "/etc/app.d.conf"] {
            assert_eq!(owner(&ledger, &[], path), None, "{path}");
        }
        let record = ledger.file_records.values_mut().next().expect("one");
        record.released = true;
        assert_eq!(owner(&ledger, &[], "/etc/app.d"), None, "given back");
    }

    #[test]
    fn one_line_says_all_that_is_known() {
        let mut owned = owner(&ledger(), &[], "/etc/app.d/main.conf").expect("managed");
        assert_eq!(owned.text(Timestamp(0)), "configfile/default/app-conf version 8\n");
        owned.state = Some(FileState::InSync);
        owned.since = Some(Timestamp(0));
        let text = owned.text(Timestamp(180_000));
        assert!(
            text.starts_with("configfile/default/app-conf version 8  InSync  on disk since 1970"),
            "{text}"
        );
        assert!(text.ends_with("(3m)\n"), "{text}");
    }
}
