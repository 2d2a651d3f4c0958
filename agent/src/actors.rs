//! The actors of one agent. Each does four things per wake and no thinking: takes a snapshot, calls the core, carries
//! out what it said, tells.
//!
//! ```text
//!   root -+- ledger     writes what survives, many changes at a time
//!         +- host       the connection to the holder: listings and exits
//!         +- registry --+-- process (one each), file (one each)
//!         |             documents, templates, who may start
//!         +- acts       what follows changes of files: actions, probes
//!         +- bus        beats, hints, reconnects, registration
//!         +- reporter   the report, guarded and coalesced
//!         +- events     the story, best effort
//!         +- relay      orders of the control plane (logs, usage)
//!         +- pressure   looks at the host: usage, pressure, work outside
//!         +- shipper    output of namespaces that ship it, to the bus
//! ```

pub(crate) mod acts;
pub(crate) mod bus;
pub(crate) mod events;
pub(crate) mod file;
pub(crate) mod host;
pub(crate) mod ledger;
pub(crate) mod pressure;
pub(crate) mod process;
pub(crate) mod registry;
pub(crate) mod relay;
pub(crate) mod reporter;
pub(crate) mod root;
pub(crate) mod shipper;
