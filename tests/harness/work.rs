//! What the operator of a random run asks for, and what must be there in the end.
//!
//! The history of an object is folded into the set of states that it may have: an acknowledged request moves all of
//! them, one of unknown outcome adds to them, a refused one does nothing.
