//! Validators: a version that is refused is never in place, whatever dies meanwhile, and it never passes the first wave;
//! a dry run says before what every node would say.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use harness::fleet::{Fleet, Size, kill, until};
use serde_json::Value;

const PATH: &str = "/etc/app.json";

/// A program that takes what is good JSON with the right end, and says why not.
const CHECK: &str = "grep -q '\"end\": true' \"$1\" && exit 0; echo \"$OSTLER_VERSION $OSTLER_NODE\" >> \"$2\"; \
                     echo \"line 3: end must be true\" >&2; exit 1";

/// Where it notes what it has refused, and on which node.
fn notes(fleet: &Fleet) -> PathBuf {
    fleet.folder().join("refused")
}

fn manifest(fleet: &Fleet, content: &str) -> String {
    let content = content.replace('\n', "\n    ");
    format!(
        "apiVersion: ostler/v1\nkind: ConfigFile\nmetadata: {{name: app-json}}\nspec:\n  path: {PATH}\n  nodeSelector: {{}}\n\
         \x20 mode: \"0640\"\n  rollout: {{waves: [1, 100%], bake: 0s, progressDeadline: 40s}}\n\
         \x20 validator:\n    syntax: json\n    timeout: 5s\n    command: [/bin/sh, -c, '{check}', check, $(FILE), {notes}]\n\
         \x20 content: |\n    {content}\n",
        check = CHECK.replace('\'', "''"),
        notes = notes(fleet).display(),
    )
}

fn version(n: u64, end: bool) -> String {
    // Long enough that a torn one would be seen.
    format!("{{\n  \"n\": {n}, \"fill\": \"{}\",\n  \"end\": {end}\n}}\n", "x".repeat(20_000))
}

fn apply(fleet: &Fleet, content: &str, more: &[&str]) -> harness::fleet::Done {
    fleet.run_with(&[&["apply", "-f", "-"], more].concat(), &manifest(fleet, content))
}

fn status(fleet: &Fleet) -> Vec<Value> {
    let done = fleet.run(&["config", "status", "app-json", "-o", "json"]);
    let value: Value = serde_json::from_str(&done.out).unwrap_or_default();
    value["items"].as_array().cloned().unwrap_or_default()
}

fn phase(fleet: &Fleet) -> String {
    let found = fleet.get(&["configfiles"]);
    found[0]["status"]["rollout"]["state"].as_str().unwrap_or_default().to_owned()
}

/// Somebody who opens the file again and again, and takes it for what it is.
struct Reader {
    stop: Arc<AtomicBool>,
    reads: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<Vec<String>>>,
}

impl Reader {
    fn of(path: &Path) -> Self {
        let (stop, reads) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (path, stopped, count) = (path.to_owned(), Arc::clone(&stop), Arc::clone(&reads));
        let owner = std::fs::metadata("/proc/self").expect("this process").uid();
        let thread = std::thread::spawn(move || {
            let mut wrong = Vec::new();
            while !stopped.load(Ordering::SeqCst) && wrong.len() < 10 {
                wrong.extend(judge(&path, owner));
                count.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_micros(200));
            }
            wrong
        });
        Self { stop, reads, thread: Some(thread) }
    }

    fn end(mut self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::SeqCst);
        let wrong = self.thread.take().expect("it ran").join().expect("it ends");
        (self.reads.load(Ordering::SeqCst), wrong)
    }
}

/// What is wrong with what lies there now.
fn judge(path: &Path, owner: u32) -> Option<String> {
    use std::io::Read as _;
    let mut file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) => return Some(format!("cannot be opened: {error}")),
    };
    let meta = file.metadata().expect("is open");
    if (meta.mode() & 0o7777, meta.uid()) != (0o640, owner) {
        return Some(format!("mode {:o}, owner {}", meta.mode() & 0o7777, meta.uid()));
    }
    let mut text = String::new();
    if let Err(error) = file.read_to_string(&mut text) {
        return Some(format!("cannot be read: {error}"));
    }
    match serde_json::from_str::<Value>(&text) {
        Ok(value) if value["end"] == true => None,
        Ok(value) => Some(format!("bad: {}", value["n"])),
        Err(error) => Some(format!("torn ({} bytes): {error}", text.len())),
    }
}

#[test]
fn a_bad_version_is_never_read_under_kills_and_never_passes_the_first_wave() {
    let fleet = Fleet::start(Size { agents: 3, ..Size::default() });
    apply(&fleet, &version(0, true), &["--wait", "--timeout", "60s"]).ok();
    let nodes: Vec<String> = fleet.phases().into_keys().collect();
    let readers: BTreeMap<&String, Reader> =
        nodes.iter().map(|node| (node, Reader::of(&fleet.file(node, PATH)))).collect();
    for n in 1..=8 {
        let is_good = n % 2 == 0;
        apply(&fleet, &version(n, is_good), &["--force"]).ok();
        // In the midst of it: agents die at whatever step they are.
        for round in 0..3 {
            std::thread::sleep(Duration::from_millis(40 + 35 * ((n + round) % 4)));
            let daemons = fleet.daemons();
            let node = &nodes[usize::try_from(n + round).expect("small") % nodes.len()];
            let agent =
                daemons.iter().find(|(name, _)| name.contains("agent") && name.contains(node.as_str()));
            if let Some((_, pid)) = agent {
                kill(u32::try_from(*pid).expect("a pid"));
            }
        }
        if is_good {
            until("the good one is everywhere", || {
                let rows = status(&fleet);
                let held =
                    rows.iter().filter(|row| row["state"] == "InSync" && row["version"] == n + 1).count();
                (held == nodes.len()).then_some(())
            });
        } else {
            until("the bad one is rolled back", || (phase(&fleet) == "RolledBack").then_some(()));
        }
    }
    for (node, reader) in readers {
        let (reads, wrong) = reader.end();
        assert!(wrong.is_empty(), "{node}: {wrong:?} in {reads} reads");
        assert!(reads > 1_000, "{node} was read only {reads} times");
        let left = fleet.file(node, "/etc/.app.json.ostler");
        until("nothing unfinished is left", || (!left.exists()).then_some(()));
    }
    // The first wave is one node: no other was ever asked to look at a bad version.
    let noted = std::fs::read_to_string(notes(&fleet)).expect("some were refused");
    let mut asked: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (version, node) in noted.lines().filter_map(|line| line.split_once(' ')) {
        asked.entry(version).or_default().insert(node);
    }
    assert_eq!(asked.keys().copied().collect::<Vec<_>>(), ["2", "4", "6", "8"]);
    assert!(asked.values().all(|nodes| nodes.len() == 1), "{asked:?}");
}

#[test]
fn what_is_refused_says_why_and_a_dry_run_says_it_before() {
    let fleet = Fleet::start(Size { agents: 2, ..Size::default() });
    // Not written as its reader expects: nothing is stored.
    let refused = apply(&fleet, "{\n  \"end\": true,\n}", &[]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.contains("spec.content: line 3, column 1: is not json"), "{refused:?}");
    assert!(fleet.get(&["configfiles"]).is_empty());

    let tried = |content: &str| apply(&fleet, content, &["--dry-run=nodes"]);
    let said = tried(&version(1, true)).ok();
    assert!(said.contains("2 nodes: 2 WouldChange"), "{said}");
    let done = tried(&version(1, false));
    assert_eq!(done.code, 1, "{done:?}");
    assert!(
        done.out.contains("node-1  ValidatorFailed") && done.out.contains("line 3: end must be true"),
        "{done:?}"
    );
    assert!(fleet.get(&["configfiles"]).is_empty(), "nothing is stored");
    for node in ["node-1", "node-2"] {
        let entries = std::fs::read_dir(fleet.file(node, "/etc")).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let names: Vec<String> = names.filter(|name| name.contains("app.json")).collect();
        assert!(names.is_empty(), "nothing is written: {names:?}");
    }

    apply(&fleet, &version(1, true), &["--wait", "--timeout", "60s"]).ok();
    assert!(tried(&version(1, true)).ok().contains("2 nodes: 2 Unchanged"));
    let push = |content: &str, more: &[&str]| {
        let words = ["config", "push", "app-json", "--file", "-"];
        fleet.run_with(&[&words, more].concat(), content)
    };
    let done = push(&version(2, false), &["--dry-run=nodes", "-o", "json"]);
    assert_eq!(done.code, 1, "{done:?}");
    let rows: Value = serde_json::from_str(&done.out).expect("JSON");
    assert!(
        rows["items"].as_array().expect("a list").iter().all(|row| row["state"] == "ValidatorFailed"),
        "{rows}"
    );
    assert_eq!(status(&fleet)[0]["version"], 1);

    let done = push(&version(2, false), &["--wait", "--timeout", "60s"]);
    assert_eq!(done.code, 2, "{done:?}");
    assert!(
        done.out.contains("line 3: end must be true") || done.err.contains("line 3: end must be true"),
        "{done:?}"
    );
    until("both hold what they had", || {
        let rows = status(&fleet);
        (rows.len() == 2 && rows.iter().all(|row| row["state"] == "InSync" && row["version"] == 1))
            .then_some(())
    });
    // A node that is gone is named, and holds nothing up.
    let pids: Vec<u64> =
        fleet.daemons().into_iter().filter(|(name, _)| name.contains("node-2")).map(|(_, pid)| pid).collect();
    for pid in pids {
        kill(u32::try_from(pid).expect("a pid"));
    }
    until("node-2 is lost", || {
        (fleet.phases().get("node-2").map(String::as_str) == Some("Lost")).then_some(())
    });
    let done = push(&version(2, true), &["--dry-run=nodes"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.out.contains("1 Offline, 1 WouldChange"), "{done:?}");
    assert!(done.err.contains("1 node could not be asked: node-2"), "{done:?}");
}
