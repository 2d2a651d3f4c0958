//! The whole API over the model of the bus: real subjects, real permissions, real transactions.

mod changes;
mod hostile;
mod logs;
mod reads;
mod rig;
