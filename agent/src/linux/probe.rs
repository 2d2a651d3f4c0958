//! Asks readiness questions over TCP and HTTP.

use std::time::Duration;

use ostler_agent_core::probe::Question;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A status line fits in this many times over.
const HEAD_MAX: usize = 4096;

/// Asks; an error says what was wrong.
pub(super) async fn ask(question: Question, timeout_ms: u64) -> Result<(), String> {
    let asked = async {
        match question {
            Question::Tcp { host, port } => connect(&host, port).await.map(drop),
            Question::Http { host, port, path, headers } => http(&host, port, &path, &headers).await,
        }
    };
    match tokio::time::timeout(Duration::from_millis(timeout_ms), asked).await {
        Ok(result) => result,
        Err(_) => Err(format!("no answer within {timeout_ms} ms")),
    }
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    TcpStream::connect((host, port)).await.map_err(|error| format!("connect to {host}:{port}: {error}"))
}

/// `GET`; a status from 200 to 399 is good. Redirects are not followed: the process answered.
async fn http(host: &str, port: u16, path: &str, headers: &[(String, String)]) -> Result<(), String> {
    let mut stream = connect(host, port).await?;
    let mut request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\nUser-Agent: ostler-agent\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request.push_str(&format!("Host: {host}:{port}\r\n"));
    }
    for (name, value) in headers {
        if [name, value].iter().any(|text| text.contains(['\r', '\n'])) {
            return Err(format!("header {name:?} has a line break"));
        }
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    let failed = |error: std::io::Error| format!("GET {path}: {error}");
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut head = Vec::new();
    let mut part = [0; 512];
    while !head.contains(&b'\n') && head.len() < HEAD_MAX {
        match stream.read(&mut part).await.map_err(failed)? {
            0 => break,
            n => head.extend_from_slice(&part[..n]),
        }
    }
    judge(path, &head)
}

fn judge(path: &str, head: &[u8]) -> Result<(), String> {
    let line = String::from_utf8_lossy(head.split(|b| *b == b'\n').next().unwrap_or_default()).into_owned();
    let mut words = line.split_whitespace();
    let is_http = words.next().is_some_and(|word| word.starts_with("HTTP/"));
    match words.next().and_then(|status| status.parse::<u16>().ok()).filter(|_| is_http) {
        Some(200..=399) => Ok(()),
        Some(status) => Err(format!("GET {path}: status {status}")),
        None => Err(format!("GET {path}: the answer is not HTTP")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_judged() {
        assert!(judge("/", b"HTTP/1.1 200 OK\r\n").is_ok());
        assert!(judge("/", b"HTTP/1.0 302 Found\r\n").is_ok());
        assert_eq!(judge("/x", b"HTTP/1.1 503 No\r\n"), Err("GET /x: status 503".to_owned()));
        assert!(judge("/", b"SSH-2.0-x\r\n").is_err());
        assert!(judge("/", b"").is_err());
    }
}
