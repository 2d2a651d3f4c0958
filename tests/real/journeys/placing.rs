//! Where work goes: cordoned nodes take none, taints send it away, labels draw it.

use harness::fleet::{Fleet, Size, until};

use crate::work::deployment;

fn nodes_of(fleet: &Fleet, owner: &str, count: usize) -> Vec<String> {
    fleet.until_running(owner, count).into_values().map(|process| process.node).collect()
}

#[test]
fn cordon_taint_and_label_decide_where_work_goes() {
    let fleet = Fleet::start(Size::default());
    let said = fleet.ok(&["cordon", "node-1", "node-2", "--reason", "disk swap"]);
    assert!(said.contains("node/node-1") && said.contains("node/node-2"), "{said}");
    assert!(fleet.ok(&["get", "nodes"]).contains("Ready,Cordoned"));
    fleet.converges(&deployment("cordoned", 3));
    assert!(nodes_of(&fleet, "cordoned", 3).iter().all(|node| node == "node-3"), "only one takes new work");
    fleet.ok(&["uncordon", "node-1", "node-2"]);
    fleet.converges(&deployment("spread", 4));
    assert!(nodes_of(&fleet, "spread", 4).iter().any(|node| node != "node-3"));

    fleet.ok(&["taint", "node", "node-3", "maintenance=disk:NoExecute", "--reason", "disk swap"]);
    until("all that does not tolerate it is elsewhere", || {
        let now = fleet.running("");
        (now.len() == 7 && now.values().all(|process| process.node != "node-3")).then_some(())
    });
    fleet.until_event("Evicted", "process/cordoned");
    fleet.ok(&["taint", "node", "node-3", "maintenance-"]);

    fleet.ok(&["label", "node", "node-3", "rack=r7"]);
    let wants = "      nodeSelector: {rack: r7}\n      command:";
    fleet.converges(&deployment("racked", 2).replace("      command:", wants));
    assert!(nodes_of(&fleet, "racked", 2).iter().all(|node| node == "node-3"));

    let nowhere = "      nodeSelector: {rack: r8}\n      command:";
    let apply = ["apply", "-f", "-", "--wait", "--timeout", "2s"];
    let done = fleet.run_with(&apply, &deployment("nowhere", 1).replace("      command:", nowhere));
    assert_eq!(done.code, 2, "accepted, not converged: {done:?}");
    let pending = fleet.get(&["processes", "--field-selector", "status.phase=Pending"]);
    assert_eq!(pending[0]["status"]["reason"], "Unschedulable", "{pending:?}");
    assert!(pending[0]["status"]["message"].as_str().is_some_and(|m| m.contains("rack")), "{pending:?}");
}
