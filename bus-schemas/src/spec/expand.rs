//! `$(NAME)` in commands, arguments and variables.
//!
//! `$(NAME)` stands for a variable when NAME could be the name of one; `$$(` is `$(` literally; everything else is
//! what it is, so that `$(ls -l)` of a shell line needs no care. The checker and the agent both use this module.

/// One piece of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Taken as it is.
    Literal(&'a str),
    /// Stands for the variable of that name.
    Variable(&'a str),
}

/// Whether `text` can be the name of a variable: `[A-Za-z_][A-Za-z0-9_]*`.
#[must_use]
pub fn is_variable_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The pieces of a text, in order.
#[must_use]
pub fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut out = Vec::new();
    let mut rest = text;
    let mut literal = 0;
    while let Some(at) = rest[literal..].find('$').map(|found| literal + found) {
        let after = &rest[at + 1..];
        if after.starts_with("$(") {
            // The first dollar goes, the second and its bracket stay.
            out.push(Piece::Literal(&rest[..at]));
            rest = after;
            literal = 2;
            continue;
        }
        let name = after.strip_prefix('(').and_then(|inner| inner.split_once(')')).map(|(name, _)| name);
        match name.filter(|name| is_variable_name(name)) {
            Some(name) => {
                out.push(Piece::Literal(&rest[..at]));
                out.push(Piece::Variable(name));
                rest = &after[name.len() + 2..];
                literal = 0;
            }
            None => literal = at + 1,
        }
    }
    out.push(Piece::Literal(rest));
    out.retain(|piece| *piece != Piece::Literal(""));
    out
}

/// The text with its variables filled in.
///
/// # Errors
/// The name of the first variable that `value_of` does not know.
pub fn expand(text: &str, value_of: impl Fn(&str) -> Option<String>) -> Result<String, &str> {
    let mut out = String::with_capacity(text.len());
    for piece in pieces(text) {
        match piece {
            Piece::Literal(literal) => out.push_str(literal),
            Piece::Variable(name) => out.push_str(&value_of(name).ok_or(name)?),
        }
    }
    Ok(out)
}

/// The variable that holds the number of a port: `http-alt` gives `OSTLER_PORT_HTTP_ALT`.
#[must_use]
pub fn port_variable(port_name: &str) -> String {
    format!("OSTLER_PORT_{}", port_name.to_ascii_uppercase().replace('-', "_"))
}

/// Variables that every process has, beside those of its ports.
pub const GIVEN_VARIABLES: [&str; 12] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "OSTLER_NAME",
    "OSTLER_NAMESPACE",
    "OSTLER_NODE",
    "OSTLER_UID",
    "OSTLER_VERSION",
    "OSTLER_ROOT",
    "OSTLER_EPOCH",
];
