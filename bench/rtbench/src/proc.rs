//! CPU time and memory of process trees, read from `/proc`.

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::unistd::{SysconfVar, sysconf};
use std::collections::{BTreeMap, HashSet};
use std::fs;

/// Descriptors that a run with many connections needs: asked for if the hard limit can be raised.
const DESCRIPTORS_WANTED: u64 = 200_000;

struct Stat {
    parent: i32,
    /// utime + stime + cutime + cstime (clock ticks), see `proc_pid_stat(5)`.
    ticks: u64,
}

fn read_stat(pid: i32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may contain spaces and parentheses: the other fields follow the last ')'.
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    let number = |nth: usize| fields.get(nth).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        ticks: (11..=14).map(number).sum(),
    })
}

/// The roots that are alive and all their living descendants.
pub(crate) fn tree(roots: &[i32]) -> Vec<i32> {
    let mut children: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    let mut alive = HashSet::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        if let Some(stat) = read_stat(pid) {
            alive.insert(pid);
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut pending: Vec<i32> = roots.iter().copied().filter(|pid| alive.contains(pid)).collect();
    while let Some(pid) = pending.pop() {
        if seen.insert(pid) {
            found.push(pid);
            pending.extend(children.get(&pid).into_iter().flatten().copied());
        }
    }
    found
}

/// CPU seconds of the tree. A child that has exited is counted in its parent's `cutime` once the parent has waited for
/// it, so the difference of two calls is right as long as the roots live.
pub(crate) fn cpu(roots: &[i32]) -> f64 {
    let ticks_per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100) as f64;
    let ticks: u64 = tree(roots)
        .into_iter()
        .filter_map(read_stat)
        .map(|stat| stat.ticks)
        .sum();
    ticks as f64 / ticks_per_second
}

/// Proportional set size of the tree (KiB).
pub(crate) fn pss_kib(roots: &[i32]) -> u64 {
    let pss = |pid: i32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()
    };
    tree(roots).into_iter().filter_map(pss).sum()
}

/// CPU seconds of this tool: when they come near the wall time, the tool is the bottleneck.
pub(crate) fn own_cpu() -> f64 {
    let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) else {
        return 0.0;
    };
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

/// Raises the limit of open files as far as this process may.
pub(crate) fn raise_descriptor_limit() {
    let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    let more = hard.max(DESCRIPTORS_WANTED);
    if setrlimit(Resource::RLIMIT_NOFILE, DESCRIPTORS_WANTED, more).is_err() {
        // Only root may raise the hard limit. Whatever the limit is then, the run reports what fails.
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).ok();
    }
}
