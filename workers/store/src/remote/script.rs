//! The scripts that run inside Redis.

use redis::{Cmd, Script as Source};

/// Room for the arguments of a usual call, and for their bytes.
const CALL_ARGS: usize = 24;
const CALL_BYTES: usize = 1024;

/// A script, and the SHA-1 that Redis knows it by.
pub(super) struct Script {
    /// Name of the operation, for errors.
    pub(super) op: &'static str,
    source: Source,
    text: String,
}

impl Script {
    fn new(op: &'static str, parts: &[&str]) -> Self {
        let text = parts.concat();
        Self {
            op,
            source: Source::new(&text),
            text,
        }
    }

    /// The command that runs it with `keys`; its arguments are to follow.
    pub(super) fn call(&self, keys: &[String]) -> Cmd {
        let mut cmd = Cmd::with_capacity(CALL_ARGS, CALL_BYTES);
        cmd.arg("EVALSHA").arg(self.source.get_hash()).arg(keys.len()).arg(keys);
        cmd
    }

    /// What Redis runs.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The command that makes it known.
    pub(super) fn load(&self) -> Cmd {
        let mut cmd = redis::cmd("SCRIPT");
        cmd.arg("LOAD").arg(&self.text);
        cmd
    }
}

macro_rules! scripts {
    ($($name:ident = [$($part:literal),+]),+ $(,)?) => {
        /// All of them.
        pub(super) struct Scripts {
            $(pub(super) $name: Script,)+
        }

        impl Scripts {
            pub(super) fn new() -> Self {
                Self {
                    $($name: Script::new(
                        stringify!($name),
                        &[$(include_str!(concat!("../../scripts/", $part, ".lua"))),+],
                    ),)+
                }
            }
        }
    };
}

scripts! {
    amend = ["common", "lease", "amend"],
    app_begin = ["app_common", "app_begin"],
    app_due = ["common", "app_common", "app_due"],
    app_lease = ["common", "app_common", "app_lease"],
    app_put = ["common", "app_common", "app_put"],
    app_read = ["app_common", "app_read"],
    app_write = ["log_functions_begin", "common", "log", "log_functions_end", "app_common", "app_write", "append_end"],
    append = ["log_functions_begin", "common", "log", "log_functions_end", "append", "append_end"],
    canary = ["common", "log", "canary"],
    create = ["common", "create"],
    end = ["lease", "end"],
    head = ["common", "log", "head"],
    lead = ["common", "lead"],
    look = ["common", "look"],
    poll = ["common", "lease", "poll"],
    poll_release = ["poll_release"],
    post_begin = ["common", "lease", "post_begin"],
    post_finish = ["common", "lease", "post_finish"],
    range = ["range"],
    resign = ["resign"],
    resolve = ["resolve"],
    save = ["lease", "save"],
    takeover = ["lease", "takeover"],
    trace = ["trace"],
    trial = ["trial"],
    upgrade = ["common", "lease", "upgrade"],
}
