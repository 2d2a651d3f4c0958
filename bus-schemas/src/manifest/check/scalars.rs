//! Scalars of every type: quantities, words, names and paths.

use std::fmt::Display;
use std::str::FromStr;

use serde_json::Value as Json;

use super::file;
use super::labels::{check_label_key, check_label_value};
use super::report::Report;
use super::values;
use super::walk::{Walk, found, not_supported};
use crate::ids::{InvalidId, Kind, Name};
use crate::manifest::finding::{FindingCode, Place};
use crate::manifest::schema::{Type, suggest};
use crate::manifest::tree::{Node, Scalar, ScalarType, Value};
use crate::quantity::{
    CountOrPercent, Cpu, Dur, Increase, InvalidQuantity, Mode, Rlimit, Signal, Size, Window,
};
use crate::spec::{Capability, CpuList, FieldPath, InvalidSpec, Need, is_variable_name};

/// Why a scalar is not of its type.
pub(super) struct Bad {
    code: FindingCode,
    message: String,
    hint: Option<String>,
}

impl Bad {
    pub(super) fn new(code: FindingCode, message: impl Into<String>) -> Bad {
        Bad { code, message: message.into(), hint: None }
    }

    /// Tells it of a field that was read already.
    pub(super) fn tell(self, field: &str, report: &mut Report) {
        match self.hint {
            Some(hint) => report.hint(field, self.code, self.message, hint),
            None => report.add(field, self.code, self.message),
        }
    }

    pub(super) fn value(message: impl Into<String>) -> Bad {
        Bad::new(FindingCode::BadValue, message)
    }
}

impl From<InvalidQuantity> for Bad {
    fn from(error: InvalidQuantity) -> Bad {
        let code = if error.is_out_of_range() { FindingCode::OutOfRange } else { FindingCode::BadValue };
        Bad::new(code, error.to_string())
    }
}

impl From<InvalidId> for Bad {
    fn from(error: InvalidId) -> Bad {
        Bad::value(error.to_string())
    }
}

impl From<InvalidSpec> for Bad {
    fn from(error: InvalidSpec) -> Bad {
        Bad::value(error.to_string())
    }
}

pub(super) type Read = Result<Json, Bad>;

impl Walk<'_> {
    pub(super) fn scalar(&mut self, node: &Node, ty: &Type, path: &str) -> Option<Json> {
        let read = match &node.value {
            Value::Scalar(scalar) => read(scalar, ty),
            Value::List(_) | Value::Map(_) => {
                Err(Bad::new(FindingCode::BadType, format!("is {}, found {}", what(ty), found(node))))
            }
        };
        match read {
            Ok(value) => Some(value),
            Err(bad) => {
                self.bad(node.place, path, bad);
                None
            }
        }
    }

    pub(super) fn bad(&mut self, place: Place, path: &str, bad: Bad) {
        match bad.hint {
            Some(hint) => self.report.hint(path, bad.code, bad.message, hint),
            None => self.report.at(place, path, bad.code, bad.message),
        }
    }
}

fn read(scalar: &Scalar, ty: &Type) -> Read {
    let text = scalar.text.as_str();
    match ty {
        Type::Text => read_text(scalar).map(Json::from),
        Type::Content => read_content(scalar),
        Type::Bool => read_bool(scalar),
        Type::Int { min, max } => read_int(scalar, *min, *max),
        Type::Duration { positive } => read_duration(text, *positive),
        Type::Cpu => read_cpu(text),
        Type::Size => canonical::<Size, _>(text),
        Type::Rate => values::rate(text),
        Type::Share => read_share(text),
        Type::Increase => canonical::<Increase, _>(text),
        Type::Window => canonical::<Window, _>(read_text(scalar)?),
        Type::Mode => read_mode(scalar),
        Type::Signal => canonical::<Signal, _>(text),
        Type::Rlimit => canonical::<Rlimit, _>(text),
        Type::ExitStatus => values::exit_status(text),
        Type::Capability => canonical::<Capability, _>(text),
        Type::CpuList => canonical::<CpuList, _>(text),
        Type::Sha256 => values::sha256(scalar),
        Type::Source => values::source(read_text(scalar)?),
        Type::Relative => values::relative(read_text(scalar)?),
        Type::Directory => values::directory(read_text(scalar)?),
        Type::Choice { words, reserved } => read_choice(text, words, reserved),
        Type::Exactly(word) => read_choice(text, &[*word], &[]),
        Type::Kind => read_kind(text),
        Type::Name => read_name(scalar),
        Type::LabelKey => read_text(scalar).and_then(|text| check_label_key(text).map(|()| Json::from(text))),
        Type::LabelValue => {
            read_text(scalar).and_then(|text| check_label_value(text).map(|()| Json::from(text)))
        }
        Type::EnvName => read_env_name(text),
        Type::Path => read_path(read_text(scalar)?),
        Type::FilePath => file::check_path(read_text(scalar)?).map(|()| Json::from(text)),
        Type::Account => read_account(text),
        Type::FieldPath => read_field_path(text),
        Type::Need => read_need(text),
        Type::SecretKey => super::secret::read_key(read_text(scalar)?),
        Type::PortRef => read_port_ref(scalar),
        Type::Base64 => read_text(scalar).map(Json::from),
        // What was found is not repeated.
        Type::SecretValues => Err(Bad::new(FindingCode::BadType, "is a map of texts")),
        Type::Labels { .. }
        | Type::Annotations
        | Type::Command
        | Type::Vars
        | Type::Object(_)
        | Type::List { .. }
        | Type::Anything => Err(Bad::new(FindingCode::BadType, format!("is {}, found {text:?}", what(ty)))),
    }
}

fn what(ty: &Type) -> &'static str {
    match ty {
        Type::Bool => "true or false",
        Type::Int { .. } => "a whole number",
        Type::Duration { .. } => "a duration such as 10s",
        Type::Size => "a size such as 128Mi",
        Type::Rate => "a size per second such as 10M",
        Type::Cpu => "an amount of cpu such as 250m",
        Type::Share => "a count or percentage such as 25%",
        Type::Increase => "a percentage such as 40%",
        Type::Window => "a window such as Mon..Fri 09:00-16:00 Europe/Amsterdam",
        Type::Mode => "a mode such as \"0644\"",
        Type::Signal => "a signal such as SIGTERM",
        Type::Rlimit => "a whole number, soft:hard, or infinity",
        Type::ExitStatus => "a code or signal such as 143 or SIGTERM",
        Type::CpuList => "a list of cores such as 0-3,8, as text",
        Type::Labels { .. } | Type::Annotations | Type::SecretValues | Type::Vars | Type::Object(_) => {
            "a map"
        }
        Type::Command | Type::List { .. } => "a list",
        Type::Text
        | Type::Choice { .. }
        | Type::Name
        | Type::LabelKey
        | Type::LabelValue
        | Type::EnvName
        | Type::Path
        | Type::FilePath
        | Type::Capability
        | Type::Sha256
        | Type::Source
        | Type::Relative
        | Type::Directory
        | Type::Account
        | Type::FieldPath
        | Type::Need
        | Type::SecretKey
        | Type::PortRef
        | Type::Content
        | Type::Base64
        | Type::Exactly(_)
        | Type::Kind
        | Type::Anything => "text",
    }
}

/// Parsed and written again in its one canonical form.
fn canonical<T, E>(text: &str) -> Read
where
    T: FromStr<Err = E> + Display,
    E: Into<Bad>,
{
    text.parse::<T>().map(|value| Json::from(value.to_string())).map_err(Into::into)
}

/// Text: quoted wherever YAML would read something else, so that nobody is surprised by what YAML makes of it.
pub(super) fn read_text(scalar: &Scalar) -> Result<&str, Bad> {
    let text = scalar.text.as_str();
    match scalar.kind() {
        ScalarType::Text if text.contains('\0') => Err(Bad::value("must not contain the character NUL")),
        ScalarType::Text => Ok(text),
        ScalarType::Null | ScalarType::Bool(_) | ScalarType::Int | ScalarType::Float => {
            Err(Bad::new(FindingCode::BadType, format!("is text: write \"{text}\"")))
        }
    }
}

fn read_content(scalar: &Scalar) -> Read {
    match scalar.kind() {
        ScalarType::Text => Ok(Json::from(scalar.text.as_str())),
        ScalarType::Null | ScalarType::Bool(_) | ScalarType::Int | ScalarType::Float => {
            read_text(scalar).map(Json::from)
        }
    }
}

fn read_bool(scalar: &Scalar) -> Read {
    match scalar.kind() {
        ScalarType::Bool(flag) => Ok(Json::Bool(flag)),
        ScalarType::Null | ScalarType::Int | ScalarType::Float | ScalarType::Text => {
            let message = format!("{:?} is not a boolean: write true or false", scalar.text);
            Err(Bad::new(FindingCode::BadType, message))
        }
    }
}

fn read_int(scalar: &Scalar, min: i64, max: i64) -> Read {
    let text = scalar.text.as_str();
    let decimal = text.parse::<i128>();
    let number = match (scalar.kind(), decimal) {
        (ScalarType::Int, Ok(number)) => number,
        (ScalarType::Text, Ok(number)) => {
            let message = format!("{text:?} is text: write {number}");
            return Err(Bad::new(FindingCode::BadType, message));
        }
        _ => return Err(Bad::new(FindingCode::BadType, format!("{text:?} is not a whole number"))),
    };
    match i64::try_from(number) {
        Ok(number) if (min..=max).contains(&number) => Ok(Json::from(number)),
        Ok(_) | Err(_) => {
            let message = if max == i64::MAX {
                format!("must be at least {min}, found {number}")
            } else {
                format!("must be between {min} and {max}, found {number}")
            };
            Err(Bad::new(FindingCode::OutOfRange, message))
        }
    }
}

fn read_duration(text: &str, positive: bool) -> Read {
    let value: Dur = text.parse()?;
    if positive && value == Dur::ZERO {
        let message = format!("must be between 1ms and {}, found {text}", Dur::MAX);
        return Err(Bad::new(FindingCode::OutOfRange, message));
    }
    Ok(Json::from(value.to_string()))
}

fn read_cpu(text: &str) -> Read {
    let value: Cpu = text.parse()?;
    if value == Cpu::ZERO {
        return Err(Bad::new(FindingCode::OutOfRange, format!("must be at least 1m, found {text}")));
    }
    Ok(Json::from(value.to_string()))
}

fn read_share(text: &str) -> Read {
    match text.parse::<CountOrPercent>()? {
        CountOrPercent::Count(count) => Ok(Json::from(count)),
        percent @ CountOrPercent::Percent(_) => Ok(Json::from(percent.to_string())),
    }
}

/// A mode must be quoted: YAML 1.2 reads 0644 as six hundred and forty-four.
fn read_mode(scalar: &Scalar) -> Read {
    let text = scalar.text.as_str();
    if scalar.kind() == ScalarType::Text {
        return canonical::<Mode, _>(text);
    }
    let meant = text.parse::<Mode>().map_or_else(|_| "0644".to_owned(), |mode| mode.to_string());
    let message = format!("a mode is text: write \"{meant}\" (YAML reads {text} as a number)");
    Err(Bad::new(FindingCode::BadType, message))
}

pub(super) fn read_choice(text: &str, words: &[&str], reserved: &[&str]) -> Read {
    if words.contains(&text) {
        return Ok(Json::from(text));
    }
    if reserved.contains(&text) {
        return Err(Bad::new(FindingCode::NotSupported, format!("{text} {}", not_supported("choice"))));
    }
    let all: Vec<&str> = words.iter().chain(reserved).copied().collect();
    let message = format!("{text:?} is not one of {}", words.join(", "));
    let hint = match text {
        "no" if words.contains(&"never") => Some("write never".to_owned()),
        "forking" if words.contains(&"notify") => Some("run the program in the foreground".to_owned()),
        "simple" | "idle" if words.contains(&"notify") => Some("write exec".to_owned()),
        "inherit" if words.contains(&"journal") => Some("write file".to_owned()),
        _ => suggest(text, all).map(|meant| format!("did you mean {meant}?")),
    };
    Err(Bad { code: FindingCode::BadChoice, message, hint })
}

fn read_kind(text: &str) -> Read {
    match Kind::ALL.into_iter().find(|kind| kind.as_str() == text) {
        Some(kind) if kind.is_served() => Ok(Json::from(text)),
        Some(kind) => Err(Bad::new(FindingCode::NotSupported, format!("{kind} {}", not_supported("kind")))),
        None => {
            let served: Vec<&str> =
                Kind::ALL.into_iter().filter(|k| k.is_served()).map(Kind::as_str).collect();
            let meant = Kind::by_any_name(text)
                .or_else(|| Kind::by_any_name(&text.to_lowercase()))
                .map(Kind::as_str)
                .or_else(|| suggest(text, Kind::ALL.into_iter().map(Kind::as_str)));
            let hint = match text {
                "Pod" => Some("use Process".to_owned()),
                "ReplicaSet" | "ReplicationController" => Some("use Deployment".to_owned()),
                "ConfigMap" => Some("use ConfigFile".to_owned()),
                _ => meant.map(|meant| format!("did you mean {meant}?")),
            };
            let message = format!("{text:?} is not one of {}", served.join(", "));
            Err(Bad { code: FindingCode::BadChoice, message, hint })
        }
    }
}

fn read_name(scalar: &Scalar) -> Read {
    let text = match scalar.kind() {
        // `name: 8080` is a name to everyone but YAML.
        ScalarType::Int => scalar.text.as_str(),
        ScalarType::Null | ScalarType::Bool(_) | ScalarType::Float | ScalarType::Text => read_text(scalar)?,
    };
    Ok(Json::from(text.parse::<Name>()?.as_str()))
}

fn read_env_name(text: &str) -> Read {
    if !is_variable_name(text) {
        let message =
            format!("{text:?} is not the name of a variable: use A-Z, a-z, 0-9 and _, no digit first");
        return Err(Bad::value(message));
    }
    if text.starts_with("OSTLER_") {
        return Err(Bad::value(format!(
            "{text:?} is not allowed: names beginning with OSTLER_ are Ostler's own"
        )));
    }
    Ok(Json::from(text))
}

fn read_path(text: &str) -> Read {
    if !text.starts_with('/') {
        return Err(Bad::value(format!("{text:?} is not an absolute path: begin with /")));
    }
    Ok(Json::from(text))
}

/// Names are checked only for what no host could have; whether one exists is known on the host alone.
fn read_account(text: &str) -> Read {
    /// Longest login name of Linux's C library is 32; directories of other systems allow much more.
    const LONGEST: usize = 256;
    let number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    // The last two numbers mean "nobody" and "no change" to the kernel.
    if number && text.parse::<u32>().is_ok_and(|id| id < u32::MAX - 1) {
        return Ok(Json::from(text));
    }
    let good = |b: u8| {
        b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'@' | b'$' | b'\\') || b >= 0x80
    };
    if number || text.is_empty() || text.len() > LONGEST || text.starts_with('-') || !text.bytes().all(good) {
        return Err(Bad::value(format!("{text:?} is not the name or number of a user or group")));
    }
    Ok(Json::from(text))
}

fn read_field_path(text: &str) -> Read {
    match text.parse::<FieldPath>()? {
        FieldPath::NodeVar(_) => {
            Err(Bad::new(FindingCode::NotSupported, format!("{text} {}", not_supported("path"))))
        }
        FieldPath::Name
        | FieldPath::Namespace
        | FieldPath::Uid
        | FieldPath::Label(_)
        | FieldPath::NodeName
        | FieldPath::NodeHostname
        | FieldPath::NodeLabel(_)
        | FieldPath::NodeAddress(_)
        | FieldPath::LimitCpu
        | FieldPath::LimitMemory => Ok(Json::from(text)),
    }
}

fn read_need(text: &str) -> Read {
    if text.starts_with("unit:") {
        return Err(Bad::new(FindingCode::NotSupported, format!("unit: {}", not_supported("need"))));
    }
    match text.parse::<Need>()? {
        Need::Workload { kind, .. } if !kind.is_served() => {
            Err(Bad::new(FindingCode::NotSupported, format!("{kind} {}", not_supported("kind"))))
        }
        need @ (Need::ConfigFile { .. }
        | Need::Workload { .. }
        | Need::Process { .. }
        | Need::Mount(_)
        | Need::Path(_)) => Ok(Json::from(need.to_string())),
    }
}

fn read_port_ref(scalar: &Scalar) -> Read {
    match scalar.kind() {
        ScalarType::Int => read_int(scalar, 1, 65_535),
        ScalarType::Null | ScalarType::Bool(_) | ScalarType::Float | ScalarType::Text => read_name(scalar),
    }
}
