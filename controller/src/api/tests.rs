//! The whole API over the model of the bus: real subjects, real permissions, real transactions.

mod again;
mod changes;
mod hostile;
mod large;
mod logs;
mod reads;
mod rig;
