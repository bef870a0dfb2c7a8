//! `anyworker doctor`: looks for what will go wrong, and says how it knows and what to do. It changes nothing, guesses
//! nothing, and needs no command that may have been renamed away: what it cannot see it says.

mod evidence;
mod exposure;
mod findings;
mod kernel;
mod promise;
mod proxy;
mod root;
mod secrets;
mod systemd;
mod unit;

use crate::Context;
use crate::output::Script;
use crate::printer;
use evidence::Evidence;
use findings::Findings;
use root::Root;
use std::io::{self, Write};
use std::path::PathBuf;

/// What the command line asks for.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) json: bool,
    /// Where clients connect, through whatever stands before the fleet.
    pub(crate) url: Option<String>,
    /// What stands for `/`.
    pub(crate) root: PathBuf,
}

/// Examines everything; exits 0 if nothing was found, 1 with warnings, 2 with faults.
pub(crate) async fn run(context: &Context, options: Options) -> io::Result<u8> {
    let mut findings = Findings::default();
    let root = Root::new(options.root);
    let fleet = context.fleet();
    if let Some(redis) = &context.redis {
        let evidence = Evidence::gather(redis, &root).await;
        exposure::examine(redis, fleet.as_ref().ok(), &evidence, &root, &mut findings);
        exposure::directory(redis, &mut findings);
        promise::examine(context, redis, &evidence, &mut findings);
    } else {
        findings.unseen(
            "redis",
            "redis.enabled = false: sessions are in the memory of the one worker, and end with it",
        );
    }
    kernel::examine(context, fleet.as_ref(), &root, &mut findings);
    systemd::examine(context, fleet.as_ref(), &root, &mut findings);
    secrets::examine(context, fleet.as_ref(), &root, &mut findings);
    match &options.url {
        Some(url) => proxy::examine(context, url, &mut findings).await,
        None => findings.unseen("proxy", "no --url: name the URL that clients connect to"),
    }
    let text = if options.json {
        findings.json()?
    } else {
        findings.text(Script::of_locale())
    };
    let mut out = printer::stdout();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(findings.code())
}
