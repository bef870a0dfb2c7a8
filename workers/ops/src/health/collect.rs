//! What a report is made of.

use super::verdict::{self, Verdict};
use crate::fleet::{Fleet, slot_of};
use crate::{Context, Redis, StatusError};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};
use store::{Info, Inspector, Latency, LogState, Offset, Spread, StoreError, Transport};

/// After this a worker that is not behind has told so: the interval of its heartbeats, and a little more.
const BEAT: Duration = Duration::from_millis(300);
/// How often each command is measured.
const LATENCY_ROUNDS: usize = 50;

/// A report. The names of what Redis says are Redis' own, as in the guide.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// When, in UTC.
    pub(super) timestamp: String,
    pub(super) verdict: Verdict,
    /// Why it is not better.
    pub(super) reasons: Vec<String>,
    /// What could not be seen, and why.
    pub(super) could_not_see: Vec<String>,
    pub(super) redis_url: Option<String>,
    pub(super) basic: Section,
    pub(super) connections: Section,
    pub(super) memory: Section,
    pub(super) performance: Section,
    pub(super) sessions: Option<Sessions>,
    pub(super) latency_ms: Option<LatencyMs>,
    pub(super) log: Option<Log>,
    pub(super) supervisor: Option<Supervisor>,
    pub(super) workers: Vec<Worker>,
}

/// Fields of `INFO`, in order.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Section(pub(super) serde_json::Map<String, serde_json::Value>);

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Sessions {
    pub(super) total: u64,
    pub(super) polling: u64,
    pub(super) websocket: u64,
    /// By the worker in the record: that holds the WebSocket, or served the polling session first.
    pub(super) by_worker: BTreeMap<String, ByTransport>,
}

#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct ByTransport {
    pub(super) slot: Option<u16>,
    pub(super) polling: u64,
    pub(super) websocket: u64,
}

/// What a Redis refuses that takes no writes is missing.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct LatencyMs {
    pub(super) ping: Option<SpreadMs>,
    pub(super) get: SpreadMs,
    pub(super) set: Option<SpreadMs>,
}

impl LatencyMs {
    /// What was measured, by name.
    pub(super) fn measured(&self) -> impl Iterator<Item = (&'static str, SpreadMs)> {
        let all = [("ping", self.ping), ("get", Some(self.get)), ("set", self.set)];
        all.into_iter().filter_map(|(name, spread)| Some((name, spread?)))
    }
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct SpreadMs {
    pub(super) p50: f64,
    pub(super) p99: f64,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Log {
    /// Position of the latest entry.
    pub(super) head: String,
    pub(super) entries: u64,
    pub(super) batches: u64,
    /// Since the latest canary.
    pub(super) canary_age_ms: Option<u64>,
    /// How far back the log reaches.
    pub(super) reach_ms: Option<u64>,
    /// Workers of all machines that are subscribed to it.
    pub(super) tailers: Option<u64>,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Supervisor {
    pub(super) pid: u32,
    pub(super) state: String,
    pub(super) uptime_s: u64,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct Worker {
    pub(super) slot: u16,
    pub(super) pid: Option<u32>,
    pub(super) state: String,
    pub(super) connections: u64,
    pub(super) sessions: u64,
    pub(super) restarts: u64,
    /// Entries of the log that it has not heard, a heartbeat after they were written.
    pub(super) behind: Option<u64>,
}

/// Makes reports.
pub(super) struct Collector<'a> {
    context: &'a Context,
    /// One connection for all reports; none without Redis.
    inspector: Option<Result<Inspector, StoreError>>,
}

impl<'a> Collector<'a> {
    pub(super) fn new(context: &'a Context) -> Self {
        Self {
            context,
            inspector: context.redis.as_ref().map(Redis::inspector),
        }
    }

    pub(super) async fn report(&self) -> Report {
        let mut report = Report {
            timestamp: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            verdict: Verdict::Healthy,
            reasons: Vec::new(),
            could_not_see: Vec::new(),
            redis_url: self.context.redis.as_ref().map(|redis| redis.url.clone()),
            basic: Section::default(),
            connections: Section::default(),
            memory: Section::default(),
            performance: Section::default(),
            sessions: None,
            latency_ms: None,
            log: None,
            supervisor: None,
            workers: Vec::new(),
        };
        let mut seen = verdict::Seen::default();
        let (info, latency);
        let mut log = None;
        match &self.inspector {
            None => report
                .could_not_see
                .push("sessions, log: redis.enabled = false, they are in the memory of the one worker".to_owned()),
            Some(Err(error)) => seen.redis_down = Some(error.to_string()),
            Some(Ok(inspector)) => match inspector.latency(LATENCY_ROUNDS).await {
                Err(error) => seen.redis_down = Some(error.to_string()),
                Ok(measured) => {
                    latency = measured;
                    report.latency_ms = Some((&latency).into());
                    if let Some(error) = &latency.unwritable {
                        report.unseen("latency of writes", error);
                    }
                    seen.latency = Some(&latency);
                    info = report.add_info(inspector).await;
                    seen.info = info.as_ref();
                    log = report.add_log(inspector).await;
                    seen.tailers = report.log.as_ref().and_then(|log| log.tailers);
                    report.add_sessions(inspector).await;
                }
            },
        }
        let head = log.as_ref().map(|log| log.head);
        let fleet = self.fleet(head).await;
        match &fleet {
            Ok(fleet) => {
                report.add_fleet(fleet, head);
                seen.fleet = Some(fleet);
            }
            Err(error) => seen.no_fleet = error.to_string(),
        }
        seen.log = log.as_ref();
        (report.verdict, report.reasons) = verdict::of(self.context, &seen);
        report
    }

    /// The fleet, with positions in the log that are later than when its head was looked at.
    async fn fleet(&self, head: Option<Offset>) -> Result<Fleet, StatusError> {
        let fleet = self.context.fleet()?;
        let late = |head| {
            fleet
                .workers
                .iter()
                .any(|worker| worker.behind(head).is_some_and(|behind| behind > 0))
        };
        if head.is_some_and(late) {
            tokio::time::sleep(BEAT).await;
            return self.context.fleet();
        }
        Ok(fleet)
    }
}

impl Report {
    fn unseen(&mut self, what: &str, error: &StoreError) {
        self.could_not_see.push(format!("{what}: {error}"));
    }

    fn add_fleet(&mut self, fleet: &Fleet, head: Option<Offset>) {
        let supervisor = &fleet.supervisor;
        self.supervisor = Some(Supervisor {
            pid: supervisor.pid,
            state: supervisor.state.clone(),
            uptime_s: supervisor.uptime_s,
        });
        let workers = fleet.workers.iter().map(|worker| Worker {
            slot: worker.slot,
            pid: worker.pid,
            state: worker.state.clone(),
            connections: worker.connections,
            sessions: worker.sessions,
            restarts: worker.restarts,
            behind: head.and_then(|head| worker.behind(head)),
        });
        self.workers = workers.collect();
    }

    async fn add_info(&mut self, inspector: &Inspector) -> Option<Info> {
        let info = match inspector.info().await {
            Ok(info) => info,
            Err(error) => {
                self.unseen("memory, connections, performance", &error);
                self.add_greeting(inspector).await;
                return None;
            }
        };
        let take = |names: &[&str]| {
            let fields = names.iter().filter_map(|name| {
                let text = info.text(name)?;
                let value = text.parse::<u64>().map_or_else(|_| text.into(), Into::into);
                Some(((*name).to_owned(), value))
            });
            Section(fields.collect())
        };
        self.basic = take(&[
            "redis_version",
            "valkey_version",
            "redis_mode",
            "role",
            "uptime_in_seconds",
        ]);
        self.connections = take(&[
            "connected_clients",
            "blocked_clients",
            "maxclients",
            "total_connections_received",
            "rejected_connections",
        ]);
        self.memory = take(&[
            "used_memory_human",
            "used_memory_peak_human",
            "used_memory_rss_human",
            "maxmemory_human",
            "maxmemory_policy",
            "mem_fragmentation_ratio",
            "evicted_keys",
            "expired_keys",
        ]);
        self.performance = take(&[
            "instantaneous_ops_per_sec",
            "instantaneous_input_kbps",
            "instantaneous_output_kbps",
            "total_commands_processed",
            "keyspace_hits",
            "keyspace_misses",
        ]);
        Some(info)
    }

    /// What is known of a Redis without `INFO`.
    async fn add_greeting(&mut self, inspector: &Inspector) {
        match inspector.greeting().await {
            Ok(greeting) => {
                let basic = &mut self.basic.0;
                basic.insert("redis_version".to_owned(), greeting.version.into());
                basic.insert("redis_mode".to_owned(), greeting.mode.into());
                basic.insert("role".to_owned(), greeting.role.into());
            }
            Err(error) => self.unseen("version", &error),
        }
    }

    async fn add_log(&mut self, inspector: &Inspector) -> Option<LogState> {
        let log = match inspector.log().await {
            Ok(log) => log,
            Err(error) => {
                self.unseen("log", &error);
                return None;
            }
        };
        let tailers = match inspector.tailers().await {
            Ok(tailers) => Some(tailers),
            Err(error) => {
                self.unseen("tailers", &error);
                None
            }
        };
        let millis = |age: Duration| u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        self.log = Some(Log {
            head: log.head.to_string(),
            entries: log.entries,
            batches: log.batches,
            canary_age_ms: log.canary_age.map(millis),
            reach_ms: log.reach.map(millis),
            tailers,
        });
        Some(log)
    }

    async fn add_sessions(&mut self, inspector: &Inspector) {
        match sessions(inspector).await {
            Ok(sessions) => self.sessions = Some(sessions),
            Err(error) => self.unseen("sessions", &error),
        }
    }
}

async fn sessions(inspector: &Inspector) -> Result<Sessions, StoreError> {
    let mut sessions = Sessions::default();
    // A scan may show one twice.
    let mut seen = std::collections::HashSet::new();
    let mut cursor = 0;
    loop {
        let (next, records) = inspector.sessions(cursor).await?;
        for record in records {
            if !seen.insert(record.sid) {
                continue;
            }
            let slot = slot_of(&record.worker);
            let held = sessions.by_worker.entry(record.worker).or_default();
            held.slot = slot;
            let (all, here) = match record.transport {
                Transport::Polling => (&mut sessions.polling, &mut held.polling),
                Transport::Websocket => (&mut sessions.websocket, &mut held.websocket),
            };
            *all += 1;
            *here += 1;
            sessions.total += 1;
        }
        if next == 0 {
            return Ok(sessions);
        }
        cursor = next;
    }
}

impl From<&Latency> for LatencyMs {
    fn from(latency: &Latency) -> Self {
        Self {
            ping: latency.ping.map(Into::into),
            get: latency.get.into(),
            set: latency.set.map(Into::into),
        }
    }
}

impl From<Spread> for SpreadMs {
    fn from(spread: Spread) -> Self {
        let millis = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        Self {
            p50: millis(spread.p50),
            p99: millis(spread.p99),
        }
    }
}
