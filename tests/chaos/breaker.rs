//! Who breaks the server: faults in an order that a seed decides.

use crate::harness::{NetworkFault, Proxy, Server, ms, pass, signal};
use nix::sys::signal::Signal;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// Something that happens to a running fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL of a worker.
    KillWorker,
    /// SIGSTOP of a worker, for less or more than its supervisor tolerates.
    FreezeWorker,
    /// SIGKILL of the supervisor, which is started again.
    KillSupervisor,
    /// SIGHUP.
    Reload,
    /// SIGKILL of Redis, which comes back with its append-only file.
    KillRedis,
    /// SIGSTOP of Redis.
    FreezeRedis,
    /// `CLIENT PAUSE`.
    PauseRedis,
    /// `CLIENT KILL TYPE normal` and `pubsub`.
    CutRedis,
    /// The clients' connections are reset, and new ones refused.
    CutLink,
    /// No byte passes between clients and server.
    FreezeLink,
    /// Every chunk of bytes takes its time.
    SlowLink,
}

impl Fault {
    pub(crate) const ALL: [Self; 11] = [
        Self::KillWorker,
        Self::FreezeWorker,
        Self::KillSupervisor,
        Self::Reload,
        Self::KillRedis,
        Self::FreezeRedis,
        Self::PauseRedis,
        Self::CutRedis,
        Self::CutLink,
        Self::FreezeLink,
        Self::SlowLink,
    ];
}

/// Breaks `server`, about once in each `pause`, for `CHAOS_SECONDS`; at the end everything is whole again.
/// Counts in `struck`.
pub(crate) async fn rage(
    server: &mut Server,
    proxy: &Proxy,
    faults: &[Fault],
    pause: Duration,
    seed: u64,
    struck: &Cell<u64>,
) {
    let mut dice = fastrand::Rng::with_seed(seed);
    let end = Instant::now() + Duration::from_secs(crate::seconds());
    while Instant::now() < end {
        rest(server, pause.mul_f64(0.5 + dice.f64()), &mut dice).await;
        let Some(fault) = dice.choice(faults) else { break };
        eprintln!("{fault:?}");
        strike(server, proxy, *fault, &mut dice).await;
        struck.set(struck.get() + 1);
    }
}

/// Lets `span` pass; workers that stopped by themselves are woken after a while.
async fn rest(server: &Server, span: Duration, dice: &mut fastrand::Rng) {
    let end = Instant::now() + span;
    while Instant::now() < end {
        pass(ms(dice.u64(50..400))).await;
        for worker in server.workers().into_iter().filter(|pid| is_stopped(*pid)) {
            signal(worker, Signal::SIGCONT);
        }
    }
}

/// proc(5): the state stands behind the name.
fn is_stopped(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

async fn strike(server: &mut Server, proxy: &Proxy, fault: Fault, dice: &mut fastrand::Rng) {
    match fault {
        Fault::KillWorker => {
            if let Some(worker) = dice.choice(server.workers()) {
                signal(worker, Signal::SIGKILL);
            }
        }
        Fault::FreezeWorker => {
            if let Some(worker) = dice.choice(server.workers()) {
                signal(worker, Signal::SIGSTOP);
                pass(ms(dice.u64(100..4000))).await;
                signal(worker, Signal::SIGCONT);
            }
        }
        Fault::KillSupervisor => server.supervisor_dies_and_comes_back().await,
        Fault::Reload => server.signal(Signal::SIGHUP),
        Fault::KillRedis => {
            server.redis_mut().kill();
            pass(ms(dice.u64(0..1500))).await;
            server.redis_mut().again().await;
        }
        Fault::FreezeRedis => {
            server.redis().signal(Signal::SIGSTOP);
            pass(ms(dice.u64(100..2500))).await;
            server.redis().signal(Signal::SIGCONT);
        }
        Fault::PauseRedis => {
            let span = dice.u64(100..2000).to_string();
            server.redis().command(&["CLIENT", "PAUSE", &span]).await;
        }
        Fault::CutRedis => {
            for kind in ["normal", "pubsub"] {
                server.redis().command(&["CLIENT", "KILL", "TYPE", kind]).await;
            }
        }
        Fault::CutLink => network_fault(proxy, NetworkFault::Cut, ms(dice.u64(10..2000))).await,
        Fault::FreezeLink => network_fault(proxy, NetworkFault::Frozen, ms(dice.u64(10..2000))).await,
        Fault::SlowLink => network_fault(proxy, NetworkFault::Slow(ms(20)), ms(dice.u64(10..2000))).await,
    }
}

async fn network_fault(proxy: &Proxy, fault: NetworkFault, span: Duration) {
    proxy.set(fault);
    pass(span).await;
    proxy.set(NetworkFault::None);
}
