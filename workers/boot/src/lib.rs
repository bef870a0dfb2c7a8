//! The contract between supervisor and worker: the only types that cross the process boundary
