//! Everything breaks while stock clients publish and listen, and nothing acked may be lost, doubled or
//! reordered. The faults follow from a seed that is printed; `SEED=n` and `CHAOS_SECONDS=n` choose.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

extern crate harness;

mod breaker;
mod diary;

use breaker::Fault;
use diary::Diary;
use harness::{NetworkFault, Plan, Program, Proxy, Server, ms, node, pass};
use std::cell::Cell;
use std::time::{Duration, Instant};

/// How long each test breaks things, unless `CHAOS_SECONDS` says otherwise.
const SECONDS: u64 = 12;

/// What clients may need to come to rest after the last fault.
const REST: Duration = Duration::from_secs(120);

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn seconds() -> u64 {
    number("CHAOS_SECONDS").unwrap_or(SECONDS)
}

fn clients(proxy: &Proxy) -> Program {
    node("chaos.mjs")
        .arg("--url", &proxy.url())
        .arg("--seconds", &seconds().to_string())
        .limit(Duration::from_secs(seconds()) + REST)
}

/// A fleet over a Redis that keeps its word.
fn plan() -> Plan {
    Plan::new().durable_redis().with(
        r"
        workers = { grace_ms = 3000 }
        log = { publish_timeout_ms = 5000 }
        ",
    )
}

/// The diary of `program`, written while `harm` is done.
async fn written_during(program: Program, harm: impl Future<Output = ()>) -> Diary {
    let (diary, content) = tokio::select! {
        ended = program.run() => ended,
        () = async { harm.await; std::future::pending().await } => unreachable!("it waits for ever"),
    };
    assert!(content);
    serde_json::from_value(diary).expect("a diary")
}

fn summary(diary: &Diary) -> String {
    let acked = diary.published.iter().filter(|published| published.acked).count();
    let recovered: u64 = diary.members.iter().map(|member| member.recovered).sum();
    let mut away = diary.resumed_ms.clone();
    away.sort_unstable();
    let median = away.get(away.len() / 2);
    format!(
        "{} published, {acked} acked, {} members, {recovered} recovered, away {median:?} ms (median)",
        diary.published.len(),
        diary.members.len()
    )
}

/// The faults rage over clients; what those wrote down must be clean.
async fn survives(mut server: Server, faults: &[Fault], pause: Duration) {
    let seed = number("SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("replay with SEED={seed}");
    let proxy = Proxy::start(server.addr).await;
    let struck = Cell::new(0);
    let storm = breaker::rage(&mut server, &proxy, faults, pause, seed, &struck);
    let diary = written_during(clients(&proxy), storm).await;
    eprintln!("{}", summary(&diary));
    let verdict = diary.verdict();
    assert!(verdict.is_clean(), "SEED={seed}: {verdict}; silent: {:?}", diary.silent);
    assert!(struck.get() > 0, "nothing was broken");
}

#[tokio::test]
async fn everything_breaks() {
    survives(plan().start().await, &Fault::ALL, ms(1500)).await;
}

#[tokio::test]
async fn redis_breaks() {
    let faults = [
        Fault::KillRedis,
        Fault::FreezeRedis,
        Fault::PauseRedis,
        Fault::CutRedis,
        Fault::CutLink,
    ];
    survives(plan().start().await, &faults, ms(1500)).await;
}

/// The network is away for 2 s of every 5 s, for clients of all kinds.
#[tokio::test]
async fn a_train_ride() {
    let server = plan().start().await;
    let proxy = Proxy::start(server.addr).await;
    let tunnels = async {
        for _ in 0..seconds() / 5 {
            pass(ms(3000)).await;
            proxy.set(NetworkFault::Cut);
            pass(ms(2000)).await;
            proxy.set(NetworkFault::None);
        }
    };
    let program = clients(&proxy).arg("--members", "100");
    let diary = written_during(program, tunnels).await;
    eprintln!("{}", summary(&diary));
    let verdict = diary.verdict();
    assert!(verdict.is_clean(), "{verdict}; silent: {:?}", diary.silent);
    assert!(
        diary.members.iter().all(|member| member.recovered > 0),
        "nothing was felt"
    );
}

/// Workers that die between any two steps of the protocol, and whose clock jumps to and fro.
#[cfg(feature = "faults")]
#[tokio::test]
async fn workers_die_at_every_step() {
    // Rare enough that the fleet is not taken for a crash loop.
    let points = "kill@appended=600,kill@pollasked=3000,kill@pollanswered=3000,kill@probed=100,kill@resuming=150,\
                  kill@resumed=150,jump@clock=20";
    let server = plan().env("FAULT_POINTS", points).start().await;
    survives(server, &[Fault::CutLink, Fault::KillWorker], ms(2000)).await;
}

/// Workers that stop between any two steps of the protocol, while others and their supervisor go on, and wake up later.
#[cfg(feature = "faults")]
#[tokio::test]
async fn workers_sleep_at_every_step() {
    let points = "stop@appended=300,stop@pollasked=1000,stop@pollanswered=1000,stop@probed=50,stop@resuming=40,\
                  stop@resumed=40";
    let server = plan().env("FAULT_POINTS", points).start().await;
    survives(server, &[Fault::CutLink, Fault::KillWorker, Fault::CutLink], ms(2000)).await;
}

/// Redis is stopped for long, half a minute if there is time: WebSockets stay open, memory is bounded, and everything
/// that was missed is made good.
#[tokio::test]
async fn redis_is_away_for_long() {
    let mut server = plan().with("log = { publish_timeout_ms = 2000 }").start().await;
    let proxy = Proxy::start(server.addr).await;
    let away = Duration::from_secs((seconds() / 3).clamp(5, 30));
    let before = resident(&server);
    let grown = Cell::new(0);
    let outage = async {
        pass(ms(3000)).await;
        server.redis_mut().kill();
        let end = Instant::now() + away;
        while Instant::now() < end {
            pass(ms(200)).await;
            grown.set(grown.get().max(resident(&server).saturating_sub(before)));
        }
        server.redis_mut().again().await;
    };
    let diary = written_during(clients(&proxy), outage).await;
    eprintln!(
        "{}; away for {away:?}, workers grew by {} bytes",
        summary(&diary),
        grown.get()
    );
    let verdict = diary.verdict();
    assert!(verdict.is_clean(), "{verdict}; silent: {:?}", diary.silent);
    assert!(
        diary.published.iter().any(|published| !published.acked),
        "no client felt it"
    );
    let felt: Vec<_> = diary.members.iter().filter(|member| member.recovered > 0).collect();
    assert!(felt.iter().all(|member| member.way == "polling"), "closed: {felt:?}");
    assert!(grown.get() < 64 << 20, "{} bytes more", grown.get());
}

/// Resident bytes of all workers together.
fn resident(server: &Server) -> u64 {
    let pages = |pid: u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
        text.split(' ')
            .nth(1)
            .and_then(|word| word.parse::<u64>().ok())
            .unwrap_or_default()
    };
    server.workers().into_iter().map(pages).sum::<u64>() * 4096
}

/// The judge must be worth its name: a build that loses or doubles something now and then is caught.
#[cfg(feature = "faults")]
#[tokio::test]
async fn a_build_that_drops_or_doubles_is_caught() {
    for points in ["drop@delivered=300", "double@delivered=300"] {
        let server = plan().env("FAULT_POINTS", points).start().await;
        let proxy = Proxy::start(server.addr).await;
        let program = clients(&proxy)
            .arg("--seconds", "4")
            .arg("--patience", "3")
            .arg("--transports", "websocket");
        let diary = written_during(program, async {}).await;
        let verdict = diary.verdict();
        eprintln!("{points}: {}; {verdict}", summary(&diary));
        let found = if points.starts_with("drop") {
            &verdict.lost
        } else {
            &verdict.doubled
        };
        assert!(!found.is_empty(), "{points}: {verdict}");
    }
}
