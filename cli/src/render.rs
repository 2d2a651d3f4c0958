//! From data to text; nothing here asks anybody anything.

pub mod amounts;
pub mod columns;
pub mod describe;
pub mod diff;
pub mod events;
pub mod form;
pub mod jsonpath;
pub mod lines;
pub mod object;
pub mod table;
pub mod top;
