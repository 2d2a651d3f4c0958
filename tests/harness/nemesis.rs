//! What goes wrong in a random run.
