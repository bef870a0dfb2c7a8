//! The guide's six tests of Redis.

use super::Sheet;
use crate::output::millis;
use crate::{Context, Redis};
use std::io;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use store::{Endpoint, Inspector, Record, Sid, Spread, Transport};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// The server programs that the supervisor would start.
const PROGRAMS: [&str; 2] = ["redis-server", "valkey-server"];
/// How often each command is measured.
const LATENCY_ROUNDS: usize = 100;
/// What the guide calls excellent.
const EXCELLENT: Duration = Duration::from_millis(10);

pub(super) async fn test(context: &Context, sheet: &mut Sheet) -> io::Result<()> {
    let Some(redis) = &context.redis else {
        sheet.test("📦", "Checking Redis Installation")?;
        return sheet.note("not needed: redis.enabled = false, sessions are in the memory of the one worker");
    };
    sheet.test("📦", "Checking Redis Installation")?;
    installation(redis, sheet)?;
    sheet.test("🔌", "Checking Redis Server Status")?;
    let listens = listens(redis).await;
    let place = &redis.options.endpoint;
    sheet.outcome(
        &listens,
        &format!("Redis server is running ({place})"),
        &format!("nothing accepts at {place}"),
    )?;
    sheet.test("🔗", "Testing Redis Connectivity")?;
    let connected = async { redis.inspector()?.ping().await };
    let connected = connected.await;
    sheet.outcome(
        &connected,
        "Redis connectivity test passed",
        "Redis does not answer PING",
    )?;
    let (Ok(_), Ok(inspector)) = (connected, redis.inspector()) else {
        return sheet.note("the other tests of Redis are left out");
    };
    sheet.test("⚙️ ", "Testing Basic Operations")?;
    operations(&inspector, sheet).await?;
    sheet.test("🔐", "Testing Session Storage Pattern")?;
    session(context, &inspector, sheet).await?;
    sheet.test("⚡", "Testing Redis Performance")?;
    performance(&inspector, sheet).await
}

fn installation(redis: &Redis, sheet: &mut Sheet) -> io::Result<()> {
    if !redis.managed {
        return sheet.passed(&format!("not needed on this machine: redis.url is {}", redis.url));
    }
    let version = |program: &&str| {
        let output = Command::new(program).arg("--version").output().ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    match PROGRAMS.iter().find_map(version) {
        Some(version) => sheet.passed(&format!("Redis installed: {version}")),
        None => sheet.failed("neither redis-server nor valkey-server is in PATH: sudo apt-get install redis-server"),
    }
}

/// Whether a server accepts connections there.
async fn listens(redis: &Redis) -> io::Result<()> {
    let connected = async {
        match &redis.options.endpoint {
            Endpoint::Tcp { host, port } | Endpoint::Tls { host, port } => {
                TcpStream::connect((host.as_str(), *port)).await.map(drop)
            }
            Endpoint::Unix { path } => UnixStream::connect(path).await.map(drop),
        }
    };
    timeout(redis.options.connect_timeout, connected).await?
}

async fn operations(inspector: &Inspector, sheet: &mut Sheet) -> io::Result<()> {
    let name = format!("{:016x}", fastrand::u64(..));
    let set = inspector.try_set(&name, "hello").await;
    sheet.outcome(&set, "SET operation successful", "SET operation failed")?;
    match inspector.try_get(&name).await {
        Ok(Some(value)) if value == "hello" => sheet.passed("GET operation successful")?,
        Ok(other) => sheet.failed(&format!("GET operation failed: {other:?} instead of what was set"))?,
        Err(error) => sheet.failed(&format!("GET operation failed: {error}"))?,
    }
    match inspector.try_delete(&name).await {
        Ok(true) => sheet.passed("DEL operation successful"),
        Ok(false) => sheet.failed("DEL operation failed: the key had gone"),
        Err(error) => sheet.failed(&format!("DEL operation failed: {error}")),
    }
}

async fn session(context: &Context, inspector: &Inspector, sheet: &mut Sheet) -> io::Result<()> {
    let mut random = [0; 15];
    random.fill_with(|| fastrand::u8(..));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_millis()).unwrap_or_default();
    let sid = Sid::from_random(random);
    let record = Record::new(sid, Transport::Polling, "selftest".to_owned(), String::new(), now);
    let ttl = context.limits.session_ttl;
    let trial = match inspector.try_session(&record, ttl).await {
        Ok(trial) => trial,
        Err(error) => return sheet.failed(&format!("Session storage failed: {error}")),
    };
    sheet.passed("Session storage successful")?;
    if trial.same {
        sheet.passed("Session retrieval successful")?;
    } else {
        sheet.failed("Session retrieval failed: something else was read")?;
    }
    let kept = trial
        .ttl
        .filter(|kept| *kept <= ttl && *kept + Duration::from_secs(1) >= ttl);
    match kept {
        Some(kept) => sheet.passed(&format!("Session expires after {} s", kept.as_secs_f64().round()))?,
        None => sheet.failed(&format!("Session lifetime is {:?}, not {ttl:?}", trial.ttl))?,
    }
    if trial.cleaned {
        sheet.passed("Session cleaned up, in the same step: no count includes it")
    } else {
        sheet.failed("Session not cleaned up")
    }
}

async fn performance(inspector: &Inspector, sheet: &mut Sheet) -> io::Result<()> {
    let latency = match inspector.latency(LATENCY_ROUNDS).await {
        Ok(latency) => latency,
        Err(error) => return sheet.failed(&format!("latency not measured: {error}")),
    };
    if let Some(error) = latency.unwritable {
        return sheet.failed(&format!("latency not measured: {error}"));
    }
    let shown = |name: &str, spread: Spread| format!("{name} {} / {} ms", millis(spread.p50), millis(spread.p99));
    let get = latency.get;
    let (ping, set) = (latency.ping.unwrap_or_default(), latency.set.unwrap_or_default());
    let all = [shown("ping", ping), shown("get", get), shown("set", set)].join(", ");
    sheet.passed(&format!("Latency (p50 / p99): {all}"))?;
    let worst = ping.p50.max(get.p50).max(set.p50);
    if worst < EXCELLENT {
        sheet.passed("Latency is excellent (<10ms)")
    } else {
        sheet.failed(&format!(
            "Latency is high: {} ms; `anyworker doctor` looks for causes",
            millis(worst)
        ))
    }
}
