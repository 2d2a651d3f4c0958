//! YAML 1.2: any number of documents. An alias must have its anchor before it, and is not expanded.

use saphyr_parser::{Event, Parser};

use super::{Fault, MAX_DEPTH};

pub(super) fn check(text: &str) -> Result<(), Fault> {
    // The parser takes NUL for the end of the text.
    if let Some(offset) = text.find('\0') {
        return Err(Fault::at(text, offset, "has the control character U+0000"));
    }
    let mut depth = 0_usize;
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| {
            let at = error.marker();
            Fault { line: at.line(), column: at.col() + 1, why: error.info().to_owned() }
        })?;
        match event {
            Event::SequenceStart(..) | Event::MappingStart(..) => {
                depth += 1;
                if depth > MAX_DEPTH {
                    let why = format!("lies more than {MAX_DEPTH} deep");
                    return Err(Fault { line: span.start.line(), column: span.start.col() + 1, why });
                }
            }
            Event::SequenceEnd | Event::MappingEnd => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}
