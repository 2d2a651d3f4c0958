//! What a start needs: user, words, folders, limits; then the start itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt as _;
use ostler_agent_core::artifacts::set_id;
use ostler_agent_core::confine::{self, Preparation};
use ostler_agent_core::environment::{Surroundings, words};
use ostler_agent_core::holder::lines::spec::spec;
use ostler_agent_core::holder::notify::Listen;
use ostler_agent_core::holder::protocol::{Isolation, Limits, ProcKey, Rlimit, RunAs};
use ostler_agent_core::secrets::{CredentialFolder, Opened};
use ostler_agent_core::unit::{Event, Start, StartFailure};
use ostler_agent_core::veto::Runner;
use ostler_schemas::spec::{Artifact, ProcessTemplate, ProcessType};
use ostler_schemas::v1::reason::Reason;
use ostler_schemas::{ObjectRef, Uid};
use ractor::ActorRef;

use super::{Asker, Msg, State, cast};
use crate::context::{Shared, Task};
use crate::ports::{HostSpawn, HostUser, SpawnError};

impl State {
    /// Has artifacts made ready, and tells the machine how far that is.
    pub(super) fn fetch(&mut self, me: &ActorRef<Msg>, artifacts: Vec<Artifact>) {
        let set = set_id(&artifacts);
        let (mut states, me) = (self.context.deps.artifacts.prepare(artifacts), me.clone());
        self.fetching = Some(Task::spawn(async move {
            while let Some(state) = states.next().await {
                cast(&me, Event::Artifacts { set, state });
            }
        }));
    }

    pub(super) fn start(&mut self, me: &ActorRef<Msg>, start: Start) {
        let (context, me) = (self.context.clone(), me.clone());
        let record = self.unit.record();
        let who = Who { uid: record.uid, object: self.object() };
        self.spawning = Some(Task::spawn(async move {
            let incarnation = start.incarnation;
            let prepared = match has_room(&context, who.uid) {
                Ok(()) => prepare(&context, &who, &start).await,
                Err(refused) => Err(refused),
            };
            let event = match prepared {
                Err((reason, why)) => Event::NotSpawned(incarnation, StartFailure::Failed(reason, why)),
                Ok(spawn) => match context.deps.host.spawn(spawn).await {
                    Ok(process) => Event::Spawned(process),
                    Err(SpawnError::Not(failure)) => Event::NotSpawned(incarnation, failure),
                    Err(SpawnError::Unknown(why)) => {
                        tracing::warn!(uid = %who.uid, why, "it is not known whether a start happened");
                        Event::SpawnUnknown(incarnation)
                    }
                },
            };
            cast(&me, event);
        }));
    }

    /// Has the template of what runs looked up, where the machine needs it and an agent before this one started it.
    pub(super) fn recall(&mut self, me: &ActorRef<Msg>) {
        let Some(hash) = self.unit.lacks().filter(|hash| self.recalled != Some(*hash)) else { return };
        self.recalled = Some(hash);
        let (context, me) = (self.context.clone(), me.clone());
        self.errand(async move {
            if let Some(template) = context.kept_template(hash).await {
                cast(&me, Event::Kept(hash, Arc::new(template)));
            }
        });
    }

    /// Tells how the incarnation that runs was started, with what was changed in place since.
    pub(super) fn describe(&mut self, asker: Asker) {
        let record = self.unit.record();
        let who = Who { uid: record.uid, object: self.object() };
        let start = match (&record.current, self.unit.started_as()) {
            (None, _) => Err("the process is not running".to_owned()),
            (Some(_), Some(start)) => Ok(start),
            (Some(_), None) => Err("the agent does not have the process's template at hand".to_owned()),
        };
        let context = self.context.clone();
        self.errand(async move {
            let described = match start {
                Ok(start) => prepare(&context, &who, &start).await.map_err(|(_, why)| why),
                Err(why) => Err(why),
            };
            // Who asked may have given up.
            drop(asker.send(described));
        });
    }
}

/// Which process, by all its names.
pub(crate) struct Who {
    pub(crate) uid: Uid,
    pub(crate) object: ObjectRef,
}

/// Everything that a start needs, or why it cannot be.
pub(crate) async fn prepare(
    context: &Shared,
    who: &Who,
    start: &Start,
) -> Result<HostSpawn, (Reason, String)> {
    let template = Arc::clone(&start.template);
    let user = context
        .deps
        .host
        .user(template.user.clone(), template.group.clone())
        .await
        .map_err(|why| (Reason::UserUnknown, why))?;
    permit(context, &template, &user)?;
    let failed = |why: String| (Reason::StartFailed, why);
    if template.private_tmp && is_temporary(&context.deps.config.root) {
        let why = "privateTmp would hide this host's sandbox, which lies below /tmp: make it elsewhere \
                   (ostler dev --dir)";
        return Err(failed(why.to_owned()));
    }
    let namespace = who.object.namespace.clone().ok_or_else(|| failed("it has no namespace".to_owned()))?;
    let facts = context.node_facts();
    let artifacts = match template.artifacts.as_slice() {
        [] => None,
        some => Some(context.deps.artifacts.folder(some)),
    };
    let secrets = context.open_secrets(&namespace, &template).map_err(|why| (Reason::NeedsNotMet, why))?;
    let credentials = credentials(context, who.uid, start, &secrets).map_err(failed)?;
    let words = words(&Surroundings {
        template: &template,
        uid: who.uid,
        namespace: &namespace,
        name: &who.object.name,
        version: start.version,
        token: start.token,
        ports: &start.ports,
        node: &context.node,
        facts: &facts,
        user: &user.facts,
        artifacts: artifacts.as_deref(),
        secrets: &secrets,
        credentials: credentials.as_ref().map(|folder| folder.path.as_str()),
    })
    .map_err(|error| failed(error.to_string()))?;
    let preparation = Preparation { credentials, ..Preparation::of(who.uid, &template) };
    for folder in &preparation.folders {
        let path = format!("{}/{}", folder.kind.base(), folder.name);
        if let Some(why) = context.deps.config.veto.folder(&path) {
            return Err(failed(format!("{path}: {why}")));
        }
    }
    let (limits, rlimits) = limits_of(context, &template).map_err(|why| (Reason::LimitRefused, why))?;
    let prepared = context.deps.host.prepare(preparation, user.clone()).await?;
    context
        .deps
        .config
        .veto
        .groups(&user.facts.name, &prepared.groups)
        .map_err(|why| (Reason::UserUnknown, why))?;
    let words = words.with_files(&prepared.variables);
    Ok(HostSpawn {
        key: ProcKey { uid: who.uid, incarnation: start.incarnation },
        namespace,
        name: who.object.name.clone(),
        argv: words.argv,
        env: words.env,
        cwd: template.working_directory.clone(),
        user: run_as(&user, &prepared.groups),
        umask: template.umask.bits(),
        rlimits,
        limits,
        oom_score_adjust: template.oom_score_adjust,
        allow_new_privileges: !template.no_new_privileges,
        isolation: Isolation {
            nice: template.nice,
            capabilities: confine::capabilities(&template, user.owner.uid, user.is_self),
            private_tmp: prepared.private_tmp,
            read_only_paths: prepared.read_only_paths,
        },
        log: spec(&template),
        listen: listen(&template),
        kill_mode: template.kill_mode,
        stop_signal: template.kill_signal,
        grace_ms: template.timeout_stop_sec.as_millis(),
    })
}

/// The folder of its credentials, if it asks for any.
fn credentials(
    context: &Shared,
    uid: Uid,
    start: &Start,
    secrets: &Opened,
) -> Result<Option<CredentialFolder>, String> {
    if start.template.credentials.is_empty() {
        return Ok(None);
    }
    let base = match &context.deps.config.credentials {
        Some(Ok(base)) => base,
        Some(Err(why)) => return Err(format!("credentials have no place here: {why}")),
        None => return Err("credentials have no place here".to_owned()),
    };
    let path = format!("{base}/{uid}.{}", start.incarnation);
    Ok(Some(CredentialFolder::of(path, &start.template.credentials, secrets)))
}

/// Whether this host lets a process be this user and have these rights.
fn permit(context: &Shared, template: &ProcessTemplate, user: &HostUser) -> Result<(), (Reason, String)> {
    let veto = &context.deps.config.veto;
    let HostUser { facts, owner, groups, is_self } = user;
    if !veto.enforced && owner.uid == 0 && !context.deps.config.allow_root {
        return Err((Reason::UserUnknown, "this host does not allow processes to run as root".to_owned()));
    }
    // Who stays whom the agent is gains no group by it.
    let groups = if *is_self { &[] } else { groups.as_slice() };
    let runner = Runner { name: &facts.name, uid: owner.uid, gid: owner.gid, groups };
    veto.user(runner).map_err(|why| (Reason::UserUnknown, why))?;
    if owner.uid == 0 {
        return Ok(());
    }
    veto.capabilities(&template.ambient_capabilities).map_err(|why| (Reason::StartFailed, why))
}

/// The limits of a process on this host.
///
/// # Errors
/// Which of them is more than the host gives.
pub(super) fn limits_of(
    context: &Shared,
    template: &ProcessTemplate,
) -> Result<(Limits, Vec<Rlimit>), String> {
    let veto = &context.deps.config.veto;
    let (mut limits, mut rlimits) = (confine::limits(template), confine::rlimits(template));
    veto.limits(&mut limits)?;
    veto.rlimits(&mut rlimits)?;
    Ok((limits, rlimits))
}

/// Whether one more process may live here.
fn has_room(context: &Shared, uid: Uid) -> Result<(), (Reason, String)> {
    let others = context.board().processes.iter().filter(|(u, view)| view.alive && **u != uid).count();
    context.deps.config.veto.processes(others + 1).map_err(|why| (Reason::LimitRefused, why))
}

/// Whether a folder lies where `privateTmp` puts another one.
fn is_temporary(folder: &str) -> bool {
    ["/tmp/", "/var/tmp/"].iter().any(|below| folder.starts_with(below))
}

/// The user to change to; none when the process runs as the agent does anyway, so that hosts without root can.
fn run_as(user: &HostUser, more: &[u32]) -> Option<RunAs> {
    let HostUser { owner, groups, is_self, .. } = user;
    let groups: BTreeSet<u32> = groups.iter().chain(more).copied().collect();
    let run_as = || RunAs { uid: owner.uid, gid: owner.gid, groups: groups.into_iter().collect() };
    (!is_self || !more.is_empty()).then(run_as)
}

/// Whether it has something to say, and what of it matters.
fn listen(template: &ProcessTemplate) -> Option<Listen> {
    let ready = template.kind == ProcessType::Notify;
    let watchdog_ms = template.watchdog_sec.map_or(0, |every| every.as_millis());
    (ready || watchdog_ms > 0).then_some(Listen { ready, watchdog_ms })
}
