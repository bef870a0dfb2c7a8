//! What a process costs while a test runs.

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
