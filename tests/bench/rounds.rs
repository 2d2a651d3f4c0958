//! One process after another: applied, seen running, deleted, seen gone.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use harness::fleet::{Fleet, PATIENCE};
use ostler_cli::client::{Client, Replies};
use ostler_schemas::codec;
use ostler_schemas::manifest::{encode_tree, read_documents};
use ostler_schemas::v1::api::{
    ApplyRequest, DeleteRequest, ListRequest, ManifestDocument, WatchChange, WatchMessage,
};
use ostler_schemas::v1::report::ProcessPhase;
use ostler_schemas::v1::status::Status;
use ostler_schemas::{Kind, Name, Namespace, ObjectRef};
use serde_bytes::ByteBuf;

fn apply_of(name: &str) -> anyhow::Result<ApplyRequest> {
    let text = format!(
        "apiVersion: ostler/v1\nkind: Process\nmetadata: {{name: {name}}}\nspec: {{command: [/bin/sleep, infinity], timeoutStopSec: 1s}}\n"
    );
    request(&text)
}

/// An apply of one manifest.
pub(crate) fn request(text: &str) -> anyhow::Result<ApplyRequest> {
    let documents = read_documents(None, text.as_bytes());
    let document = documents.first().context("a document")?;
    let document = ManifestDocument { file: None, tree: ByteBuf::from(encode_tree(document)), content: None };
    Ok(ApplyRequest {
        documents: vec![document],
        content: None,
        force: false,
        retry: false,
        dry_run: false,
        reason: None,
    })
}

/// Reads on until a process is seen so.
pub(crate) async fn until(
    watch: &mut Replies,
    name: &str,
    seen: impl Fn(WatchChange, ProcessPhase) -> bool,
) -> anyhow::Result<()> {
    let reading = async {
        while let Some(body) = watch.next().await? {
            let message: WatchMessage = codec::decode(&body)?;
            let (Some(change), Some(view)) = (message.change, message.view) else { continue };
            let Status::Process(status) = &view.status else { continue };
            if view.metadata.name.as_str() == name && seen(change, status.phase) {
                return Ok(());
            }
        }
        bail!("the watch ended")
    };
    tokio::time::timeout(PATIENCE, reading).await.with_context(|| format!("{name} was not seen in time"))?
}

/// How long it took from the request to the message that tells of it.
async fn running(client: &Client, watch: &mut Replies, name: &str) -> anyhow::Result<Duration> {
    let request = apply_of(name)?;
    let begin = Instant::now();
    client.apply(&request).await?;
    until(watch, name, |_, phase| phase == ProcessPhase::Running).await?;
    Ok(begin.elapsed())
}

async fn gone(client: &Client, watch: &mut Replies, name: &str) -> anyhow::Result<()> {
    let name_parsed: Name = name.parse()?;
    let namespace = Some(Namespace::default_namespace());
    let object = ObjectRef { kind: Kind::Process, namespace, name: name_parsed };
    client.delete(&DeleteRequest { object, force: false, reason: None }).await?;
    until(watch, name, |change, _| change == WatchChange::Deleted).await
}

/// The times of all rounds after the first `warm` ones.
pub(crate) async fn measure(fleet: &Fleet, warm: usize, rounds: usize) -> anyhow::Result<Vec<Duration>> {
    let (client, _bus) = fleet.operator().await;
    let list = ListRequest { kind: Kind::Process, namespace: None, labels: Vec::new(), names: Vec::new() };
    let mut watch = client.watch(list).await?;
    // It keeps the template in use all the time: what is measured has it cached, as a fleet at work does.
    for node in 1..=3 {
        running(&client, &mut watch, &format!("keep-{node}")).await?;
    }
    let mut times = Vec::with_capacity(rounds);
    for round in 0..warm + rounds {
        let name = format!("bench-{round}");
        let time = running(&client, &mut watch, &name).await?;
        if round >= warm {
            times.push(time);
        }
        gone(&client, &mut watch, &name).await?;
    }
    Ok(times)
}
