//! Evidence of a change that Ostler did not make: what changed, how, and who did it where the kernel tells.
//!
//! Nothing here is guessed: what is not known is left out, and a text says why.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// A change that Ostler did not make.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DriftReport {
    /// When it was seen.
    pub at: Timestamp,
    /// What was different: `content`, `mode`, `owner`, `missing`, `kind`; with its name of one of several files.
    pub what: String,
    /// A short unified diff, where the content is text.
    pub diff: Option<String>,
    /// How often it was ever put back.
    pub repairs: u64,
    /// Why there is no diff although the content differs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_diff: Option<String>,
    /// Lines that came and lines that went.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lines: Option<(u32, u32)>,
    /// Who changed it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub writer: Option<Writer>,
    /// Why that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_writer: Option<String>,
    /// How often it was ever found changed, put back or not.
    #[serde(default)]
    pub seen: u64,
}

/// Who made a change, as the kernel told when it was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Writer {
    /// Its pid at that time.
    pub pid: u32,
    /// Whom it ran as; none if it was gone before that could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The name of that user, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What it called itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its executable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exe: Option<String>,
    /// The unit or control group that it ran in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

impl Writer {
    /// What people call the program: its executable's name, else what it called itself.
    #[must_use]
    pub fn program(&self) -> Option<&str> {
        let exe = self.exe.as_deref().and_then(|exe| exe.rsplit('/').next());
        exe.filter(|name| !name.is_empty()).or(self.name.as_deref())
    }

    fn whose(&self) -> Option<String> {
        let uid = self.uid?;
        Some(self.user.as_ref().map_or_else(|| format!("uid {uid}"), |user| format!("uid {uid} {user}")))
    }

    /// `python3.11 (pid 8123, uid 1001 deploy, session-812.scope)`.
    #[must_use]
    pub fn text(&self) -> String {
        let pid = Some(format!("pid {}", self.pid));
        let known: Vec<String> = [pid, self.whose(), self.unit.clone()].into_iter().flatten().collect();
        match self.program() {
            Some(program) => format!("{program} ({})", known.join(", ")),
            None => known.join(", "),
        }
    }

    /// `python3.11 (ansible), uid 1001`: who fights over a file, whatever its pid is now.
    #[must_use]
    pub fn short_text(&self) -> String {
        let program = self.program().map_or_else(|| format!("pid {}", self.pid), str::to_owned);
        let user = self.user.as_ref().map(|user| format!(" ({user})")).unwrap_or_default();
        let uid = self.uid.map(|uid| format!(", uid {uid}")).unwrap_or_default();
        format!("{program}{user}{uid}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_left_out() {
        let whole = Writer {
            pid: 8123,
            uid: Some(1001),
            user: Some("deploy".to_owned()),
            name: Some("python3".to_owned()),
            exe: Some("/usr/bin/python3.11".to_owned()),
            unit: Some("session-812.scope".to_owned()),
        };
        assert_eq!(whole.text(), "python3.11 (pid 8123, uid 1001 deploy, session-812.scope)");
        assert_eq!(whole.short_text(), "python3.11 (deploy), uid 1001");
        let gone = Writer { pid: 7, ..Writer::default() };
        assert_eq!((gone.text(), gone.short_text()), ("pid 7".to_owned(), "pid 7".to_owned()));
    }
}
