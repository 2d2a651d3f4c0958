//! TOML: also that no key is given twice and no table is made twice, which belongs to its grammar.

use toml::de::DeTable;

use super::Fault;

pub(super) fn check(text: &str) -> Result<(), Fault> {
    DeTable::parse(text).map(drop).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        Fault::at(text, offset, error.message())
    })
}
