//! The controllers: thin adapters between the loop and the cores.

use ostler_controller_core::fleet::Fleet;
use ostler_controller_core::plan::{Aside, Ids, Plan};
use ostler_controller_core::{configfile, deployment, garbage, node, process, scheduler, secret};
use ostler_schemas::{ControllerName, Key, NodeName, Uid};

use super::reconciler::{Controller, World};
use crate::vault::VaultRef;

/// Verdicts, evictions, return.
pub struct NodeController;

impl Controller for NodeController {
    type Key = NodeName;
    const NAME: ControllerName = ControllerName::Node;

    fn affected(&self, fleet: &Fleet, changed: &Key) -> Vec<NodeName> {
        node::affected(fleet, changed).into_iter().collect()
    }

    /// The brake weighs all silent nodes together: when one changes, what is held may be held no more.
    fn heard(&self, fleet: &Fleet, node: &NodeName) -> Vec<NodeName> {
        let held = fleet.node_states.iter().filter(|(_, s)| s.lost.as_ref().is_some_and(|v| v.held));
        held.map(|(name, _)| name.clone()).chain([node.clone()]).collect()
    }

    fn all(&self, fleet: &Fleet) -> Vec<NodeName> {
        node::all(fleet).into_iter().collect()
    }

    fn reconcile(&self, world: &World<'_>, key: &NodeName, _: &mut dyn Ids) -> Plan {
        node::reconcile(world.fleet, world.signals, key, world.now)
    }
}

/// Placement and run documents; one look covers the fleet.
pub struct Scheduler;

impl Controller for Scheduler {
    type Key = ();
    const NAME: ControllerName = ControllerName::Scheduler;

    fn affected(&self, _: &Fleet, changed: &Key) -> Vec<()> {
        if scheduler::is_affected(changed) { vec![()] } else { Vec::new() }
    }

    fn heard(&self, _: &Fleet, _: &NodeName) -> Vec<()> {
        vec![()]
    }

    fn all(&self, _: &Fleet) -> Vec<()> {
        vec![()]
    }

    fn reconcile(&self, world: &World<'_>, (): &(), _: &mut dyn Ids) -> Plan {
        scheduler::reconcile(world.fleet, world.signals, world.now)
    }
}

/// Processes applied by hand.
pub struct ProcessController;

impl Controller for ProcessController {
    type Key = Uid;
    const NAME: ControllerName = ControllerName::Process;

    fn affected(&self, fleet: &Fleet, changed: &Key) -> Vec<Uid> {
        process::affected(fleet, changed).into_iter().collect()
    }

    fn heard(&self, _: &Fleet, _: &NodeName) -> Vec<Uid> {
        Vec::new()
    }

    fn all(&self, fleet: &Fleet) -> Vec<Uid> {
        process::all(fleet).into_iter().collect()
    }

    fn reconcile(&self, world: &World<'_>, key: &Uid, ids: &mut dyn Ids) -> Plan {
        process::reconcile(world.fleet, key, world.now, ids)
    }
}

/// Deployments.
pub struct DeploymentController;

impl Controller for DeploymentController {
    type Key = Uid;
    const NAME: ControllerName = ControllerName::Deployment;

    fn affected(&self, fleet: &Fleet, changed: &Key) -> Vec<Uid> {
        deployment::affected(fleet, changed).into_iter().collect()
    }

    fn heard(&self, _: &Fleet, _: &NodeName) -> Vec<Uid> {
        Vec::new()
    }

    fn all(&self, fleet: &Fleet) -> Vec<Uid> {
        deployment::all(fleet).into_iter().collect()
    }

    fn reconcile(&self, world: &World<'_>, key: &Uid, ids: &mut dyn Ids) -> Plan {
        deployment::reconcile(world.fleet, key, world.now, ids)
    }
}

/// Managed files.
pub struct ConfigFileController;

impl Controller for ConfigFileController {
    type Key = configfile::Subject;
    const NAME: ControllerName = ControllerName::ConfigFile;

    fn affected(&self, fleet: &Fleet, changed: &Key) -> Vec<Self::Key> {
        configfile::affected(fleet, changed).into_iter().collect()
    }

    fn heard(&self, _: &Fleet, _: &NodeName) -> Vec<Self::Key> {
        Vec::new()
    }

    fn all(&self, fleet: &Fleet) -> Vec<Self::Key> {
        configfile::all(fleet).into_iter().collect()
    }

    fn reconcile(&self, world: &World<'_>, key: &Self::Key, ids: &mut dyn Ids) -> Plan {
        configfile::reconcile(world.fleet, key, world.now, ids)
    }
}

/// What of which Secrets each node is given.
pub struct SecretController(pub VaultRef);

impl Controller for SecretController {
    type Key = NodeName;
    const NAME: ControllerName = ControllerName::Secret;

    fn affected(&self, fleet: &Fleet, changed: &Key) -> Vec<NodeName> {
        secret::affected(fleet, changed)
    }

    fn heard(&self, _: &Fleet, _: &NodeName) -> Vec<NodeName> {
        Vec::new()
    }

    fn all(&self, fleet: &Fleet) -> Vec<NodeName> {
        secret::all(fleet)
    }

    fn reconcile(&self, world: &World<'_>, key: &NodeName, _: &mut dyn Ids) -> Plan {
        secret::reconcile(world.fleet, key, &*self.0)
    }
}

/// What nobody needs any more.
pub struct GarbageController;

impl Controller for GarbageController {
    type Key = ();
    const NAME: ControllerName = ControllerName::Garbage;

    fn affected(&self, fleet: &Fleet, changed: &Key) -> Vec<()> {
        if garbage::is_affected(fleet, changed) { vec![()] } else { Vec::new() }
    }

    fn heard(&self, _: &Fleet, _: &NodeName) -> Vec<()> {
        Vec::new()
    }

    fn all(&self, _: &Fleet) -> Vec<()> {
        vec![()]
    }

    fn reconcile(&self, world: &World<'_>, (): &(), _: &mut dyn Ids) -> Plan {
        let sweep = garbage::reconcile(world.fleet, world.now);
        Plan { aside: Aside { observed: sweep.observed, purges: sweep.purges }, ..sweep.plan }
    }
}
