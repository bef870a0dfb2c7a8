//! What a server costs while a test runs: its metrics, its memory, and that of its Redis.

use super::{Redis, Request, Resp, Server, ask, soon, until};

impl Server {
    /// The sum of what a metric says, over all lines that begin with `name` and contain `label`.
    pub async fn metric(&self, name: &str, label: &str) -> f64 {
        let page = soon("a scrape", ask(self.admin, Request::get("/metrics"))).await;
        let page = page.expect("a page");
        let is_wanted = |line: &&str| line.starts_with(name) && line.contains(label);
        page.text()
            .lines()
            .filter(is_wanted)
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }

    /// Waits until a metric is as `wanted`: workers tell theirs once a second.
    pub async fn metric_when(&self, name: &str, label: &str, wanted: impl Fn(f64) -> bool) {
        until(name, async || wanted(self.metric(name, label).await).then_some(())).await;
    }
}

impl Redis {
    /// A number that `INFO` tells.
    pub async fn info(&self, section: &str, field: &str) -> f64 {
        let Resp::Text(info) = self.command(&["INFO", section]).await else {
            panic!("INFO is a text")
        };
        let line = info.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
        line.expect("the field").trim().parse().expect("a number")
    }
}

/// A line of `/proc/<pid>/status` in bytes: `VmRSS`, what the process has in memory, or `VmHWM`, the most it had.
pub fn process_memory(pid: u32, field: &str) -> usize {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a process");
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{field}:")));
    let kib = line.expect("the field").trim().trim_end_matches(" kB");
    kib.parse::<usize>().expect("a number") << 10
}

/// From now on `VmHWM` of a process is the most it has had since (proc(5), `clear_refs`).
pub fn forget_peak(pid: u32) {
    std::fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("a process of ours");
}
