//! Many processes followed at once, while controllers die.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use harness::fleet::{Fleet, Size, kill, until};

use super::{counting, numbers};

const PROCESSES: u32 = 30;
const LINES: u32 = 60;

/// What a followed answer has printed so far.
struct Followed {
    child: Child,
    text: Arc<Mutex<String>>,
}

impl Followed {
    fn start(fleet: &Fleet, words: &[&str]) -> Self {
        let mut command = fleet.command(words);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("ostler starts");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let text = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&text);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let mut text = sink.lock().unwrap_or_else(PoisonError::into_inner);
                text.push_str(&line);
                text.push('\n');
            }
        });
        Self { child, text }
    }

    fn text(&self) -> String {
        self.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until every process has said at least this.
    fn until_all(&self, number: u32) {
        until(&format!("{PROCESSES} processes have said {number}"), || {
            let all = numbers(&self.text());
            let far = all.values().filter(|n| n.last().is_some_and(|last| *last >= number)).count();
            (far == PROCESSES as usize).then_some(())
        });
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}

#[test]
fn thirty_processes_are_followed_line_by_line_while_controllers_die() {
    let fleet = Fleet::start(Size { controllers: 2, ..Size::default() });
    fleet.converges(&counting("count", PROCESSES, (LINES, "0.3")));
    let followed = Followed::start(&fleet, &["logs", "-f", "deployment/count", "--since", "1h"]);
    followed.until_all(LINES / 4);
    for (controller, number) in [("pid controller-1", LINES / 2), ("pid controller-2", LINES)] {
        kill(u32::try_from(fleet.daemons()[controller]).expect("a pid"));
        followed.until_all(number);
    }
    for (name, said) in numbers(&followed.text()) {
        assert_eq!(said, (1..=LINES).collect::<Vec<_>>(), "{name}: each line once, in order");
    }
}
