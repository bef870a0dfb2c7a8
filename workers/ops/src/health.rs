//! `anyworker health`: one look at Redis and the fleet.

use crate::{Context, UNAVAILABLE};
use std::io::{self, Write};

pub(crate) async fn run(context: &Context, json: bool) -> io::Result<u8> {
    let text = match context.fleet() {
        Ok(fleet) => {
            let supervisor = &fleet.supervisor;
            let ready = fleet.workers.iter().filter(|worker| worker.state == "ready").count();
            let (pid, state, up) = (supervisor.pid, &supervisor.state, supervisor.uptime_s);
            format!(
                "supervisor {pid} is {state}, up {up} s, {ready} of {} workers ready",
                context.workers
            )
        }
        Err(error) => error.to_string(),
    };
    if !json {
        writeln!(io::stdout(), "{text}")?;
    }
    let Some(redis) = &context.redis else {
        writeln!(io::stdout(), "redis.enabled = false: there is no Redis to ask")?;
        return Ok(0);
    };
    let pinged = match redis.inspector() {
        Ok(inspector) => inspector.ping().await,
        Err(error) => Err(error),
    };
    match pinged {
        Ok(took) if json => writeln!(io::stdout(), "{{\"ping_us\":{}}}", took.as_micros())?,
        Ok(took) => writeln!(io::stdout(), "{}: PONG after {took:?}", redis.url)?,
        Err(error) => {
            writeln!(io::stderr(), "{}: {error}", redis.url)?;
            return Ok(UNAVAILABLE);
        }
    }
    Ok(0)
}
