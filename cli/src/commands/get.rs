//! `get`: lists and single objects, in every form, once or as they change.

use ostler_schemas::v1::api::{GetRequest, ListRequest, WatchChange, WatchMessage};
use ostler_schemas::v1::status::View;
use ostler_schemas::{Kind, Namespace, ObjectRef};
use serde_json::{Value, json};

use crate::args::look::{Get, Selection};
use crate::args::target::{self, Resource, Target};
use crate::client::{Client, decode};
use crate::connect::Session;
use crate::failure::Failure;
use crate::near::nearest;
use crate::out::Out;
use crate::render::amounts::Moments;
use crate::render::columns::{self, Style};
use crate::render::form::{self, Form};
use crate::render::jsonpath::{Template, shown};
use crate::render::object;

/// Runs it.
///
/// # Errors
/// Whatever keeps it from ending well.
pub async fn run(session: &Session, args: &Get, out: &mut Out) -> Result<(), Failure> {
    let form = Form::parse(args.output.output.as_deref())?;
    if let [word] = args.what.as_slice()
        && matches!(target::resource(word), Ok(Resource::Events))
    {
        let events = crate::args::look::Events {
            object: Vec::new(),
            follow: args.watch,
            node: None,
            since: None,
            all_namespaces: args.selection.all_namespaces,
            output: args.output.clone(),
        };
        return super::events::run(session, &events, false, out).await;
    }
    let show = Show {
        form,
        with_headers: !args.output.no_headers,
        fields: field_selector(args.selection.field_selector.as_deref())?,
        sort_by: args.sort_by.as_deref().map(Template::path).transpose()?,
        timestamps: args.output.timestamps,
        namespaces: args.selection.all_namespaces,
        namespace: session.namespace.clone(),
    };
    let targets = match args.what.as_slice() {
        [word] if word == "all" => target::everything(),
        words => target::targets(words, None)?,
    };
    if args.watch {
        return watch(session, args, &targets, &show, out).await;
    }
    once(session, args, &targets, &show, out).await
}

/// How what is found is shown.
struct Show {
    form: Form,
    with_headers: bool,
    fields: Vec<FieldTest>,
    sort_by: Option<Template>,
    timestamps: bool,
    namespaces: bool,
    namespace: Namespace,
}

impl Show {
    fn style(&self, kinds: bool) -> Style {
        Style {
            wide: self.form == Form::Wide,
            namespaces: self.namespaces,
            kinds,
            moments: Moments::now(self.timestamps),
        }
    }

    fn keeps(&self, view: &View) -> bool {
        self.fields.is_empty() || {
            let value = object::view(view, &object::Contents::new());
            self.fields.iter().all(|test| test.holds(&value))
        }
    }

    fn sorted(&self, mut views: Vec<View>) -> Vec<View> {
        if let Some(path) = &self.sort_by {
            views.sort_by_cached_key(|view| sort_key(path, &object::view(view, &object::Contents::new())));
        }
        views
    }
}

/// Numbers by size, texts by letter, what is not there first.
fn sort_key(path: &Template, value: &Value) -> (u8, i64, String) {
    match path.values(value).first() {
        None => (0, 0, String::new()),
        Some(Value::Number(number)) => {
            let whole = number.as_i64().or_else(|| number.as_u64().and_then(|n| i64::try_from(n).ok()));
            (1, whole.unwrap_or_default(), number.to_string())
        }
        Some(other) => (2, 0, shown(other)),
    }
}

/// The list that a selection asks for.
///
/// # Errors
/// When the selector is none.
pub fn request(
    kind: Kind,
    names: Vec<String>,
    selection: &Selection,
    namespace: &Namespace,
) -> Result<ListRequest, Failure> {
    let labels = selection.selector.as_deref().map(target::selector).transpose()?.unwrap_or_default();
    let namespace = (!selection.all_namespaces && !kind.is_cluster_wide()).then(|| namespace.clone());
    Ok(ListRequest { kind, namespace, labels, names })
}

/// Forms that show what a process takes: its host is asked for that now.
fn tells_usage(form: &Form) -> bool {
    match form {
        Form::Wide | Form::Json | Form::Yaml | Form::JsonPath(_) => true,
        Form::Table | Form::Name => false,
    }
}

async fn once(
    session: &Session,
    args: &Get,
    targets: &[Target],
    show: &Show,
    out: &mut Out,
) -> Result<(), Failure> {
    let mut groups: Vec<(Kind, Vec<View>)> = Vec::new();
    let mut missing = Vec::new();
    let is_list = targets.iter().any(|t| t.name.is_none());
    for target in targets {
        let views = match &target.name {
            None => {
                let list = request(target.kind, Vec::new(), &args.selection, &session.namespace)?;
                let mut page = session.client.list(&list).await?;
                out.warnings(&page.warnings);
                if target.kind == Kind::Process && tells_usage(&show.form) {
                    let silent = super::top::fill(session, list, Vec::new(), &mut page.items).await?;
                    super::top::unanswered(&silent, out);
                }
                page.items
            }
            Some(name) => match one(&session.client, target.kind, name, &session.namespace).await {
                Ok(mut view) => {
                    if target.kind == Kind::Process && tells_usage(&show.form) {
                        let silent = super::top::fill_one(session, &mut view).await?;
                        super::top::unanswered(&silent, out);
                    }
                    vec![view]
                }
                Err(failure) if failure.is_not_found() && targets.len() > 1 => {
                    missing.push(failure);
                    Vec::new()
                }
                Err(failure) => return Err(failure),
            },
        };
        let views: Vec<View> = views.into_iter().filter(|view| show.keeps(view)).collect();
        match groups.iter_mut().find(|(kind, _)| *kind == target.kind) {
            Some((_, all)) => all.extend(views),
            None => groups.push((target.kind, views)),
        }
    }
    let groups: Vec<(Kind, Vec<View>)> =
        groups.into_iter().map(|(kind, views)| (kind, show.sorted(views))).collect();
    print(session, &groups, is_list, show, out).await?;
    match missing.into_iter().next() {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

async fn print(
    session: &Session,
    groups: &[(Kind, Vec<View>)],
    is_list: bool,
    show: &Show,
    out: &mut Out,
) -> Result<(), Failure> {
    match &show.form {
        Form::Json | Form::Yaml | Form::JsonPath(_) => {
            let mut items = Vec::new();
            for view in groups.iter().flat_map(|(_, views)| views) {
                items.push(whole(&session.client, view).await?);
            }
            let is_list = is_list || items.is_empty();
            out.data(&show.form.write(&form::list(items, is_list))?)
        }
        Form::Name => {
            let names: String = groups
                .iter()
                .flat_map(|(_, views)| views)
                .map(|view| format!("{}\n", view.object().object_ref().short()))
                .collect();
            out.data(&names)
        }
        Form::Table | Form::Wide => tables(groups, show, out),
    }
}

fn tables(groups: &[(Kind, Vec<View>)], show: &Show, out: &mut Out) -> Result<(), Failure> {
    let style = show.style(groups.len() > 1);
    let mut first = true;
    let is_all = groups.len() > 1 && groups.iter().any(|(_, views)| !views.is_empty());
    for (kind, views) in groups {
        if views.is_empty() && is_all {
            continue;
        }
        if views.is_empty() {
            out.say(&nothing(*kind, show));
            continue;
        }
        if !first {
            out.line("")?;
        }
        first = false;
        let colour = out.colour;
        out.data(&columns::table(*kind, views, &style).text(show.with_headers, colour))?;
    }
    Ok(())
}

fn nothing(kind: Kind, show: &Show) -> String {
    if kind.is_cluster_wide() || show.namespaces {
        format!("no {}", kind.plural())
    } else {
        format!("no {} in namespace {}", kind.plural(), show.namespace)
    }
}

/// One object by name; when there is none, the nearest name is told.
///
/// # Errors
/// `NotFound` among others.
pub async fn one(client: &Client, kind: Kind, name: &str, namespace: &Namespace) -> Result<View, Failure> {
    let request = GetRequest { kind, namespace: namespace.clone(), name: name.to_owned() };
    let failure = match client.get(&request).await {
        Ok(view) => return Ok(view),
        Err(failure) => failure,
    };
    let Failure::Api(mut error) = failure else { return Err(failure) };
    if error.code == ostler_schemas::v1::api::ApiErrorCode::NotFound && error.hint.is_none() {
        let namespaced = (!kind.is_cluster_wide()).then(|| namespace.clone());
        let list = ListRequest { kind, namespace: namespaced, labels: Vec::new(), names: Vec::new() };
        // A hint is worth one question; if it is not answered the error stands as it is.
        if let Ok(page) = client.list(&list).await {
            let names: Vec<&str> = page.items.iter().map(|view| view.metadata.name.as_str()).collect();
            error.hint = nearest(name, names).map(|near| format!("did you mean {}/{near}?", kind.lower()));
        }
    }
    Err(Failure::Api(error))
}

/// The whole object as JSON, with the content if it is a file.
///
/// # Errors
/// When the content cannot be fetched.
pub async fn whole(client: &Client, view: &View) -> Result<Value, Failure> {
    let contents = client.contents(&view.object()).await?;
    Ok(object::view(view, &contents))
}

async fn watch(
    session: &Session,
    args: &Get,
    targets: &[Target],
    show: &Show,
    out: &mut Out,
) -> Result<(), Failure> {
    let [first, ..] = targets else { return Ok(()) };
    if targets.iter().any(|t| t.kind != first.kind) {
        return Err(Failure::message("-w watches one kind at a time"));
    }
    let names = targets.iter().filter_map(|t| t.name.clone()).collect();
    let list = request(first.kind, names, &args.selection, &session.namespace)?;
    let mut watcher = Watcher { show, kind: first.kind, waiting: Some(Vec::new()), widths: Vec::new() };
    loop {
        let failure = match watcher.follow(session, list.clone(), out).await {
            Ok(()) => Failure::message("the server ended the watch"),
            Err(failure) => failure,
        };
        match failure {
            // Controllers come and go; whoever watches wants to see what is so afterwards.
            Failure::Unreachable(silence) if watcher.waiting.is_none() => {
                out.warn(&format!("{}; trying again", silence.what));
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            }
            other => return Err(other),
        }
    }
}

/// Shows changes as they come: the objects present first, as one table, then a row for each change.
struct Watcher<'a> {
    show: &'a Show,
    kind: Kind,
    /// Objects of the first list, until it is whole.
    waiting: Option<Vec<View>>,
    widths: Vec<usize>,
}

impl Watcher<'_> {
    async fn follow(&mut self, session: &Session, list: ListRequest, out: &mut Out) -> Result<(), Failure> {
        let mut replies = session.client.watch(list).await?;
        while let Some(body) = replies.next().await? {
            let message: WatchMessage = decode(&body)?;
            match (message.change, message.view) {
                (Some(change), Some(view)) => self.change(session, change, view, out).await?,
                (_, _) => self.flush(out)?,
            }
        }
        Ok(())
    }

    async fn change(
        &mut self,
        session: &Session,
        change: WatchChange,
        view: View,
        out: &mut Out,
    ) -> Result<(), Failure> {
        if !self.show.keeps(&view) {
            return Ok(());
        }
        match &self.show.form {
            Form::Json => {
                let line = json!({"type": change, "object": whole(&session.client, &view).await?});
                out.line(&line.to_string())
            }
            Form::Yaml | Form::JsonPath(_) => {
                let value = whole(&session.client, &view).await?;
                let mark = if self.show.form == Form::Yaml { "---\n" } else { "" };
                let text = self.show.form.write(&value)?;
                out.data(&format!("{mark}{text}"))
            }
            Form::Name => out.line(&view.object().object_ref().short()),
            Form::Table | Form::Wide => {
                if let Some(waiting) = &mut self.waiting {
                    waiting.push(view);
                    return Ok(());
                }
                let table = columns::table(self.kind, &[view], &self.show.style(false));
                for (width, needed) in self.widths.iter_mut().zip(table.widths(false)) {
                    *width = (*width).max(needed);
                }
                let mut row = table.rows_text(&self.widths, out.colour);
                if change == WatchChange::Deleted {
                    row = format!("{}  (deleted)\n", row.trim_end());
                }
                out.data(&row)
            }
        }
    }

    fn flush(&mut self, out: &mut Out) -> Result<(), Failure> {
        let Some(waiting) = self.waiting.take() else { return Ok(()) };
        match self.show.form {
            Form::Table | Form::Wide => {
                let views = self.show.sorted(waiting);
                let table = columns::table(self.kind, &views, &self.show.style(false));
                self.widths = table.widths(self.show.with_headers);
                let colour = out.colour;
                out.data(&table.text(self.show.with_headers, colour))
            }
            Form::Json | Form::Yaml | Form::Name | Form::JsonPath(_) => Ok(()),
        }
    }
}

/// One test of `--field-selector`.
#[derive(Debug, Clone, PartialEq)]
struct FieldTest {
    path: Template,
    equal: bool,
    value: String,
}

impl FieldTest {
    fn holds(&self, value: &Value) -> bool {
        let found = self.path.values(value);
        let is = match found.first() {
            Some(first) => shown(first) == self.value,
            None => self.value.is_empty(),
        };
        is == self.equal
    }
}

fn field_selector(text: Option<&str>) -> Result<Vec<FieldTest>, Failure> {
    let Some(text) = text else { return Ok(Vec::new()) };
    text.split(',')
        .filter(|part| !part.trim().is_empty())
        .map(|part| {
            let (path, equal, value) = match (part.split_once("!="), part.split_once("=")) {
                (Some((path, value)), _) => (path, false, value),
                (None, Some((path, value))) => (path, true, value.strip_prefix('=').unwrap_or(value)),
                (None, None) => {
                    return Err(Failure::message(format!(
                        "{part:?} is not a field requirement: write path=value or path!=value, for example \
                         status.phase=Running"
                    )));
                }
            };
            let path = Template::path(path.trim())?;
            Ok(FieldTest { path, equal, value: value.trim().to_owned() })
        })
        .collect()
}

/// The reference of an object that may be named by short uid or host name: asks the server unless it is plain.
///
/// # Errors
/// When there is no such object.
pub async fn resolve(session: &Session, kind: Kind, name: &str) -> Result<ObjectRef, Failure> {
    Ok(one(&session.client, kind, name, &session.namespace).await?.object().object_ref())
}
