//! Probes: one question in three forms, asked for three reasons.

use super::template::MAX_ENTRIES;
use super::{Field, Object, Type};

const THRESHOLD: Type = Type::Int { min: 1, max: 1_000_000 };

const HEADER: Object = Object {
    fields: &[
        Field::new("name", Type::Text, "The header.").required("for example Host"),
        Field::new("value", Type::Text, "Its value.").or("\"\""),
    ],
};

const HTTP_GET: Object = Object {
    fields: &[
        Field::new("path", Type::Text, "Path and query.").or("/"),
        Field::new("port", Type::PortRef, "Number, or a name from ports.").required("for example http"),
        Field::new("host", Type::Text, "Which host; the node's own address if left out."),
        Field::new("scheme", Type::Choice { words: &["HTTP"], reserved: &["HTTPS"] }, "With or without TLS.")
            .or("HTTP"),
        Field::new(
            "httpHeaders",
            Type::List { of: &Type::Object(&HEADER), max: MAX_ENTRIES },
            "Headers sent with it.",
        )
        .or("[]"),
    ],
};

const TCP_SOCKET: Object = Object {
    fields: &[
        Field::new("port", Type::PortRef, "Number, or a name from ports.").required("for example http"),
        Field::new("host", Type::Text, "Which host; the node's own address if left out."),
    ],
};

const PROBE_EXEC: Object = Object {
    fields: &[Field::new("command", Type::Command, "The program and its words; no shell.")
        .required("for example [\"/usr/bin/app\", \"--check\"]")],
};

pub(super) const PROBE: Object = Object {
    fields: &[
        Field::new("httpGet", Type::Object(&HTTP_GET), "Ask over HTTP; 200 to 399 is good."),
        Field::new("tcpSocket", Type::Object(&TCP_SOCKET), "Open a TCP connection."),
        Field::new("exec", Type::Object(&PROBE_EXEC), "Run a command; code 0 is good."),
        Field::reserved("grpc", "Ask over gRPC."),
        Field::new(
            "initialDelay",
            Type::Duration { positive: false },
            "From the start to the first question.",
        )
        .or("0s"),
        Field::new("period", Type::Duration { positive: true }, "From one question to the next.").or("10s"),
        Field::new("timeout", Type::Duration { positive: true }, "How long an answer may take.").or("1s"),
        Field::new("successThreshold", THRESHOLD, "So many good answers in a row.").or("1"),
        Field::new("failureThreshold", THRESHOLD, "So many bad answers in a row.").or("3"),
    ],
};
