//! From YAML text to checked objects, with every finding located.
