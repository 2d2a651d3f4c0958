//! `setup`: writes what a bus needs on disk. The description is that of `dev` and of the tests.

use std::collections::BTreeSet;
use std::path::PathBuf;

use ostler_bus::entropy::SeededEntropy;
use ostler_bus::setup::{Options, Server, run as write};
use ostler_schemas::{Name, NodeName};

use crate::args::local::Setup;
use crate::connect::causes;
use crate::failure::Failure;
use crate::out::Out;
use crate::render::amounts::count;

/// Where clients connect.
const CLIENT_PORT: u16 = 4222;
/// Where servers connect to each other.
const CLUSTER_PORT: u16 = 6222;

/// What a first run sets up where the command line says nothing. A later one must not come back to it: it would turn
/// every node's settings to another server, and let somebody in whom nobody named.
const FIRST_SERVER: &str = "nats-1=127.0.0.1";
/// Likewise.
const FIRST_OPERATOR: &str = "admin";
/// What a run leaves behind for the next one.
const STATE: &str = "setup.json";

/// Runs it.
///
/// # Errors
/// When a name is none or files cannot be written.
pub fn run(args: &Setup, out: &mut Out) -> Result<(), Failure> {
    let is_first = !args.out.join(STATE).exists();
    let servers = words(&args.servers, FIRST_SERVER, is_first);
    let servers = servers.iter().map(|text| server(text)).collect::<Result<Vec<_>, _>>()?;
    // None: those of the run before.
    if !matches!(servers.len(), 0 | 1 | 3 | 5) {
        return Err(Failure::message(format!("a bus has 1, 3 or 5 servers, not {}", servers.len())));
    }
    let nodes: BTreeSet<NodeName> = names(&args.nodes, "--node")?;
    let operators: BTreeSet<Name> = names(&words(&args.operators, FIRST_OPERATOR, is_first), "--operator")?;
    let entropy = SeededEntropy::from_system().map_err(|error| Failure::local("cannot draw keys", error))?;
    let rotate_secret_key = args.rotate_secret_key;
    let simulated = args.simulated.iter().map(|text| simulated(text)).collect::<Result<_, _>>()?;
    let options = Options { servers, nodes, operators, simulated, rotate_secret_key };
    let files = write(&args.out, &options, &entropy)
        .map_err(|error| Failure::local(&format!("cannot set up {}", args.out.display()), causes(&error)))?;
    if rotate_secret_key {
        out.say("a fresh key seals secrets from now on: give controller/secrets.key to every controller, then restart them");
    }
    let secrets = files.values().filter(|file| file.secret).count() as u64;
    out.say(&format!(
        "{}: {}, {} of them secret (0600)",
        args.out.display(),
        count(files.len() as u64, "file", "files"),
        secrets
    ));
    for path in files.keys().filter(|path| path.ends_with("context.json") && path.starts_with("operators/")) {
        out.say(&format!("next:  ostler context add prod --file {}", args.out.join(path).display()));
    }
    Ok(())
}

/// What was said; if that is nothing, `first` on a first run.
fn words(said: &[String], first: &str, is_first: bool) -> Vec<String> {
    if said.is_empty() && is_first { vec![first.to_owned()] } else { said.to_vec() }
}

fn names<T>(words: &[String], flag: &str) -> Result<BTreeSet<T>, Failure>
where
    T: std::str::FromStr + Ord,
    T::Err: std::fmt::Display,
{
    words
        .iter()
        .map(|word| word.parse().map_err(|error: T::Err| Failure::message(format!("{flag}: {error}"))))
        .collect()
}

/// `PREFIX=COUNT`.
fn simulated(text: &str) -> Result<(Name, u32), Failure> {
    let bad = |why: String| Failure::message(format!("--simulated {text:?}: {why}; write PREFIX=COUNT"));
    let (prefix, count) = text.split_once('=').ok_or_else(|| bad("there is no =".to_owned()))?;
    let prefix = prefix.parse().map_err(|error| bad(format!("{error}")))?;
    Ok((prefix, count.parse().map_err(|_| bad(format!("{count:?} is no number")))?))
}

/// `NAME=HOST[:CLIENT_PORT[:CLUSTER_PORT]]`.
fn server(text: &str) -> Result<Server, Failure> {
    let bad = |why: &str| {
        Failure::message(format!("--server {text:?}: {why}; write NAME=HOST[:CLIENT_PORT[:CLUSTER_PORT]]"))
    };
    let (name, rest) = text.split_once('=').ok_or_else(|| bad("there is no ="))?;
    let name: Name = name.parse().map_err(|error| bad(&format!("{error}")))?;
    let mut parts = rest.split(':');
    let host = parts.next().filter(|host| !host.is_empty()).ok_or_else(|| bad("the host is missing"))?;
    let mut port = |default: u16| match parts.next() {
        None => Ok(default),
        Some(digits) => digits.parse().map_err(|_| bad(&format!("{digits:?} is no port"))),
    };
    let (client_port, cluster_port) = (port(CLIENT_PORT)?, port(CLUSTER_PORT)?);
    Ok(Server {
        store_dir: PathBuf::from("/var/lib/ostler/nats"),
        name,
        host: host.to_owned(),
        listen: "0.0.0.0".to_owned(),
        client_port,
        cluster_port,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setup(out: &std::path::Path, servers: &[&str], operators: &[&str]) {
        let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let (nodes, operators, servers) = (Vec::new(), owned(operators), owned(servers));
        let simulated = Vec::new();
        let args =
            Setup { out: out.to_owned(), nodes, operators, servers, simulated, rotate_secret_key: false };
        let (mut out, _, _) = Out::captured();
        run(&args, &mut out).expect("sets up");
    }

    #[test]
    fn a_later_run_comes_back_to_no_default() {
        let dir = tempfile::tempdir().expect("a folder");
        setup(dir.path(), &["s1=10.0.0.1"], &["anna"]);
        setup(dir.path(), &[], &[]);
        let settings = std::fs::read_to_string(dir.path().join("controller/controller.toml")).expect("reads");
        assert!(settings.contains("tls://10.0.0.1:4222"), "{settings}");
        assert!(!dir.path().join("operators/admin").exists());
    }

    #[test]
    fn servers_are_written_with_or_without_ports() {
        let plain = server("nats-1=10.0.0.1").expect("parses");
        assert_eq!((plain.host.as_str(), plain.client_port, plain.cluster_port), ("10.0.0.1", 4222, 6222));
        let full = server("nats-2=db.example.net:5222:7222").expect("parses");
        assert_eq!((full.client_port, full.cluster_port), (5222, 7222));
        assert!(server("10.0.0.1").is_err());
        assert!(server("nats-1=10.0.0.1:x").is_err());
    }

    #[test]
    fn simulated_nodes_have_a_prefix_and_a_number() {
        assert_eq!(simulated("sim=500").expect("parses"), ("sim".parse().expect("a name"), 500));
        for bad in ["sim", "sim=many", "SIM=1", "=1"] {
            assert!(simulated(bad).is_err(), "{bad}");
        }
    }
}
