//! The unit that starts the supervisor.

use super::findings::Findings;
use super::root::Root;
use super::unit::{Unit, parse_span};
use crate::fleet::Fleet;
use crate::output::span;
use crate::{Context, StatusError};
use std::time::Duration;

/// The unit of the packages.
const UNIT: &str = "anyworker.service";
/// `TimeoutStopSec=` of a unit that says nothing.
const STOP_DEFAULT: Duration = Duration::from_secs(90);
/// From the end of the grace to the end of the workers, and then of the managed Redis.
const KILL_MARGIN: Duration = Duration::from_secs(2);
const REDIS_STOP: Duration = Duration::from_secs(10);
/// Descriptors that a unit gives if it says nothing (systemd 240 and newer).
const NOFILE_DEFAULT: u64 = 524_288;
/// A supervisor on a busy machine may be late by this.
const WATCHDOG_MIN: Duration = Duration::from_secs(3);

const CHECKS: [&str; 5] = [
    "systemd.type",
    "systemd.drain_budget",
    "systemd.kill_mode",
    "systemd.nofile",
    "systemd.watchdog",
];

pub(super) fn examine(context: &Context, fleet: Result<&Fleet, &StatusError>, root: &Root, findings: &mut Findings) {
    let running = fleet.ok().and_then(|fleet| unit_of(root, fleet.supervisor.pid));
    let name = running.as_deref().unwrap_or(UNIT);
    let unit = match Unit::find(name, root) {
        Ok(Some(unit)) => unit,
        Ok(None) => {
            let why = match (running, fleet) {
                (Some(name), _) => format!("the supervisor runs in {name}, whose file is not there"),
                (None, Ok(_)) => format!("the supervisor was not started by systemd, and there is no {UNIT}"),
                (None, Err(error)) => format!("there is no {UNIT}; {error}"),
            };
            return findings.unseen("systemd", why);
        }
        Err(why) => return CHECKS.into_iter().for_each(|check| findings.unseen(check, why.clone())),
    };
    let notifies = unit.get("Type").is_some_and(|kind| kind.starts_with("notify"));
    kind(&unit, notifies, findings);
    drain_budget(context, &unit, notifies, findings);
    kill_mode(context, &unit, findings);
    descriptors(context, &unit, findings);
    watchdog(&unit, notifies, findings);
}

/// The unit that a process runs in, by its control group.
fn unit_of(root: &Root, pid: u32) -> Option<String> {
    let groups = root.read(&format!("/proc/{pid}/cgroup")).ok()?;
    let line = groups
        .lines()
        .find(|line| line.starts_with("0::") || line.contains(":name=systemd:"))?;
    let name = line.rsplit('/').next()?;
    name.ends_with(".service").then(|| name.to_owned())
}

/// What to write where, so that a setting is another.
fn drop_in(unit: &Unit, setting: &str) -> String {
    let name = unit.path.rsplit('/').next().unwrap_or(UNIT);
    format!("sudo systemctl edit {name}, and write:\n[Service]\n{setting}\nthen sudo systemctl daemon-reload")
}

fn kind(unit: &Unit, notifies: bool, findings: &mut Findings) {
    const CHECK: &str = "systemd.type";
    let kind = unit.get("Type").unwrap_or("simple");
    let evidence = format!("Type={kind} ({})", unit.path);
    if notifies {
        findings.pass(CHECK, evidence);
    } else {
        let why = format!("{evidence}: systemd does not know when the fleet serves, nor that a drain takes its time");
        findings.warn(CHECK, why, drop_in(unit, "Type=notify"));
    }
}

fn drain_budget(context: &Context, unit: &Unit, notifies: bool, findings: &mut Findings) {
    const CHECK: &str = "systemd.drain_budget";
    let managed = context.redis.as_ref().is_some_and(|redis| redis.managed);
    let need = context.grace + KILL_MARGIN + if managed { REDIS_STOP } else { Duration::ZERO };
    let said = unit.get("TimeoutStopSec").or_else(|| unit.get("TimeoutSec"));
    let timeout = match said.map(parse_span) {
        None => STOP_DEFAULT,
        // Zero means without end, as infinity does.
        Some(Some(Duration::ZERO)) => Duration::MAX,
        Some(Some(timeout)) => timeout,
        Some(None) => {
            let text = said.unwrap_or_default();
            return findings.unseen(
                CHECK,
                format!("TimeoutStopSec={text} ({}) is not understood", unit.path),
            );
        }
    };
    let shown = said.map_or_else(|| "90 s, the default".to_owned(), str::to_owned);
    let evidence = format!(
        "TimeoutStopSec={shown} ({}); workers.grace_ms is {}, all of a stop {}",
        unit.path,
        span(context.grace),
        span(need)
    );
    let remedy = drop_in(unit, &format!("TimeoutStopSec={}", need.as_secs() + 5));
    if timeout >= need {
        findings.pass(CHECK, evidence);
    } else if notifies && unit.get("NotifyAccess") != Some("none") {
        let why = format!("{evidence}: only what the supervisor asks systemd for keeps the drain from being cut");
        findings.warn(CHECK, why, remedy);
    } else {
        findings.fail(
            CHECK,
            format!("{evidence}: the drain is cut short, and clients are not informed"),
            remedy,
        );
    }
}

fn kill_mode(context: &Context, unit: &Unit, findings: &mut Findings) {
    const CHECK: &str = "systemd.kill_mode";
    let mode = unit.get("KillMode").unwrap_or("control-group");
    let evidence = format!("KillMode={mode} ({})", unit.path);
    let remedy = drop_in(unit, "KillMode=mixed");
    match mode {
        "mixed" | "process" => findings.pass(CHECK, evidence),
        _ if context.redis.as_ref().is_some_and(|redis| redis.managed) => {
            findings.fail(
                CHECK,
                format!("{evidence}: a stop ends the managed Redis before the workers have drained"),
                remedy,
            );
        }
        _ => findings.warn(
            CHECK,
            format!("{evidence}: a stop signals every worker beside its supervisor"),
            remedy,
        ),
    }
}

fn descriptors(context: &Context, unit: &Unit, findings: &mut Findings) {
    const CHECK: &str = "systemd.nofile";
    let said = unit.get("LimitNOFILE");
    let hard = said.and_then(|limit| limit.rsplit(':').next());
    let limit = match hard {
        None => Some(NOFILE_DEFAULT),
        Some("infinity") => Some(u64::MAX),
        Some(number) => number.parse().ok(),
    };
    let Some(limit) = limit else {
        return findings.unseen(
            CHECK,
            format!("LimitNOFILE={} is not understood", said.unwrap_or_default()),
        );
    };
    let clients = u64::try_from(context.limits.connections_max).unwrap_or(u64::MAX);
    let need = clients.saturating_add(context.limits.descriptors_reserved);
    let evidence = format!(
        "LimitNOFILE={} ({}), a worker needs {need} at most",
        said.unwrap_or("524288, the default"),
        unit.path
    );
    if limit >= need {
        findings.pass(CHECK, evidence);
    } else {
        findings.warn(
            CHECK,
            evidence,
            drop_in(unit, &format!("LimitNOFILE={}", need.max(NOFILE_DEFAULT))),
        );
    }
}

fn watchdog(unit: &Unit, notifies: bool, findings: &mut Findings) {
    const CHECK: &str = "systemd.watchdog";
    let remedy = drop_in(unit, "WatchdogSec=15");
    match unit.get("WatchdogSec").map(|text| (text, parse_span(text))) {
        None | Some((_, Some(Duration::ZERO))) => {
            let why = format!(
                "no WatchdogSec ({}): a supervisor that hangs is not replaced",
                unit.path
            );
            findings.warn(CHECK, why, remedy);
        }
        Some((text, Some(limit))) if limit < WATCHDOG_MIN => {
            let why = format!(
                "WatchdogSec={text} ({}): a busy machine looks like a hung supervisor",
                unit.path
            );
            findings.warn(CHECK, why, remedy);
        }
        Some((text, Some(_))) if !notifies => {
            let why = format!("WatchdogSec={text} ({}) with a Type other than notify", unit.path);
            findings.warn(CHECK, why, drop_in(unit, "Type=notify"));
        }
        Some((text, Some(_))) => findings.pass(CHECK, format!("WatchdogSec={text} ({})", unit.path)),
        Some((text, None)) => findings.unseen(CHECK, format!("WatchdogSec={text} is not understood")),
    }
}
