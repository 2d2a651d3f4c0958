//! What `dev` runs: folders, ports, and the command line of every child.
//!
//! ```text
//! DIR/setup/…                  as `ostler setup` writes it; operator and context are called "dev"
//! DIR/store/<server>           streams
//! DIR/hosts/<node>/root        what the host's managed paths lie below, with its machine id and boot id in etc/
//! DIR/hosts/<node>/state, run  the agent's ledger; sockets, and the holder's folder run/holder
//! DIR/log/<child>.log          output of every child
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::fs::Permissions;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use ostler_bus::entropy::{Entropy, SeededEntropy};
use ostler_bus::nats::server::{find_binary, free_ports};
use ostler_bus::setup::{Options, Server, run as set_up};
use ostler_schemas::{Name, NodeName};

use super::contexts::NAME;
use super::part::{Plan, Role};
use crate::args::local::Dev;
use crate::connect::causes;
use crate::context::replace_file;
use crate::failure::Failure;

/// First port that agents hand out to processes; below the kernel's ephemeral range.
const PORTS_FROM: u32 = 20_000;
/// Ports in all that are divided among agents; several fleets on one machine begin at different places in it.
const PORTS_IN_ALL: u32 = 10_000;
/// Ports of one agent.
const PORTS_EACH: u32 = 50;
/// How much shipped output is kept: enough to try it, little of a notebook's disk.
const LOGS_MAX_BYTES: &str = "64Mi";
/// From a server's client port to its cluster port, where `--port` fixes them.
const CLUSTER_OFFSET: u16 = 2_000;

/// The shipped programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// nats-server.
    pub server: PathBuf,
    /// ostler-controller.
    pub controller: PathBuf,
    /// ostler-agent.
    pub agent: PathBuf,
}

impl Programs {
    /// Looks beside this program, then on PATH.
    ///
    /// # Errors
    /// Names what is missing and where it was looked for.
    pub fn find() -> Result<Self, Failure> {
        let server = find_binary().map_err(|error| Failure::message(causes(&error)))?;
        Ok(Self { server, controller: program("ostler-controller")?, agent: program("ostler-agent")? })
    }
}

pub(crate) fn program(name: &str) -> Result<PathBuf, Failure> {
    let own = std::env::current_exe().ok().and_then(|exe| exe.canonicalize().ok());
    let beside = own.as_deref().and_then(Path::parent).map(Path::to_path_buf);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let candidates =
        beside.iter().cloned().chain(std::env::split_paths(&path)).map(|folder| folder.join(name));
    candidates.into_iter().find(|file| file.is_file()).ok_or_else(|| {
        let beside = beside.map(|b| b.display().to_string()).unwrap_or_default();
        Failure::message(format!(
            "{name} is missing: it is neither in {beside} nor on PATH\nnext:  build it (cargo build) or install the package"
        ))
    })
}

/// A server of the bus.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerPlace {
    /// What it is called.
    pub name: String,
    /// Where clients connect.
    pub port: u16,
}

/// A whole fleet, written to disk and ready to be started.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// The folder of everything.
    pub dir: PathBuf,
    /// The children, in the order of their start.
    pub plans: Vec<Plan>,
    /// The servers.
    pub servers: Vec<ServerPlace>,
    /// Health and metrics of each controller: name and address.
    pub http: Vec<(String, String)>,
    /// The hosts.
    pub nodes: Vec<String>,
    /// The programs.
    pub programs: Programs,
    /// Below it, each host has a folder for its cgroups.
    pub cgroup: Option<PathBuf>,
}

impl Fleet {
    /// Writes what the children need.
    ///
    /// # Errors
    /// When a program or port is missing or something cannot be written.
    pub fn prepare(dir: &Path, args: &Dev, programs: Programs) -> Result<Self, Failure> {
        let entropy =
            SeededEntropy::from_system().map_err(|error| Failure::local("cannot draw keys", error))?;
        let servers = servers(dir, args)?;
        let nodes: Vec<String> = (1..=args.agents).map(|n| format!("node-{n}")).collect();
        let operator: Name = NAME.parse().map_err(|error| Failure::local("operator", error))?;
        let parsed = nodes.iter().map(|n| n.parse().map_err(|error| Failure::local("node", error)));
        let options = Options {
            servers: servers.clone(),
            nodes: parsed.collect::<Result<BTreeSet<NodeName>, Failure>>()?,
            operators: BTreeSet::from([operator]),
            simulated: simulated(args.simulated)?,
            rotate_secret_key: false,
        };
        let setup = dir.join("setup");
        set_up(&setup, &options, &entropy)
            .map_err(|error| Failure::local("cannot write the settings", causes(&error)))?;
        make_folder(&dir.join("log"))?;
        let places = servers.iter().map(|s| ServerPlace { name: s.name.to_string(), port: s.client_port });
        let mut fleet = Fleet {
            dir: dir.to_path_buf(),
            plans: Vec::new(),
            servers: places.collect(),
            http: Vec::new(),
            nodes,
            programs,
            cgroup: args.cgroup.clone(),
        };
        fleet.plan_servers();
        fleet.plan_controllers(args.controllers)?;
        fleet.plan_hosts(&entropy)?;
        Ok(fleet)
    }

    /// What `ostler setup` wrote.
    #[must_use]
    pub fn setup(&self) -> PathBuf {
        self.dir.join("setup")
    }

    /// The context of the operator.
    #[must_use]
    pub fn context(&self) -> PathBuf {
        self.setup().join("operators").join(NAME).join("context.json")
    }

    /// Where a host has its cgroups, if it was given a place.
    #[must_use]
    pub fn cgroup(&self, node: &str) -> Option<PathBuf> {
        self.cgroup.as_ref().map(|folder| folder.join(node))
    }

    /// The root of a host.
    #[must_use]
    pub fn root(&self, node: &str) -> PathBuf {
        self.dir.join("hosts").join(node).join("root")
    }

    /// The folder of a host's holder.
    #[must_use]
    pub fn holder_dir(&self, node: &str) -> PathBuf {
        self.dir.join("hosts").join(node).join("run/holder")
    }

    fn plan(&mut self, name: &str, role: Role, words: Vec<OsString>) {
        let tied = !matches!(role, Role::Holder(_));
        let log = self.dir.join("log").join(format!("{name}.log"));
        self.plans.push(Plan {
            name: name.to_owned(),
            role,
            words,
            folder: self.setup().join("nats"),
            log,
            tied,
        });
    }

    fn plan_servers(&mut self) {
        for server in self.servers.clone() {
            let conf = self.setup().join(format!("nats/{}.conf", server.name));
            let words = vec![self.programs.server.clone().into(), "-c".into(), conf.into()];
            self.plan(&server.name, Role::Server, words);
        }
    }

    fn plan_controllers(&mut self, count: u16) -> Result<(), Failure> {
        let ports = free_ports(usize::from(count)).map_err(|error| Failure::message(causes(&error)))?;
        for (index, port) in (1..).zip(ports) {
            let name = format!("controller-{index}");
            let address = format!("{}:{port}", Ipv4Addr::LOCALHOST);
            let settings = self.setup().join("controller/controller.toml");
            let words: Vec<OsString> = vec![
                self.programs.controller.clone().into(),
                "--config".into(),
                settings.into(),
                "--name".into(),
                name.clone().into(),
                "--http".into(),
                address.clone().into(),
                "--logs-max-bytes".into(),
                LOGS_MAX_BYTES.into(),
            ];
            self.plan(&name, Role::Controller, words);
            self.http.push((name, address));
        }
        Ok(())
    }

    fn plan_hosts(&mut self, entropy: &SeededEntropy) -> Result<(), Failure> {
        let entropy: &dyn Entropy = entropy;
        // Several fleets on one machine, in tests above all, should not meet at a port.
        let mut first = (std::process::id() * PORTS_EACH * 10) % PORTS_IN_ALL;
        for node in self.nodes.clone() {
            let host = self.dir.join("hosts").join(&node);
            let etc = host.join("root/etc");
            for folder in [&etc, &host.join("state"), &self.holder_dir(&node)] {
                make_folder(folder)?;
            }
            let machine = etc.join("machine-id");
            if !machine.exists() {
                replace_file(&machine, format!("{}\n", entropy.uid()).as_bytes())?;
            }
            // Each start of `dev` is a boot of its hosts: what ran before is gone.
            let boot = etc.join("boot-id");
            replace_file(&boot, format!("{}\n", entropy.uid()).as_bytes())?;
            let mut holder: Vec<OsString> = vec![
                self.programs.agent.clone().into(),
                "holder".into(),
                "--dir".into(),
                self.holder_dir(&node).into(),
                "--boot-id".into(),
                boot.into(),
            ];
            if let Some(place) = self.cgroup(&node) {
                make_folder(&place)?;
                holder.extend(["--cgroup".into(), place.into()]);
            }
            self.plan(&format!("{node}-holder"), Role::Holder(node.clone()), holder);
            let ports = (PORTS_FROM + first, PORTS_FROM + first + PORTS_EACH - 1);
            first = (first + PORTS_EACH) % PORTS_IN_ALL;
            self.plan(&node, Role::Agent(node.clone()), self.agent_words(&node, &host, ports));
        }
        Ok(())
    }

    /// Removes what agents have put on memory elsewhere because the sandbox lies on a disk: nobody else would.
    pub fn forget_credentials(&self) {
        for node in &self.nodes {
            let link = self.dir.join("hosts").join(node).join("run/credentials");
            let Ok(place) = fs::read_link(&link) else { continue };
            if !place.starts_with("/dev/shm") {
                continue;
            }
            for folder in fs::read_dir(&place).into_iter().flatten().flatten() {
                // They are their users' to read only, also for whoever made them.
                fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).ok();
            }
            fs::remove_dir_all(&place).ok();
        }
    }

    /// The agent's whole command line; its settings file has only its name and the bus.
    fn agent_words(&self, node: &str, host: &Path, ports: (u32, u32)) -> Vec<OsString> {
        let settings = self.setup().join("nodes").join(node).join("agent.toml");
        vec![
            self.programs.agent.clone().into(),
            "--config".into(),
            settings.into(),
            "--name".into(),
            node.into(),
            "--root".into(),
            host.join("root").into(),
            "--state-dir".into(),
            host.join("state").into(),
            "--run-dir".into(),
            host.join("run").into(),
            "--ports".into(),
            format!("{}-{}", ports.0, ports.1).into(),
        ]
    }
}

/// What `ostler sim agents` calls its nodes by default.
pub const SIMULATED: &str = "sim";

fn simulated(count: u32) -> Result<BTreeMap<Name, u32>, Failure> {
    if count == 0 {
        return Ok(BTreeMap::new());
    }
    let prefix = SIMULATED.parse().map_err(|error| Failure::local("simulated nodes", error))?;
    Ok(BTreeMap::from([(prefix, count)]))
}

fn make_folder(folder: &Path) -> Result<(), Failure> {
    fs::create_dir_all(folder)
        .map_err(|error| Failure::local(&format!("cannot make {}", folder.display()), error))
}

fn servers(dir: &Path, args: &Dev) -> Result<Vec<Server>, Failure> {
    let count: u16 = args.servers.parse().map_err(|_| Failure::message("--servers takes 1 or 3"))?;
    let pairs: Vec<(u16, u16)> = match args.port {
        Some(first) => (0..count).map(|n| fixed_ports(first, n)).collect::<Result<_, _>>()?,
        None => {
            let free =
                free_ports(2 * usize::from(count)).map_err(|error| Failure::message(causes(&error)))?;
            free.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
        }
    };
    (1..)
        .zip(pairs)
        .map(|(n, (client_port, cluster_port))| {
            let name: Name = format!("nats-{n}").parse().map_err(|error| Failure::local("server", error))?;
            Ok(Server {
                store_dir: dir.join("store").join(name.as_str()),
                name,
                host: Ipv4Addr::LOCALHOST.to_string(),
                listen: Ipv4Addr::LOCALHOST.to_string(),
                client_port,
                cluster_port,
            })
        })
        .collect()
}

fn fixed_ports(first: u16, n: u16) -> Result<(u16, u16), Failure> {
    let client = first.checked_add(n);
    let pair = client.and_then(|client| client.checked_add(CLUSTER_OFFSET).map(|cluster| (client, cluster)));
    let (client, cluster) = pair
        .ok_or_else(|| Failure::message(format!("--port {first} leaves no room for the ports above it")))?;
    for port in [client, cluster] {
        if let Err(error) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return Err(Failure::message(format!(
                "port {port} cannot be used: {error}\nnext:  end what uses it (ss -ltnp 'sport = :{port}'), or choose \
                 another with --port, or leave --port out for free ones"
            )));
        }
    }
    Ok((client, cluster))
}
