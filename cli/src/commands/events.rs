//! `events`: what happened, added up; with `-f` also what happens next.

use ostler_schemas::time::Timestamp;
use ostler_schemas::v1::api::{EventRecord, EventsRequest};

use super::get;
use crate::args::look::Events;
use crate::args::target;
use crate::client::decode;
use crate::connect::Session;
use crate::failure::Failure;
use crate::out::Out;
use crate::render::amounts::Moments;
use crate::render::events::{Told, add_up, json, table};
use crate::render::form::{self, Form};

/// Runs it. Without an object and a namespace of its own it shows everything: the story of the fleet.
///
/// # Errors
/// Whatever keeps it from ending well.
pub async fn run(
    session: &Session,
    args: &Events,
    own_namespace: bool,
    out: &mut Out,
) -> Result<(), Failure> {
    let form = Form::parse(args.output.output.as_deref())?;
    let request = request(session, args, own_namespace).await?;
    let mut shown = Shown {
        moments: Moments::now(args.output.timestamps),
        wide: form == Form::Wide,
        form,
        namespaces: args.all_namespaces,
        with_headers: !args.output.no_headers,
        widths: Vec::new(),
        last: 0,
    };
    let mut request = request;
    loop {
        match shown.follow(session, &request, out).await {
            Err(Failure::Unreachable(silence)) if args.follow && shown.is_following() => {
                // The stream keeps what happens meanwhile; what was shown already is passed over.
                out.warn(&format!("{}; trying again", silence.what));
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
                request.since = Some(Timestamp(shown.moments.now.0.saturating_sub(60_000)));
            }
            other => return other,
        }
    }
}

async fn request(session: &Session, args: &Events, own_namespace: bool) -> Result<EventsRequest, Failure> {
    let object = if args.object.is_empty() {
        None
    } else {
        let (kind, name) = target::one(&args.object, None)?;
        // Objects that are gone have events too, so a name that is none now is no error.
        match target::object_ref(kind, &name, &session.namespace) {
            Ok(object) if !looks_like_uid(&name) => Some(object),
            Ok(_) | Err(_) => Some(get::resolve(session, kind, &name).await?),
        }
    };
    let node = args.node.as_deref().map(str::parse).transpose();
    let node = node.map_err(|error| Failure::message(format!("--node: {error}")))?;
    let now = Moments::now(false).now;
    let since = args.since.map(|since| Timestamp(now.0.saturating_sub(since.as_millis())));
    let namespace = (own_namespace && !args.all_namespaces).then(|| session.namespace.clone());
    Ok(EventsRequest { object, namespace, node, follow: args.follow, since })
}

fn looks_like_uid(name: &str) -> bool {
    matches!(name.len(), 8 | 32) && name.bytes().all(|b| b.is_ascii_hexdigit())
}

struct Shown {
    moments: Moments,
    form: Form,
    wide: bool,
    namespaces: bool,
    with_headers: bool,
    /// Widths of the table's columns, once it has been begun.
    widths: Vec<usize>,
    /// Sequence of the last event shown.
    last: u64,
}

impl Shown {
    fn is_following(&self) -> bool {
        self.last > 0 || !self.widths.is_empty()
    }

    async fn follow(
        &mut self,
        session: &Session,
        request: &EventsRequest,
        out: &mut Out,
    ) -> Result<(), Failure> {
        let mut replies = session.client.events(request).await?;
        let mut stored = if self.is_following() { None } else { Some(Vec::new()) };
        let mut back_to = None;
        while let Some(body) = replies.next().await? {
            let record: EventRecord = decode(&body)?;
            back_to = record.reaches_back_to.or(back_to);
            match record.event {
                Some(event) if record.sequence > self.last => match &mut stored {
                    Some(events) => events.push((event, record.sequence)),
                    None => self.one(&Told::one(event, record.sequence), out)?,
                },
                Some(_) => {}
                None if request.follow => self.all(stored.take(), out)?,
                None => {}
            }
        }
        self.all(stored.take(), out)?;
        if let (Some(moment), false) = (back_to, request.follow) {
            out.say(&format!("History reaches back to {}.", self.moments.time(moment)));
        }
        Ok(())
    }

    fn all(
        &mut self,
        stored: Option<Vec<(ostler_schemas::v1::event::Event, u64)>>,
        out: &mut Out,
    ) -> Result<(), Failure> {
        let Some(stored) = stored else { return Ok(()) };
        self.last = stored.iter().map(|(_, sequence)| *sequence).max().unwrap_or(0).max(self.last);
        let told = add_up(stored);
        match &self.form {
            Form::Table | Form::Wide => {
                let table = table(&told, self.wide, self.namespaces, &self.moments);
                self.widths = table.widths(self.with_headers);
                if told.is_empty() {
                    out.say("no events");
                    return Ok(());
                }
                let colour = out.colour;
                out.data(&table.text(self.with_headers, colour))
            }
            Form::Name => {
                let names: String = told.iter().map(|t| format!("{}\n", t.event.object.short())).collect();
                out.data(&names)
            }
            Form::Json | Form::Yaml | Form::JsonPath(_) => {
                let items = told.iter().map(json).collect();
                out.data(&self.form.write(&form::list(items, true))?)
            }
        }
    }

    fn one(&mut self, told: &Told, out: &mut Out) -> Result<(), Failure> {
        self.last = self.last.max(told.sequence);
        self.moments = Moments::now(self.moments.timestamps);
        match &self.form {
            Form::Table | Form::Wide => {
                let table = table(std::slice::from_ref(told), self.wide, self.namespaces, &self.moments);
                for (width, needed) in self.widths.iter_mut().zip(table.widths(false)) {
                    *width = (*width).max(needed);
                }
                let row = table.rows_text(&self.widths, out.colour);
                out.data(&row)
            }
            Form::Name => out.line(&told.event.object.short()),
            Form::Yaml | Form::JsonPath(_) => {
                let text = self.form.write(&json(told))?;
                let mark = if self.form == Form::Yaml { "---\n" } else { "" };
                out.data(&format!("{mark}{text}"))
            }
            Form::Json => out.line(&json(told).to_string()),
        }
    }
}
