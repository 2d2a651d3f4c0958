//! The stock `nats` command as inspector, with the read-only context that `ostler dev` writes: what docs/inspecting.md
//! promises. Where no `nats` is found (`OSTLER_NATS_CLI`, PATH, `nats-cli/nats` in cargo's target folder) it says that it
//! was skipped; `tests/rigs/tools.sh fetch_nats_cli target/nats-cli` builds one.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use harness::fleet::{Fleet, PATIENCE, Size, heard};

/// A file, and a process that needs nothing.
const WORK: &str = "apiVersion: ostler/v1
kind: ConfigFile
metadata: {name: app-conf}
spec: {path: /etc/app.conf, nodeSelector: {}, content: \"a = 1\\n\", rollout: {bake: 0s}}
---
apiVersion: ostler/v1
kind: Process
metadata: {name: one}
spec: {command: [/bin/sleep, infinity]}
";

fn runs(program: &Path) -> bool {
    let done = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    done.is_ok_and(|status| status.success())
}

/// The `nats` command, where there is one.
fn find() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("OSTLER_NATS_CLI") {
        let named = PathBuf::from(named);
        assert!(runs(&named), "$OSTLER_NATS_CLI is {}, which does not run", named.display());
        return Some(named);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = std::env::current_exe().expect("this program's path");
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let beside = own.ancestors().map(|folder| folder.join("nats-cli"));
    folders
        .into_iter()
        .chain(beside)
        .map(|folder| folder.join("nats"))
        .find(|file| file.is_file() && runs(file))
}

struct Cli {
    nats: PathBuf,
    fleet: Fleet,
}

impl Cli {
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.nats);
        // `--translate` runs ostler by its name: it is found as a user would have it found.
        let programs = harness::fleet::programs();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path =
            std::env::join_paths([programs].into_iter().chain(std::env::split_paths(&path))).expect("a PATH");
        command.args(words).env("PATH", path).env("NO_COLOR", "1");
        command.env("XDG_CONFIG_HOME", self.fleet.config_home()).env("HOME", self.fleet.folder());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn start(&self, words: &[&str]) -> Child {
        self.command(words).spawn().expect("nats starts")
    }

    /// Ends within patience; whether well, and all that it said.
    fn end(child: Child) -> (bool, String) {
        let (status, out, err) = heard(child, PATIENCE);
        let Some(status) = status else { panic!("nats hangs: {out}{err}") };
        (status.success(), out + &err)
    }

    #[track_caller]
    fn shows(&self, words: &[&str], wanted: &[&str]) -> String {
        let (well, text) = Self::end(self.start(words));
        assert!(well, "nats {}:\n{text}", words.join(" "));
        for part in wanted {
            assert!(text.contains(part), "nats {} does not show {part}:\n{text}", words.join(" "));
        }
        text
    }

    #[track_caller]
    fn fails(&self, words: &[&str]) {
        let (well, text) = Self::end(self.start(words));
        assert!(!well, "nats {} ended well:\n{text}", words.join(" "));
    }
}

fn streams(cli: &Cli) {
    let names = ["KV_ostler", "KV_ostler_observed", "OSTLER_EVENTS", "OSTLER_AUDIT"];
    cli.shows(&["stream", "ls", "-a"], &names);
    cli.shows(&["stream", "info", "KV_ostler"], &["KV_ostler", "Messages"]);
    cli.shows(&["stream", "info", "OSTLER_EVENTS"], &["OSTLER_EVENTS"]);
    cli.shows(&["stream", "subjects", "OSTLER_EVENTS"], &["configfile.default.app-conf"]);
    let translated = ["--translate", "ostler decode"];
    let last = "ostler.v1.event.node.node-1.configfile.default.app-conf.FileWritten";
    let get = ["stream", "get", "OSTLER_EVENTS", "--last-for", last];
    cli.shows(&[&get[..], &translated].concat(), &["FileWritten", "Ostler-Message", "node-1"]);
    let get = ["stream", "get", "KV_ostler", "--last-for", "$KV.ostler.term.scheduler"];
    cli.shows(&[&get[..], &translated].concat(), &["controller-1"]);
}

fn keys(cli: &Cli) {
    cli.shows(&["kv", "ls"], &["ostler"]);
    let body =
        cli.command(&["kv", "get", "ostler", "o.process.default.one", "--raw"]).output().expect("nats runs");
    assert!(body.status.success(), "{}", String::from_utf8_lossy(&body.stderr));
    let file = cli.fleet.folder().join("body");
    std::fs::write(&file, &body.stdout).expect("written");
    let mut decode = cli.fleet.command(&["decode"]);
    let decoded = decode.stdin(std::fs::File::open(&file).expect("readable")).output().expect("ostler runs");
    let text = String::from_utf8_lossy(&decoded.stdout);
    assert!(text.contains("/bin/sleep"), "{text}");
}

fn services(cli: &Cli) {
    cli.shows(&["service", "ls"], &["ostler-api"]);
    cli.shows(&["service", "info", "ostler-api"], &["api.*.apply"]);
    cli.shows(&["service", "stats", "ostler-api"], &["apply"]);
}

/// Events as they happen, readable from their headers alone.
fn events(cli: &Cli) {
    let mut listener = cli.start(&["sub", "ostler.v1.event.>", "--headers-only", "--count", "1"]);
    // It hears what is said after it listens; when that is, nobody tells. So something is said until it has heard.
    let deadline = Instant::now() + PATIENCE;
    let mut value = 1;
    while listener.try_wait().expect("a child").is_none() && Instant::now() < deadline {
        value += 1;
        let content = format!("a = {value}\n");
        cli.fleet.run_with(&["config", "push", "app-conf", "--file", "-", "--bake", "0s"], &content).ok();
    }
    let (well, text) = Cli::end(listener);
    assert!(well, "{text}");
    assert!(text.contains("Ostler-Reason:") && text.contains("Ostler-Message:"), "{text}");
}

/// It looks and cannot touch.
fn refusals(cli: &Cli) {
    cli.fails(&["kv", "put", "ostler", "o.process.default.one", "x", "--timeout", "1s"]);
    cli.fails(&["kv", "del", "ostler", "o.process.default.one", "-f", "--timeout", "1s"]);
    cli.fails(&["stream", "rm", "OSTLER_EVENTS", "-f", "--timeout", "1s"]);
    cli.fails(&["stream", "purge", "KV_ostler", "-f", "--timeout", "1s"]);
    // This one ends well when nobody answers; an answer would be shown with the word Received.
    let (_, text) = Cli::end(cli.start(&["request", "api.dev.get", "", "--timeout", "1s"]));
    assert!(!text.contains("Received"), "{text}");
    assert_eq!(cli.fleet.get(&["process/one"]).len(), 1, "it is still there");
}

#[test]
fn the_stock_nats_command_shows_what_the_page_promises() {
    let Some(nats) = find() else {
        eprintln!("SKIPPED: no nats command; tests/rigs/tools.sh fetch_nats_cli target/nats-cli builds one");
        return;
    };
    let fleet = Fleet::start(Size { agents: 2, ..Size::default() });
    fleet.converges(WORK);
    let cli = Cli { nats, fleet };
    streams(&cli);
    keys(&cli);
    services(&cli);
    events(&cli);
    refusals(&cli);
}
