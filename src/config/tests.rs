//! Whole configurations, from files to faults.
