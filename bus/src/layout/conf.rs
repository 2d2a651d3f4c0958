//! Accounts, users and crossings in the server's configuration language.

use super::{Account, CROSSINGS, Flow, Identity, permissions};
use std::collections::BTreeMap;

/// Adds one line to a text.
macro_rules! line {
    ($out:ident, $($format:tt)+) => {{
        $out.push_str(&format!($($format)+));
        $out.push('\n');
    }};
}
pub(crate) use line;

/// A user of an account: who it is, and the public half of its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountUser {
    /// Who.
    pub identity: Identity,
    /// Public NKey (`U…`).
    pub nkey: String,
}

fn quoted(subjects: &[String]) -> String {
    let all: Vec<String> = subjects.iter().map(|s| format!("\"{s}\"")).collect();
    all.join(", ")
}

fn user(out: &mut String, user: &AccountUser) {
    let lists = permissions(&user.identity);
    line!(out, "      # {}", user.identity.caller());
    line!(out, "      {{ nkey: {}, permissions: {{", user.nkey);
    let deny = match lists.publish_deny.as_slice() {
        [] => String::new(),
        denied => format!(", deny: [{}]", quoted(denied)),
    };
    line!(out, "        publish: {{ allow: [{}]{deny} }}", quoted(&lists.publish_allow));
    line!(out, "        subscribe: {{ allow: [{}] }} }} }}", quoted(&lists.subscribe_allow));
}

/// What CP exports, once per subject, with the accounts that may import it.
fn exports(out: &mut String) {
    let mut by_subject: BTreeMap<&str, (Flow, Vec<&str>)> = BTreeMap::new();
    for crossing in &CROSSINGS {
        by_subject
            .entry(crossing.subject)
            .or_insert((crossing.flow, Vec::new()))
            .1
            .push(crossing.to.as_str());
    }
    out.push_str("    exports: [\n");
    for (subject, (flow, accounts)) in by_subject {
        let accounts = accounts.join(", ");
        let line = match flow {
            Flow::Service { threshold_ms, streamed, .. } => {
                let response = if streamed { "stream" } else { "singleton" };
                format!(
                    "{{ service: \"{subject}\", accounts: [{accounts}], response: {response}, threshold: \"{threshold_ms}ms\" }}"
                )
            }
            Flow::Stream => format!("{{ stream: \"{subject}\", accounts: [{accounts}] }}"),
        };
        line!(out, "      {line}");
    }
    out.push_str("    ]\n");
}

fn imports(out: &mut String, account: Account) {
    out.push_str("    imports: [\n");
    for crossing in CROSSINGS.iter().filter(|c| c.to == account) {
        let source = format!("{{ account: CP, subject: \"{}\" }}", crossing.subject);
        let to = crossing.local.map_or(String::new(), |local| format!(", to: \"{local}\""));
        let line = match crossing.flow {
            Flow::Service { share: true, .. } => format!("{{ service: {source}{to}, share: true }}"),
            Flow::Service { share: false, .. } => format!("{{ service: {source}{to} }}"),
            Flow::Stream => format!("{{ stream: {source}{to} }}"),
        };
        line!(out, "      {line}");
    }
    out.push_str("    ]\n");
}

/// The `accounts { … }` block of a server's configuration, `system_account` included.
#[must_use]
pub fn accounts_block(users: &[AccountUser]) -> String {
    let mut out = String::from("accounts {\n");
    for account in Account::ALL {
        line!(out, "  {}: {{", account.as_str());
        match account {
            Account::Cp => {
                out.push_str("    jetstream: enabled\n");
                exports(&mut out);
            }
            Account::Ag | Account::Op | Account::View => imports(&mut out, account),
            Account::Sys => {}
        }
        out.push_str("    users: [\n");
        for one in users.iter().filter(|u| u.identity.account() == account) {
            user(&mut out, one);
        }
        out.push_str("    ]\n  }\n");
    }
    line!(out, "}}\nsystem_account: {}", Account::Sys.as_str());
    out
}
