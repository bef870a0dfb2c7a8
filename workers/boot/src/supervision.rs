//! What the supervisor counts itself. Declared here, since a worker writes the page.

use crate::version::VERSION;
use meter::{Counter, Counters, Gauge, Gauges, Info, Rule, instruments, labels};

labels! {
    /// Why a worker ended without being told to.
    pub enum Restart {
        /// It was not ready in time.
        Boot = "reason=boot",
        /// Its configuration cannot work.
        Config = "reason=config",
        /// Redis was not there.
        Dependency = "reason=dependency",
        /// It exited.
        Exit = "reason=exit",
        /// Its event loop was silent for too long.
        Hung = "reason=hung",
        /// It was killed from outside; out of memory, most often.
        Killed = "reason=killed",
        /// A signal ended it: it crashed.
        Signal = "reason=signal",
    }
}

labels! {
    /// How a reload or an upgrade ended.
    pub enum ReloadResult {
        /// The new generation serves.
        Done = "result=done",
        /// It was rolled back.
        Failed = "result=failed",
        /// Nothing was tried: configuration or binary cannot work.
        Refused = "result=refused",
    }
}

labels! {
    /// Where workers are in their life.
    pub enum WorkerState {
        /// Told to abort, or about to exit.
        Aborting = "state=aborting",
        /// A slot that waits until it may have a worker again.
        Backoff = "state=backoff",
        /// Not ready yet.
        Booting = "state=booting",
        /// Sends its clients away, or stops.
        Draining = "state=draining",
        /// Silent for two seconds.
        Lagging = "state=lagging",
        /// Serves.
        Ready = "state=ready",
    }
}

labels! {
    /// Which processes wrote, or could not write.
    pub enum Process {
        /// The supervisor.
        Supervisor = "process=supervisor",
        /// The workers.
        Worker = "process=worker",
    }
}

instruments! {
    /// What the supervisor counts itself.
    pub struct Supervision {
        /// Running builds: of the supervisor and of its workers.
        pub build: Info = "gw_build_info", "version", VERSION;
        /// When the supervisor started (seconds since 1970); an upgrade does not change it.
        pub started: Gauge = "gw_start_time_seconds", Rule::Max;
        /// The configuration and binary in effect, numbered from 1.
        pub generation: Gauge = "gw_generation", Rule::Max;
        /// Configured number of slots.
        pub slots: Gauge = "gw_slots", Rule::Max;
        /// Workers, by what they are doing; backoff: slots that wait for one.
        pub workers: Gauges<WorkerState> = "gw_workers", Rule::Max;
        /// 1 during a crash loop, while only one slot is tried at a time.
        pub degraded: Gauge = "gw_degraded", Rule::Max;
        /// 1 while workers are being replaced.
        pub reloading: Gauge = "gw_reloading", Rule::Max;
        /// How long a worker has been silent; it beats every quarter of a second.
        pub silent: Gauge = "gw_worker_silent_seconds", Rule::Each;
        /// Workers that exited unasked, and were replaced.
        pub restarts: Counters<Restart> = "gw_worker_restarts_total";
        /// Workers ever started.
        pub spawned: Counter = "gw_workers_spawned_total";
        /// Reloads, and the reloads that upgrades end with.
        pub reloads: Counters<ReloadResult> = "gw_reloads_total";
        /// Times the supervisor has continued as another binary.
        pub upgrades: Counter = "gw_supervisor_upgrades_total";
        /// Times the supervisor ran late, because the machine or its process was stopped.
        pub late: Counter = "gw_supervisor_late_total";
        /// Log lines that could not be written: nothing reads standard error, or not fast enough, or the disk is full.
        pub log_dropped: Counters<Process> = "gw_log_lines_dropped_total";
    }
}
