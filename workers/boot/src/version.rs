//! Which build this is.

/// What this binary is called in `status` and logs: `ANYWORKER_VERSION` of the environment it was
/// built in (packagers name their builds by it), else the version of the package.
pub const VERSION: &str = match option_env!("ANYWORKER_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};
