//! `ostler dev`: a whole fleet on this machine, of the shipped programs, with generated credentials.
//!
//! A server or controller that ends is started again after 1 s. Of a host, agent or holder is started again only while
//! the other lives: both dead is a dead host, and stays dead. At the end, by Ctrl-C or SIGTERM, everything is ended in
//! order and nothing is left; if this process is killed, [`guard`] sees to the same.

pub mod contexts;
pub mod fleet;
pub mod guard;
pub mod part;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use ostler_schemas::Kind;
use ostler_schemas::v1::api::ListRequest;
use ostler_schemas::v1::status::{NodePhase, Status};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::args::Global;
use crate::args::local::Dev;
use crate::connect::session;
use crate::context::replace_file;
use crate::failure::Failure;
use crate::out::Out;
use crate::render::amounts::count;
use crate::wait::{Verdict, until};

use contexts::Saved;
use fleet::{Fleet, Programs};
use guard::{HolderLeft, Will, stop_command};
use part::{Part, Role, Seen};

/// How often children are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// How long a child may take to end when it was asked to.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// A server that does not listen by then has a reason.
const SERVERS_PATIENCE: Duration = Duration::from_secs(15);
/// How often a starting server is tried.
const SERVERS_POLL: Duration = Duration::from_millis(10);
/// A child that ended so often before anything was ready will not get ready.
const HOPELESS: u32 = 3;

/// Runs it until a signal.
///
/// # Errors
/// When something is missing, or the fleet does not get ready.
pub async fn run(args: &Dev, out: &mut Out) -> Result<(), Failure> {
    let begun = Instant::now();
    let programs = Programs::find()?;
    let home = Home::open(args.dir.as_deref())?;
    end_leftovers(&programs.agent, &home.dir);
    let result = match Fleet::prepare(&home.dir, args, programs) {
        Ok(fleet) => Running::new(fleet, &home)?.run(args, begun, out).await,
        Err(failure) => Err(failure),
    };
    home.close();
    result
}

/// The folder of the fleet.
struct Home {
    dir: PathBuf,
    temporary: bool,
    _lock: Flock<File>,
}

impl Home {
    fn open(asked: Option<&Path>) -> Result<Self, Failure> {
        let act = "cannot make a folder for the fleet";
        let (dir, temporary) = match asked {
            Some(dir) => {
                std::fs::create_dir_all(dir)
                    .map_err(|error| Failure::local(&format!("cannot make {}", dir.display()), error))?;
                (dir.to_path_buf(), false)
            }
            None => {
                let folder = tempfile::Builder::new().prefix("ostler-dev-").tempdir();
                (folder.map_err(|error| Failure::local(act, error))?.keep(), true)
            }
        };
        let dir = dir.canonicalize().map_err(|error| Failure::local(act, error))?;
        let file = File::create(dir.join("dev.lock")).map_err(|error| Failure::local(act, error))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, _)| {
            Failure::message(format!(
                "another \"ostler dev\" runs in {}: end it, or choose another --dir",
                dir.display()
            ))
        })?;
        Ok(Self { dir, temporary, _lock: lock })
    }

    fn close(self) {
        if self.temporary {
            guard::remove_folder(&self.dir);
        }
    }
}

/// Holders that an earlier `dev` in this folder left behind because it and its watcher were killed.
fn end_leftovers(agent: &Path, dir: &Path) {
    let hosts = std::fs::read_dir(dir.join("hosts")).into_iter().flatten().flatten();
    for host in hosts {
        let holder = host.path().join("run/holder");
        if holder.join("holder.sock").exists() {
            stop_command(agent, &holder).status().ok();
        }
    }
}

struct Running {
    fleet: Fleet,
    parts: Vec<Part>,
    watcher: std::process::Child,
    temporary: Option<PathBuf>,
    contexts: Option<Saved>,
    told: Vec<Option<u32>>,
}

impl Running {
    fn new(fleet: Fleet, home: &Home) -> Result<Self, Failure> {
        use std::os::unix::process::CommandExt as _;
        let own =
            std::env::current_exe().map_err(|error| Failure::local("cannot find this program", error))?;
        let watcher = std::process::Command::new(own)
            .arg("dev-watch")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| Failure::local("cannot start the watcher", error))?;
        let parts: Vec<Part> = fleet.plans.iter().cloned().map(Part::new).collect();
        let temporary = home.temporary.then(|| home.dir.clone());
        Ok(Self { told: Vec::new(), fleet, parts, watcher, temporary, contexts: None })
    }

    async fn run(mut self, args: &Dev, begun: Instant, out: &mut Out) -> Result<(), Failure> {
        let result = self.until_signal(args, begun, out).await;
        self.stop(out).await;
        result
    }

    async fn until_signal(&mut self, args: &Dev, begun: Instant, out: &mut Out) -> Result<(), Failure> {
        let listen = |kind| signal(kind).map_err(|error| Failure::local("cannot listen for signals", error));
        let (mut interrupt, mut terminate) =
            (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        self.start_servers().await?;
        self.start_those(|role| !matches!(role, Role::Agent(_)))?;
        if !args.no_context {
            self.contexts = Some(contexts::select(&self.fleet.setup())?);
        }
        self.tell_watcher();
        let (global, nodes) = (self.global(args), self.fleet.nodes.clone());
        let timeout = args.ready_timeout.to_std();
        let (mut quiet, _, _) = Out::captured();
        // Agents are started when they will be answered: one that is not waits for its next beat.
        let (answers, answered) = tokio::sync::oneshot::channel();
        let mut ready = Box::pin(async move { ready(&global, nodes, timeout, answers, &mut quiet).await });
        let (mut answered, mut agents_wait, mut is_ready) = (answered, true, false);
        let mut ticks = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                biased;
                _ = interrupt.recv() => return Ok(()),
                _ = terminate.recv() => return Ok(()),
                _ = &mut answered, if agents_wait => {
                    agents_wait = false;
                    self.start_those(|role| matches!(role, Role::Agent(_)))?;
                }
                result = &mut ready, if !is_ready => {
                    result.map_err(|failure| self.not_ready(&failure))?;
                    is_ready = true;
                    self.write_ready(args)?;
                    self.banner(args, begun, out)?;
                }
                _ = ticks.tick() => {
                    let changed = self.look(out);
                    if !is_ready && let Some(part) = self.parts.iter().find(|p| p.ends >= HOPELESS) {
                        return Err(hopeless(part));
                    }
                    if is_ready && changed {
                        self.write_ready(args)?;
                    }
                }
            }
        }
    }

    fn start_those(&mut self, wanted: impl Fn(&Role) -> bool) -> Result<(), Failure> {
        let chosen = self.parts.iter_mut().filter(|part| wanted(&part.plan.role) && !part.runs());
        for part in chosen {
            part.start()?;
        }
        Ok(())
    }

    /// The bus first: whoever finds it at once need not try again.
    async fn start_servers(&mut self) -> Result<(), Failure> {
        let ports: Vec<u16> = self.fleet.servers.iter().map(|server| server.port).collect();
        for part in self.parts.iter_mut().filter(|part| part.plan.role == Role::Server) {
            part.start()?;
        }
        let deadline = Instant::now() + SERVERS_PATIENCE;
        for port in ports {
            while tokio::net::TcpStream::connect((std::net::Ipv4Addr::LOCALHOST, port)).await.is_err() {
                let mut servers = self.parts.iter_mut().filter(|part| part.plan.role == Role::Server);
                let ended = servers.find_map(|part| matches!(part.look(), Seen::Ended(_)).then_some(part));
                if let Some(part) = ended {
                    return Err(hopeless(part));
                }
                if Instant::now() >= deadline {
                    return Err(Failure::message(format!("nats-server does not listen on port {port}")));
                }
                tokio::time::sleep(SERVERS_POLL).await;
            }
        }
        Ok(())
    }

    fn global(&self, args: &Dev) -> Global {
        Global {
            context: Some(self.fleet.context().display().to_string()),
            request_timeout: args.ready_timeout,
            ..Global::default()
        }
    }

    /// Starts again what is due; whether any child is another process now.
    fn look(&mut self, out: &mut Out) -> bool {
        for index in 0..self.parts.len() {
            match self.parts[index].look() {
                Seen::Same => {}
                Seen::Ended(how) => {
                    let name = &self.parts[index].plan.name;
                    out.say(&format!("{name} ended ({how})"));
                }
                Seen::Due => self.start_again(index, out),
            }
        }
        let now: Vec<Option<u32>> = self.parts.iter().map(Part::pid).collect();
        let changed = now != self.told;
        if changed {
            self.told = now;
            self.tell_watcher();
        }
        changed
    }

    fn start_again(&mut self, index: usize, out: &mut Out) {
        let name = self.parts[index].plan.name.clone();
        if let Role::Agent(host) | Role::Holder(host) = &self.parts[index].plan.role
            && !self.other_half_runs(index, host)
        {
            out.say(&format!(
                "{name} stays dead: agent and holder of {host} are both gone, as with a host that died"
            ));
            self.parts[index].give_up();
            return;
        }
        match self.parts[index].start() {
            Ok(()) => out.say(&format!("{name} started again")),
            Err(failure) => out.say(&format!("{name}: {failure}")),
        }
    }

    fn other_half_runs(&self, index: usize, host: &str) -> bool {
        self.parts.iter().enumerate().any(|(other, part)| {
            let same_host = matches!(&part.plan.role, Role::Agent(name) | Role::Holder(name) if name == host);
            other != index && same_host && part.runs()
        })
    }

    /// What is to be done if this process is killed.
    fn tell_watcher(&mut self) {
        let holders = self.parts.iter().filter_map(|part| match &part.plan.role {
            Role::Holder(node) => Some(HolderLeft { dir: self.fleet.holder_dir(node), pid: part.pid()? }),
            Role::Server | Role::Controller | Role::Agent(_) => None,
        });
        let will = Will {
            agent: self.fleet.programs.agent.clone(),
            holders: holders.collect(),
            temporary: self.temporary.clone(),
            contexts: self.contexts.clone(),
            farewell: false,
        };
        self.write_will(&will);
    }

    fn write_will(&mut self, will: &Will) {
        let line = serde_json::to_string(will).unwrap_or_default();
        if let Some(pipe) = &mut self.watcher.stdin {
            // Without its watcher the fleet still runs and stops; only a kill of this process leaves something.
            writeln!(pipe, "{line}").and_then(|()| pipe.flush()).ok();
        }
    }

    fn not_ready(&self, failure: &Failure) -> Failure {
        if let Some(part) = self.parts.iter().find(|part| part.ends > 0) {
            return hopeless(part);
        }
        let logs = self.fleet.dir.join("log");
        Failure::message(format!("the fleet did not get ready: {failure}\nlogs:  {}", logs.display()))
    }

    fn state(&self) -> Value {
        let of = |wanted: &dyn Fn(&Role) -> bool| -> Vec<&Part> {
            self.parts.iter().filter(|part| wanted(&part.plan.role)).collect()
        };
        let named = |parts: Vec<&Part>| -> Vec<Value> {
            parts.iter().map(|p| json!({"name": p.plan.name, "pid": p.pid(), "log": p.plan.log})).collect()
        };
        let hosts: Vec<Value> = self
            .fleet
            .nodes
            .iter()
            .map(|node| {
                let pid = |role: Role| self.parts.iter().find(|p| p.plan.role == role).and_then(Part::pid);
                json!({"name": node, "root": self.fleet.root(node), "agent": pid(Role::Agent(node.clone())),
                       "holder": pid(Role::Holder(node.clone())), "holderDir": self.fleet.holder_dir(node)})
            })
            .collect();
        let http: Vec<Value> =
            self.fleet.http.iter().map(|(name, address)| json!({"name": name, "http": address})).collect();
        let ports: Vec<Value> =
            self.fleet.servers.iter().map(|s| json!({"name": s.name, "port": s.port})).collect();
        json!({
            "kind": "DevFleet", "pid": std::process::id(), "dir": self.fleet.dir, "context": self.fleet.context(),
            "setup": self.fleet.setup(), "servers": named(of(&|r| *r == Role::Server)), "ports": ports,
            "controllers": named(of(&|r| *r == Role::Controller)), "http": http, "hosts": hosts,
        })
    }

    fn write_ready(&self, args: &Dev) -> Result<(), Failure> {
        match &args.ready_file {
            Some(file) => replace_file(file, crate::render::form::pretty(&self.state()).as_bytes()),
            None => Ok(()),
        }
    }

    fn banner(&self, args: &Dev, begun: Instant, out: &mut Out) -> Result<(), Failure> {
        let number =
            |role: &dyn Fn(&Role) -> bool| self.parts.iter().filter(|p| role(&p.plan.role)).count() as u64;
        let kept = if self.temporary.is_some() { "removed at the end" } else { "kept" };
        let dir = self.fleet.dir.display();
        let select = if args.no_context {
            format!("--context {} ", self.fleet.context().display())
        } else {
            String::new()
        };
        let contexts =
            if args.no_context { "none written" } else { "dev, for ostler and (read only) for nats" };
        let http: Vec<String> = self.fleet.http.iter().map(|(_, a)| format!("http://{a}/metrics")).collect();
        out.data(&format!(
            "dev ready in {:.1}s: {}, {}, {}\n\
             state     {dir} ({kept})\n\
             hosts     files of NODE lie below {dir}/hosts/NODE/root\n\
             contexts  {contexts}\n\
             metrics   {}\n\
             logs      {dir}/log\n\n\
             try  ostler {select}get nodes\n     \
                  ostler {select}apply -f web.yaml --wait\n     \
                  ostler {select}events -f\n     \
                  nats sub 'ostler.v1.event.>' --translate 'ostler decode'\n\n\
             Ctrl-C ends all of it.\n",
            begun.elapsed().as_secs_f64(),
            count(number(&|r| *r == Role::Server), "server", "servers"),
            count(number(&|r| *r == Role::Controller), "controller", "controllers"),
            count(self.fleet.nodes.len() as u64, "agent", "agents"),
            http.join(" "),
        ))
    }

    /// Controllers first, so that nobody makes anything of what follows; then the hosts; the bus last.
    async fn stop(&mut self, out: &mut Out) {
        out.say("ending the fleet");
        self.end(|role| *role == Role::Controller).await;
        self.end(|role| matches!(role, Role::Agent(_))).await;
        let mut stops = Vec::new();
        for part in &self.parts {
            if let (Role::Holder(node), true) = (&part.plan.role, part.runs()) {
                let command = stop_command(&self.fleet.programs.agent, &self.fleet.holder_dir(node));
                stops.extend(tokio::process::Command::from(command).kill_on_drop(true).spawn().ok());
            }
        }
        let grace = Duration::from_millis(guard::STOP_GRACE_MS) + STOP_PATIENCE;
        for mut stop in stops {
            // Whatever does not end in time is ended with its holder's session by the kernel's own means below.
            tokio::time::timeout(grace, stop.wait()).await.ok();
        }
        self.end(|role| matches!(role, Role::Holder(_))).await;
        self.fleet.forget_credentials();
        for place in self.fleet.nodes.iter().filter_map(|node| self.fleet.cgroup(node)) {
            // Each holder has removed those of its processes. One that could not end may still be in there.
            std::fs::remove_dir(place).ok();
        }
        self.end(|role| *role == Role::Server).await;
        if let Some(Err(failure)) = self.contexts.take().map(|saved| saved.restore()) {
            out.warn(&format!("contexts could not be put back: {failure}"));
        }
        self.write_will(&Will { farewell: true, ..Will::default() });
        drop(self.watcher.stdin.take());
        self.watcher.wait().ok();
    }

    async fn end(&mut self, wanted: impl Fn(&Role) -> bool) {
        let chosen = || self.parts.iter().filter(|part| wanted(&part.plan.role));
        chosen().for_each(Part::terminate);
        for part in self.parts.iter_mut().filter(|part| wanted(&part.plan.role)) {
            part.ended(STOP_PATIENCE).await;
        }
    }
}

fn hopeless(part: &Part) -> Failure {
    let tail = part.log_tail();
    let said =
        if tail.is_empty() { "it said nothing".to_owned() } else { format!("its last words:\n{tail}") };
    Failure::message(format!(
        "{} does not stay up; {said}\nlog:   {}",
        part.plan.name,
        part.plan.log.display()
    ))
}

/// Done when every node is ready and has reported what it is; `answers` is told as soon as a controller answers.
async fn ready(
    global: &Global,
    nodes: Vec<String>,
    timeout: Duration,
    answers: tokio::sync::oneshot::Sender<()>,
    out: &mut Out,
) -> Result<(), Failure> {
    let deadline = Instant::now() + timeout;
    let session = loop {
        match session(global).await {
            Ok(session) => break session,
            Err(failure) if !failure.is_nothing_done() || Instant::now() >= deadline => return Err(failure),
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    };
    let list = ListRequest { kind: Kind::Node, namespace: None, labels: Vec::new(), names: nodes.clone() };
    session.client.list(&list).await?;
    // Nobody waits for it only if the fleet is being ended.
    answers.send(()).ok();
    if nodes.is_empty() {
        return Ok(());
    }
    let left = deadline.saturating_duration_since(Instant::now());
    until(&session.client, list, left, out, |seen, _| {
        let is_ready = |view: &ostler_schemas::v1::status::View| {
            matches!(&view.status, Status::Node(node)
                if node.phase == NodePhase::Ready && node.processes.running.is_some())
        };
        let number = seen.values().filter(|view| is_ready(view)).count();
        if number == nodes.len() {
            return Ok(Verdict::Reached);
        }
        Ok(Verdict::NotYet(format!("{number} of {} are ready", count(nodes.len() as u64, "node", "nodes"))))
    })
    .await
}
