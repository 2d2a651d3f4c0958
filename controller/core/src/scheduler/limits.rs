//! Limits that a host cannot, or will not, give to a process: known before it is placed there, so that the start is not
//! refused (`LimitRefused`).
//!
//! Defaults are wishes and rule no host out: a host that gives less gives what it has.

use std::collections::BTreeMap;

use ostler_schemas::NodeName;
use ostler_schemas::quantity::{Cpu, Rlimit, Size};
use ostler_schemas::spec::ProcessTemplate;

/// A limit as it is asked for: its name in reports, its field, and how much.
struct Asked {
    name: &'static str,
    field: &'static str,
    most: u64,
}

/// Everything of a template that somebody has asked for.
fn asked(template: &ProcessTemplate) -> Vec<Asked> {
    let nofile = Some(template.limit_nofile).filter(|limit| *limit != Rlimit::NOFILE);
    let hard = |limit: Option<Rlimit>| limit.map(Rlimit::hard);
    let limits = &template.resources.limits;
    let all = [
        ("nofile", "limitNOFILE", hard(nofile)),
        ("nproc", "limitNPROC", hard(template.limit_nproc)),
        ("core", "limitCORE", hard(template.limit_core)),
        ("memlock", "limitMEMLOCK", hard(template.limit_memlock)),
        ("stack", "limitSTACK", hard(template.limit_stack)),
        ("fsize", "limitFSIZE", hard(template.limit_fsize)),
        ("as", "limitAS", hard(template.limit_as)),
        ("cpu", "resources.limits.cpu", limits.cpu.map(Cpu::as_millis)),
        ("memory", "resources.limits.memory", limits.memory.map(Size::as_bytes)),
    ];
    all.into_iter().filter_map(|(name, field, most)| Some(Asked { name, field, most: most? })).collect()
}

/// The first limit that a template asks for and a node with these bounds does not give: by how much, and in words.
pub(super) fn beyond(
    node: &NodeName,
    bounds: &BTreeMap<String, u64>,
    template: &ProcessTemplate,
) -> Option<(u64, String)> {
    let over = |asked: Asked| {
        let bound = *bounds.get(asked.name)?;
        (asked.most > bound).then_some((asked, bound))
    };
    let (asked, bound) = asked(template).into_iter().find_map(over)?;
    let show = |amount: u64| match asked.name {
        "cpu" => Cpu::from_millis(amount).to_string(),
        "memory" => Size::from_bytes(amount).to_string(),
        _ if amount == u64::MAX => "infinity".to_owned(),
        _ => amount.to_string(),
    };
    let detail = format!("{} {}; {node} gives {} at most", asked.field, show(asked.most), show(bound));
    Some((asked.most - bound, detail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_rules_a_host_out_and_defaults_do_not() {
        let node: NodeName = "web-001".parse().expect("a name");
        let bounds = BTreeMap::from([("nofile".to_owned(), 4096), ("cpu".to_owned(), 2000)]);
        let plain = ProcessTemplate::of(vec!["/bin/x".to_owned()]);
        assert_eq!(beyond(&node, &bounds, &plain), None, "the usual limit of open files is a wish");
        let files =
            ProcessTemplate { limit_nofile: Rlimit::new(1024, 65_536).expect("a limit"), ..plain.clone() };
        let found = beyond(&node, &bounds, &files);
        assert_eq!(found, Some((61_440, "limitNOFILE 65536; web-001 gives 4096 at most".to_owned())));
        assert_eq!(beyond(&node, &BTreeMap::new(), &files), None, "a host that tells nothing is tried");
        let mut busy = plain;
        busy.resources.limits.cpu = Some(Cpu::from_millis(2500));
        let found = beyond(&node, &bounds, &busy);
        assert_eq!(found, Some((500, "resources.limits.cpu 2500m; web-001 gives 2 at most".to_owned())));
        busy.resources.limits.cpu = Some(Cpu::from_millis(2000));
        assert_eq!(beyond(&node, &bounds, &busy), None);
    }
}
