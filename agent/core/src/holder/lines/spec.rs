//! From what a template says about output to what the holder is told.

use ostler_schemas::spec::{OutputTo, Overflow, ProcessTemplate};

use crate::holder::protocol::{LogSpec, LogTo};

/// Where the output of a process goes, below a folder that the host knows.
#[must_use]
pub fn spec(template: &ProcessTemplate) -> LogSpec {
    let logs = &template.logs;
    LogSpec {
        dir: String::new(),
        file_max: logs.max_size.as_bytes(),
        files: logs.max_files,
        keep_s: logs.keep_after_exit.as_millis() / 1_000,
        block: match logs.overflow {
            Overflow::Drop => false,
            Overflow::Block => true,
        },
        stdout: to(template.standard_output),
        stderr: to(template.standard_error),
    }
}

const fn to(output: OutputTo) -> LogTo {
    match output {
        OutputTo::File => LogTo::File,
        OutputTo::Journal => LogTo::Journal,
        OutputTo::Null => LogTo::Null,
    }
}
