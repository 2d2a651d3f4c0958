//! How simulated programs behave: those of processes, of hooks and of `exec` probes.

use ostler_agent_core::file::Owner;

/// How processes with a certain command behave. What is changed concerns what is started afterwards; stops, probes and
/// what is left behind concern what runs, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Ends by itself after so many milliseconds with this code.
    pub exits: Option<(u64, i32)>,
    /// How long it takes to end when asked; none = it must be killed.
    pub stops_in_ms: Option<u64>,
    /// When its probes begin to succeed, and when it says `READY=1` if it is listened to.
    pub ready_after_ms: u64,
    /// It never says `READY=1`, whoever listens.
    pub mute: bool,
    /// Ports, by their names in manifests, on which it does not answer.
    pub deaf: Vec<String>,
    /// How long a start takes.
    pub starts_in_ms: u64,
    /// It cannot be started, for this reason.
    pub broken: Option<String>,
    /// How much memory it takes while it lives.
    pub memory: u64,
    /// How much disk its log takes.
    pub disk: u64,
    /// How many threads it has; 0 counts as one.
    pub tasks: u32,
    /// For how long it says `WATCHDOG=1`, if it is listened to; none = for as long as it lives.
    pub alive_for_ms: Option<u64>,
    /// For how long others of its tree outlive its main process, unless they are killed.
    pub lingers_ms: u64,
}

impl Default for Program {
    fn default() -> Self {
        Self {
            exits: None,
            stops_in_ms: Some(10),
            ready_after_ms: 0,
            mute: false,
            deaf: Vec::new(),
            starts_in_ms: 1,
            broken: None,
            memory: 0,
            disk: 0,
            tasks: 1,
            alive_for_ms: None,
            lingers_ms: 0,
        }
    }
}

/// How a host takes what nobody described one by one. Hosts of a fleet share one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manners {
    /// How programs behave.
    pub usual: Program,
    /// What is started with words that contain one of these ends at once, with code 1.
    pub failing: Vec<String>,
    /// Every user is known.
    pub everybody: bool,
    /// Nothing is written down for checkers: what lives long would grow by it.
    pub forgetful: bool,
}

impl Manners {
    pub(super) fn failure(&self, argv: &[String]) -> Option<Program> {
        let fails = |word: &String| self.failing.iter().any(|failing| word.contains(failing.as_str()));
        argv.iter().any(fails).then(|| Program { exits: Some((1, 1)), ..self.usual.clone() })
    }

    /// The owner that a user has whom nobody described.
    pub(super) fn stranger(&self) -> Option<Owner> {
        self.everybody.then_some(Owner { uid: 1001, gid: 1001 })
    }
}
