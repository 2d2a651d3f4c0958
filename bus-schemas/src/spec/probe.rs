//! Questions that tell whether a process is ready.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::quantity::Dur;

/// A question asked again and again. Exactly one of the actions is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Probe {
    /// Ask over HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_get: Option<HttpGet>,
    /// Open a TCP connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcp_socket: Option<TcpSocket>,
    /// Run a command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ProbeExec>,
    /// How long after the start the first question is asked.
    pub initial_delay: Dur,
    /// From one question to the next.
    pub period: Dur,
    /// How long an answer may take.
    pub timeout: Dur,
    /// So many good answers in a row make the process ready.
    pub success_threshold: u32,
    /// So many bad ones in a row make it not ready.
    pub failure_threshold: u32,
}

/// What a probe does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeAction<'a> {
    /// `GET`: any status from 200 to 399 is good.
    HttpGet(&'a HttpGet),
    /// A connection that is accepted is good.
    TcpSocket(&'a TcpSocket),
    /// A command that ends with code 0 is good.
    Exec(&'a ProbeExec),
}

impl Probe {
    /// What it does; `None` for an action that this version does not know.
    #[must_use]
    pub fn action(&self) -> Option<ProbeAction<'_>> {
        let http = self.http_get.as_ref().map(ProbeAction::HttpGet);
        let tcp = || self.tcp_socket.as_ref().map(ProbeAction::TcpSocket);
        http.or_else(tcp).or_else(|| self.exec.as_ref().map(ProbeAction::Exec))
    }
}

/// A request over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpGet {
    /// Path and query.
    pub path: String,
    /// Where to.
    pub port: PortRef,
    /// Which host; none means the node's own address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// With or without TLS.
    pub scheme: Scheme,
    /// Headers sent with it.
    pub http_headers: Vec<Header>,
}

/// A connection over TCP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TcpSocket {
    /// Where to.
    pub port: PortRef,
    /// Which host; none means the node's own address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// A command, run as the process's user, in its control group and environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeExec {
    /// The program and its words; no shell.
    pub command: Vec<String>,
}

/// The schemes of HTTP probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Scheme {
    /// Plain.
    Http,
}

/// One header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// A port by its number, or by its name in `ports`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PortRef {
    /// 1 to 65535.
    Number(u16),
    /// The `name` of an entry of `ports`.
    Name(String),
}

impl fmt::Display for PortRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PortRef::Number(number) => write!(f, "{number}"),
            PortRef::Name(name) => f.write_str(name),
        }
    }
}

impl Serialize for PortRef {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            PortRef::Number(number) => s.serialize_u16(*number),
            PortRef::Name(name) => s.serialize_str(name),
        }
    }
}

impl<'de> Deserialize<'de> for PortRef {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Either;
        impl de::Visitor<'_> for Either {
            type Value = PortRef;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a port number or name")
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<PortRef, E> {
                u16::try_from(number).map(PortRef::Number).map_err(E::custom)
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<PortRef, E> {
                Ok(PortRef::Name(name.to_owned()))
            }
        }
        d.deserialize_any(Either)
    }
}
