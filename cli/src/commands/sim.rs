//! `sim`: finds what a simulated fleet needs, and becomes the program that runs it.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::args::Global;
use crate::args::sim::{Agents, Sim};
use crate::context::Contexts;
use crate::dev::fleet::program;
use crate::failure::Failure;

/// Runs it. Returns only if that cannot be begun.
///
/// # Errors
/// When something is missing.
pub fn run(global: &Global, sim: &Sim) -> Result<(), Failure> {
    let Sim::Agents(args) = sim;
    let program = program("ostler-sim")?;
    let error = Command::new(&program).args(words(global, args)?).exec();
    Err(Failure::local(&format!("cannot start {}", program.display()), error))
}

fn words(global: &Global, args: &Agents) -> Result<Vec<OsString>, Failure> {
    let file = fleet(global, args)?;
    let mut words: Vec<OsString> = vec!["--fleet".into(), file.into()];
    let mut number = |flag: &str, value: u64| words.extend([flag.into(), value.to_string().into()]);
    number("--nodes", args.nodes.into());
    number("--first", args.first.into());
    number("--latency-ms", u64::try_from(args.latency.to_std().as_millis()).unwrap_or(u64::MAX));
    let (texts, permille) = failures(&args.fail)?;
    number("--fail-permille", permille.into());
    for text in texts {
        words.push(format!("--fail={text}").into());
    }
    if let Some(file) = &args.ready_file {
        words.extend(["--ready-file".into(), file.into()]);
    }
    Ok(words)
}

/// The file of the simulated nodes of a prefix.
fn fleet(global: &Global, args: &Agents) -> Result<PathBuf, Failure> {
    let setup = match &args.setup {
        Some(setup) => setup.clone(),
        None => {
            let (name, context) = Contexts::of_user()?.resolve(global.context.as_deref())?;
            // OUT/operators/NAME/operator.nk
            let setup = context.credentials.ancestors().nth(3).map(Path::to_path_buf);
            setup.ok_or_else(|| {
                Failure::message(format!(
                    "the key of context {name} lies in no folder of ostler setup: give --setup"
                ))
            })?
        }
    };
    let file = setup.join("simulated").join(&args.prefix).join("fleet.json");
    if file.is_file() {
        return Ok(file);
    }
    let (prefix, count) = (&args.prefix, args.first.saturating_add(args.nodes) - 1);
    Err(Failure::message(format!(
        "{} is not there: this bus knows no simulated nodes {prefix}-…\n\
         next:  ostler dev --simulated {count}, or ostler setup --out {} --simulated {prefix}={count}",
        file.display(),
        setup.display(),
    )))
}

/// `TEXT=SHARE`, the share in percent or from 0 to 1: the texts, and the share of a thousand that all of them have.
fn failures(given: &[String]) -> Result<(Vec<String>, u32), Failure> {
    let mut shares = Vec::new();
    let mut texts = Vec::new();
    for text in given {
        let bad = |why: &str| {
            Failure::message(format!("--fail {text:?}: {why}; write TEXT=SHARE, for example --fail 'bad=5%'"))
        };
        // The text may hold a = itself.
        let (what, share) = text.rsplit_once('=').ok_or_else(|| bad("there is no ="))?;
        if what.is_empty() {
            return Err(bad("the text is empty"));
        }
        shares.push(permille(share).ok_or_else(|| bad("that is no share"))?);
        texts.push(what.to_owned());
    }
    let share = shares.first().copied().unwrap_or(0);
    if shares.iter().any(|other| *other != share) {
        return Err(Failure::message("--fail: all texts have the same share, for the same nodes fail"));
    }
    Ok((texts, share))
}

fn permille(text: &str) -> Option<u32> {
    let (number, whole) = match text.strip_suffix('%') {
        Some(number) => (number, 100.0),
        None => (text, 1.0),
    };
    let share = number.parse::<f64>().ok()? / whole;
    // In range, so nothing is cut off.
    (0.0..=1.0).contains(&share).then(|| (share * 1_000.0).round() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn shares_are_percent_or_parts_of_one() {
        assert_eq!(failures(&owned(&["bad=5%"])).expect("parses"), (owned(&["bad"]), 50));
        assert_eq!(failures(&owned(&["a = 1=0.125"])).expect("parses"), (owned(&["a = 1"]), 125));
        assert_eq!(failures(&[]).expect("parses"), (Vec::new(), 0));
        for bad in ["bad", "=5%", "bad=x", "bad=101%", "bad=-1%", "bad=NaN"] {
            assert!(failures(&owned(&[bad])).is_err(), "{bad}");
        }
        assert!(failures(&owned(&["a=1%", "b=2%"])).is_err());
    }
}
