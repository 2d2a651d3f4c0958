//! What users ask for, kind by kind.
