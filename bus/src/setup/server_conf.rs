//! One server's configuration file.

use super::{Server, address};
use crate::layout::{AccountUser, Sizes, accounts_block, line};

/// The largest message: a body of 1 MiB, which is the largest envelope, with its headers.
const MAX_PAYLOAD: usize = (1 << 20) + (64 << 10);

/// A string of the configuration language.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

fn tls(out: &mut String, server: &Server, indent: &str, verify: bool) {
    let name = &server.name;
    line!(out, "{indent}tls {{");
    line!(out, "{indent}  cert_file: {}", quoted(&format!("tls/{name}.pem")));
    line!(out, "{indent}  key_file: {}", quoted(&format!("tls/{name}-key.pem")));
    line!(out, "{indent}  ca_file: \"tls/ca.pem\"");
    line!(out, "{indent}  timeout: 5");
    if verify {
        line!(out, "{indent}  verify: true");
    }
    line!(out, "{indent}}}");
}

/// The whole file. Certificates are named relative to the working directory, which is the file's folder.
pub(super) fn render(server: &Server, all: &[Server], users: &[AccountUser]) -> String {
    let sizes = Sizes::default();
    let mut out = String::from(
        "# Written by `ostler setup`, and again each time it runs.\n\
         # Start nats-server in this file's folder: the certificates' paths are relative to it.\n",
    );
    line!(out, "server_name: {}", server.name);
    line!(out, "listen: {}", quoted(&address(&server.listen, server.client_port)));
    line!(out, "max_payload: {MAX_PAYLOAD}");
    // A half-open link is noticed within half a minute.
    out.push_str("ping_interval: \"10s\"\nping_max: 2\n");
    tls(&mut out, server, "", false);
    out.push_str("jetstream {\n");
    line!(out, "  store_dir: {}", quoted(&server.store_dir.to_string_lossy()));
    line!(out, "  max_memory_store: {}", sizes.server_memory());
    line!(out, "  max_file_store: {}", sizes.server_file());
    out.push_str(
        "  # Acknowledged means on disk. The default would acknowledge up to two minutes before that.\n",
    );
    out.push_str("  sync_interval: always\n}\n");
    if all.len() > 1 {
        line!(out, "cluster {{\n  name: ostler");
        line!(out, "  listen: {}", quoted(&address(&server.listen, server.cluster_port)));
        out.push_str("  # Clients know every server from their settings.\n  no_advertise: true\n");
        let routes: Vec<String> = all
            .iter()
            .filter(|s| s.name != server.name)
            .map(|s| quoted(&format!("tls://{}", address(&s.host, s.cluster_port))))
            .collect();
        line!(out, "  routes: [{}]", routes.join(", "));
        tls(&mut out, server, "  ", true);
        out.push_str("}\n");
    }
    out.push_str(&accounts_block(users));
    out
}
