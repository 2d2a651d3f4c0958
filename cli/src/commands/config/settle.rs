//! `config status --wait`: until every node that can be reached has the file as it should be.

use ostler_schemas::v1::api::ListRequest;
use ostler_schemas::v1::status::{FileNodeCounts, Status, View};
use ostler_schemas::{Kind, ObjectRef};

use crate::args::change::ConfigStatus;
use crate::connect::Session;
use crate::failure::Failure;
use crate::out::Out;
use crate::wait::{Verdict, until};

/// Waits; how it ended is for after the rows.
///
/// # Errors
/// Whatever keeps it from waiting.
pub(super) async fn settled(
    session: &Session,
    object: &ObjectRef,
    args: &ConfigStatus,
    out: &mut Out,
) -> Result<Result<(), Failure>, Failure> {
    let list = ListRequest {
        kind: Kind::ConfigFile,
        namespace: object.namespace.clone(),
        labels: Vec::new(),
        names: vec![object.name.to_string()],
    };
    let result = until(&session.client, list, args.timeout.to_std(), out, |seen, _| {
        Ok(seen.get(object).map_or_else(|| Verdict::Failed(format!("{} is gone", object.short())), verdict))
    })
    .await;
    match result {
        Ok(()) => Ok(Ok(())),
        Err(failure @ Failure::NotConverged(_)) => Ok(Err(failure)),
        Err(other) => Err(other),
    }
}

fn verdict(view: &View) -> Verdict {
    let status = match &view.status {
        Status::ConfigFile(status) => status,
        Status::Node(_)
        | Status::Namespace(_)
        | Status::Process(_)
        | Status::Deployment(_)
        | Status::Secret(_) => return Verdict::Failed("it is no configfile".to_owned()),
    };
    if status.observed_generation < view.metadata.generation.0 {
        return Verdict::NotYet("the last change was not looked at yet".to_owned());
    }
    match missing(&status.nodes) {
        None => Verdict::Reached,
        Some(missing) => Verdict::NotYet(missing),
    }
}

/// What is missing; nodes that are away are counted apart and take the version on their return.
fn missing(nodes: &FileNodeCounts) -> Option<String> {
    let here = nodes.total.saturating_sub(nodes.offline);
    (nodes.in_sync < here).then(|| {
        let words = [
            (nodes.failed, "failed"),
            (nodes.contested, "contested"),
            (nodes.drifted, "drifted"),
            (nodes.held, "held"),
            (nodes.applying, "applying"),
            (nodes.pending, "pending"),
        ];
        let others = words.iter().filter(|(number, _)| *number > 0);
        let others: Vec<String> = others.map(|(number, word)| format!("{number} {word}")).collect();
        format!("{} of {here} nodes in sync, {}", nodes.in_sync, others.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_are_away_are_not_waited_for_and_the_rest_is_named() {
        let mut nodes =
            FileNodeCounts { total: 80, in_sync: 77, offline: 2, contested: 1, ..FileNodeCounts::default() };
        assert_eq!(missing(&nodes).as_deref(), Some("77 of 78 nodes in sync, 1 contested"));
        nodes.in_sync = 78;
        assert_eq!(missing(&nodes), None);
    }
}
