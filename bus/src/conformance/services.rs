//! Core messages: subscriptions, queue groups, requests and services, also across imports.

use bytes::Bytes;
use futures::future;
use futures::stream::{BoxStream, StreamExt as _};
use ostler_schemas::headers as names;
use ostler_schemas::subject::{self, Verb};

use super::context::{Context, QUIET, message, node, stays_quiet};
use super::{OPERATOR, Verdict, ensure, ensure_eq, list_cases, must};
use crate::store::Headers;
use crate::topic::{Endpoint, Message, Outgoing, RequestError, ServiceSpec, TopicRef};

list_cases![
    messages_reach_subscribers,
    nobody_answers,
    nobody_streams,
    requests_across_an_import,
    callers_are_named_by_the_server,
    answers_are_streamed,
    shared_endpoints_share,
    other_endpoints_do_not,
    beats_are_heard_by_all_and_answered_once,
    services_are_discovered,
];

async fn messages_reach_subscribers(c: &Context) -> Verdict {
    let mut all = must("subscribe", c.rival.subscribe(subject::ALL_BEACONS, None).await)?;
    let sent =
        Outgoing::new("beacon.conform-1", "body").with_headers(Headers::new().with(names::KIND, "Beacon"));
    // Between servers of a cluster interest travels on its own: what is sent before it has arrived reaches nobody.
    let got = loop {
        must("publish", c.topic.publish(sent.clone()).await)?;
        tokio::select! {
            biased;
            got = message(&mut all) => break got?,
            () = c.clock.sleep_ms(100) => {}
        }
    };
    ensure_eq!(got.subject.as_str(), "beacon.conform-1", "subject");
    ensure_eq!(got.body, Bytes::from_static(b"body"), "body");
    ensure_eq!(got.headers.get(names::KIND), Some("Beacon"), "header");
    ensure_eq!((got.reply, got.status), (None, None), "reply and status");
    Ok(())
}

async fn nobody_answers(c: &Context) -> Verdict {
    for (topic, caller) in [(&c.operator, OPERATOR.to_owned()), (&c.agent, node(0)?.to_string())] {
        loop {
            match topic.request(Outgoing::new(format!("api.{caller}.get"), ""), 2_000).await {
                Err(RequestError::NoResponders { .. }) => break,
                // The interest of an earlier case is still being withdrawn.
                Err(RequestError::Timeout { .. }) => {}
                other => return Err(format!("{caller}: found {other:?}, expected no responders")),
            }
        }
    }
    match c.link.beat(Headers::new(), Bytes::new()).await {
        Err(RequestError::NoResponders { .. }) => Ok(()),
        other => Err(format!("a beat: found {other:?}, expected no responders")),
    }
}

async fn nobody_streams(c: &Context) -> Verdict {
    let request = Outgoing::new(format!("api.{OPERATOR}.get"), "");
    let mut answers = must("request", c.operator.request_many(request).await)?;
    ensure_eq!(message(&mut answers).await?.status, Some(503), "status");
    Ok(())
}

/// A service with one endpoint of the API.
fn api(c: &Context, verb: Verb) -> ServiceSpec {
    ServiceSpec {
        name: format!("conform-{}", c.uid().short()),
        version: "0.1.0".to_owned(),
        description: "conformance".to_owned(),
        endpoints: vec![Endpoint {
            name: verb.as_str().to_owned(),
            subject: verb.endpoint(),
            shared: verb.is_shared(),
        }],
    }
}

/// Serves, and waits until the operator's server knows of it: between servers of a cluster interest travels on its
/// own. An answer follows the interest of all endpoints, on the same way.
async fn serve(
    c: &Context,
    topic: &TopicRef,
    spec: ServiceSpec,
) -> Result<BoxStream<'static, Message>, String> {
    let ping = format!("$SRV.PING.{}", spec.name);
    let requests = must("serve", topic.serve(spec).await)?;
    loop {
        match c.operator.request(Outgoing::new(ping.clone(), ""), 10_000).await {
            Ok(_) => return Ok(requests),
            Err(RequestError::NoResponders { .. }) => c.clock.sleep_ms(20).await,
            Err(error) => return Err(format!("ping: {error:?}")),
        }
    }
}

async fn answer(topic: &TopicRef, request: &Message, headers: Headers, body: &str) -> Verdict {
    let reply = request.reply.clone().ok_or("the request has no reply subject")?;
    must("answer", topic.publish(Outgoing::new(reply, body.to_owned()).with_headers(headers)).await)
}

async fn requests_across_an_import(c: &Context) -> Verdict {
    let mut requests = serve(c, &c.topic, api(c, Verb::Get)).await?;
    let request = Outgoing::new(format!("api.{OPERATOR}.get"), "question")
        .with_headers(Headers::new().with(names::ACTOR, "user/someone"));
    let asked = c.operator.request(request, 10_000);
    let answered = async {
        let got = message(&mut requests).await?;
        ensure_eq!(got.subject, format!("api.{OPERATOR}.get"), "subject");
        ensure_eq!(got.body, Bytes::from_static(b"question"), "body");
        ensure_eq!(got.headers.get(names::ACTOR), Some("user/someone"), "header");
        answer(&c.topic, &got, Headers::new().with(names::END, "ok"), "answer").await
    };
    let (asked, answered) = futures::join!(asked, answered);
    answered?;
    let asked = must("request", asked)?;
    ensure_eq!(
        (asked.body, asked.headers.get(names::END)),
        (Bytes::from_static(b"answer"), Some("ok")),
        "answer"
    );
    Ok(())
}

/// The next message of a subject.
async fn message_on(stream: &mut BoxStream<'static, Message>, subject: &str) -> Result<Message, String> {
    loop {
        let got = message(stream).await?;
        if got.subject == subject {
            return Ok(got);
        }
    }
}

/// What the server says of a requester.
fn info(message: &Message) -> Result<serde_json::Value, String> {
    let header = message.headers.get(names::NATS_REQUEST_INFO).ok_or("the server does not say who asks")?;
    must("request info", serde_json::from_str(header))
}

async fn callers_are_named_by_the_server(c: &Context) -> Verdict {
    let mut requests = serve(c, &c.topic, api(c, Verb::Get)).await?;
    let node = node(0)?;
    for (topic, caller, account) in [(&c.operator, OPERATOR, "OP"), (&c.agent, node.as_str(), "AG")] {
        let forged = Headers::new().with(names::NATS_REQUEST_INFO, r#"{"acc":"CP","user":"root"}"#);
        let subject = format!("api.{caller}.get");
        let request = Outgoing::new(subject.clone(), "").with_headers(forged);
        let got = loop {
            let _answers = must("request", topic.request_many(request.clone()).await)?;
            tokio::select! {
                biased;
                got = message_on(&mut requests, &subject) => break got?,
                // The agent's server may not know of the service yet.
                () = c.clock.sleep_ms(100) => {}
            }
        };
        let info = info(&got)?;
        ensure_eq!(info["acc"], serde_json::json!(account), "account");
        let user = info["user"].as_str().unwrap_or_default();
        ensure!(!user.is_empty() && user != "root", "the requester's own claim passed: {user:?}");
    }
    Ok(())
}

async fn answers_are_streamed(c: &Context) -> Verdict {
    let mut requests = serve(c, &c.topic, api(c, Verb::List)).await?;
    let request = Outgoing::new(format!("api.{OPERATOR}.list"), "");
    let mut answers = must("request", c.operator.request_many(request).await)?;
    let got = message(&mut requests).await?;
    for i in 1..=50 {
        let mut headers = Headers::new().with(names::SEQ, i.to_string());
        if i == 50 {
            headers = headers.with(names::END, "ok");
        }
        answer(&c.topic, &got, headers, "part").await?;
    }
    for i in 1..=50 {
        let part = message(&mut answers).await?;
        ensure_eq!(part.headers.get(names::SEQ), Some(i.to_string().as_str()), "order");
        ensure_eq!(part.headers.get(names::END).is_some(), i == 50, "end");
    }
    Ok(())
}

/// How many requests each of two streams gets.
async fn split(
    c: &Context,
    verb: Verb,
    streams: (&mut BoxStream<'static, Message>, &mut BoxStream<'static, Message>),
) -> Result<(u32, u32), String> {
    let subject = format!("api.{OPERATOR}.{}", verb.as_str());
    for _ in 0..20 {
        must("publish", c.operator.publish(Outgoing::new(subject.clone(), "")).await)?;
    }
    let (mut first, mut second) = (0, 0);
    for (stream, count) in [(streams.0, &mut first), (streams.1, &mut second)] {
        while !stays_quiet(stream).await {
            *count += 1;
        }
    }
    // `stays_quiet` takes the message that it finds.
    Ok((first, second))
}

async fn shared_endpoints_share(c: &Context) -> Verdict {
    let mut mine = serve(c, &c.topic, api(c, Verb::Get)).await?;
    let mut theirs = serve(c, &c.rival, api(c, Verb::Get)).await?;
    let (a, b) = split(c, Verb::Get, (&mut mine, &mut theirs)).await?;
    ensure_eq!(a + b, 20, "requests received by both together");
    Ok(())
}

async fn other_endpoints_do_not(c: &Context) -> Verdict {
    let mut mine = serve(c, &c.topic, api(c, Verb::Asks)).await?;
    let mut theirs = serve(c, &c.rival, api(c, Verb::Asks)).await?;
    let counts = split(c, Verb::Asks, (&mut mine, &mut theirs)).await?;
    ensure_eq!(counts, (20, 20), "requests received by each");
    Ok(())
}

/// Sends beats until two subscribers heard one: then the interest of all has arrived where the agent is, that of
/// earlier subscriptions of their connections too.
async fn until_beats_are_heard(
    c: &Context,
    heard: &mut BoxStream<'static, Message>,
    too: &mut BoxStream<'static, Message>,
) -> Verdict {
    let beat = Outgoing::new(format!("beat.{}", node(0)?), "early");
    let both = async { futures::try_join!(message(heard), message(too)) };
    let mut both = std::pin::pin!(both);
    loop {
        must("publish", c.agent.publish(beat.clone()).await)?;
        tokio::select! {
            biased;
            both = &mut both => return both.map(drop),
            () = c.clock.sleep_ms(100) => {}
        }
    }
}

async fn beats_are_heard_by_all_and_answered_once(c: &Context) -> Verdict {
    let mut q1 = must("subscribe", c.topic.subscribe(subject::ALL_BEATS, Some(subject::API_GROUP)).await)?;
    let mut q2 = must("subscribe", c.rival.subscribe(subject::ALL_BEATS, Some(subject::API_GROUP)).await)?;
    let mut heard = must("subscribe", c.topic.subscribe(subject::ALL_BEATS, None).await)?;
    let mut too = must("subscribe", c.rival.subscribe(subject::ALL_BEATS, None).await)?;
    until_beats_are_heard(c, &mut heard, &mut too).await?;
    let mut group = futures::stream::select(&mut q1, &mut q2).filter(|m| future::ready(&m.body[..] == b"b"));
    let answered = async {
        let request = group.next().await.ok_or("the subscription ended")?;
        answer(&c.topic, &request, Headers::new(), "first").await?;
        answer(&c.topic, &request, Headers::new(), "second").await
    };
    let (beat, answered) = futures::join!(c.link.beat(Headers::new(), Bytes::from_static(b"b")), answered);
    answered?;
    ensure_eq!(must("beat", beat)?, Bytes::from_static(b"first"), "answer");
    let subject = format!("beat.{}", node(0)?);
    for stream in [&mut heard, &mut too] {
        let got = loop {
            let got = message(stream).await?;
            if &got.body[..] != b"early" {
                break got;
            }
        };
        ensure_eq!((got.subject, got.body), (subject.clone(), Bytes::from_static(b"b")), "what is heard");
    }
    ensure!(tokio::time::timeout(QUIET, group.next()).await.is_err(), "the group got it twice");
    Ok(())
}

async fn services_are_discovered(c: &Context) -> Verdict {
    let spec = api(c, Verb::Get);
    let name = spec.name.clone();
    let _requests = serve(c, &c.topic, spec).await?;
    for (verb, kind) in [("PING", "ping_response"), ("INFO", "info_response"), ("STATS", "stats_response")] {
        let request = Outgoing::new(format!("$SRV.{verb}.{name}"), "");
        let got = must("request", c.operator.request(request, 10_000).await)?;
        let json: serde_json::Value = must("answer", serde_json::from_slice(&got.body))?;
        ensure_eq!(json["name"], serde_json::json!(name), "name");
        ensure_eq!(json["type"], serde_json::json!(format!("io.nats.micro.v1.{kind}")), "type");
    }
    Ok(())
}
