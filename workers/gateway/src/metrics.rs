//! The instruments of a worker.

use crate::ending::Ending;
use boot::Process;
use meter::{Counter, Counters, Gauge, Gauges, Histogram, Info, Rule, Time, instruments, labels};

labels! {
    /// What a connection speaks now.
    pub(crate) enum Spoken {
        /// HTTP: polling, handshakes, health.
        Http = "transport=http",
        /// WebSocket.
        Websocket = "transport=websocket",
    }
}

labels! {
    /// How an HTTP request was answered.
    pub(crate) enum Code {
        SwitchingProtocols = "code=101",
        Ok = "code=200",
        NoContent = "code=204",
        BadRequest = "code=400",
        Unauthorized = "code=401",
        Forbidden = "code=403",
        NotFound = "code=404",
        MethodNotAllowed = "code=405",
        Timeout = "code=408",
        TooLarge = "code=413",
        TooMany = "code=429",
        Unavailable = "code=503",
        Other = "code=other",
    }
}

labels! {
    /// Where a session is while a worker has something of it.
    pub(crate) enum Held {
        /// It has a WebSocket here.
        Websocket = "state=websocket",
        /// A poll of it waits here.
        Parked = "state=parked",
    }
}

labels! {
    /// A handshake, and how it ended.
    pub(crate) enum Handshake {
        PollingOk = "transport=polling,result=ok",
        PollingRefused = "transport=polling,result=refused",
        PollingUnavailable = "transport=polling,result=unavailable",
        WebsocketOk = "transport=websocket,result=ok",
        WebsocketRefused = "transport=websocket,result=refused",
        WebsocketUnavailable = "transport=websocket,result=unavailable",
    }
}

labels! {
    /// How an upgrade ended.
    pub(crate) enum Upgrade {
        Ok = "result=ok",
        /// The client broke it off, or Redis was away.
        Failed = "result=failed",
        /// The session was not there, or had a WebSocket already.
        Refused = "result=refused",
        /// Not done within `engine.upgrade_timeout_ms`.
        Timeout = "result=timeout",
    }
}

labels! {
    /// Whether a client got its session back, or why not.
    pub(crate) enum Resume {
        Ok = "result=recovered,reason=none",
        Offset = "result=lost,reason=offset",
        Store = "result=lost,reason=store",
        TakenOver = "result=lost,reason=taken_over",
        TooMany = "result=lost,reason=too_many",
        TooLarge = "result=lost,reason=too_large",
        EndLost = "result=lost,reason=end_lost",
        Trimmed = "result=lost,reason=trimmed",
        Unknown = "result=lost,reason=unknown",
        AnotherUser = "result=lost,reason=another_user",
        Refused = "result=lost,reason=refused",
    }
}

labels! {
    /// Why a session or a WebSocket ended: the words of [`Ending`].
    pub(crate) enum Why {
        ClientLeft = "reason=client_left",
        ConnectTimeout = "reason=connect_timeout",
        Dismissed = "reason=dismissed",
        Drain = "reason=drain",
        Kicked = "reason=kicked",
        LogLost = "reason=log_lost",
        OverBudget = "reason=over_budget",
        Overlap = "reason=overlap",
        PayloadTooLarge = "reason=payload_too_large",
        PingTimeout = "reason=ping_timeout",
        Protocol = "reason=protocol",
        SlowClient = "reason=slow_client",
        StoreUnavailable = "reason=store_unavailable",
        TakenOver = "reason=taken_over",
        TransportClosed = "reason=transport_closed",
        TransportError = "reason=transport_error",
    }
}

labels! {
    /// What carried an event to its client.
    pub(crate) enum Carried {
        Polling = "transport=polling",
        Websocket = "transport=websocket",
    }
}

labels! {
    /// What was done about a slow client.
    pub(crate) enum Slow {
        /// Its connection or session was ended.
        Closed = "action=closed",
        /// A volatile event was not sent.
        Dropped = "action=dropped",
    }
}

labels! {
    /// Limits.
    pub(crate) enum Limit {
        /// `limits.buffers_bytes_max`: a connection was closed for it, or a body was not read.
        Buffers = "limit=buffers",
        /// `limits.connections_max`: further connections wait in the accept queue.
        Connections = "limit=connections",
        /// The process may have no more file descriptors.
        Descriptors = "limit=descriptors",
        /// `limits.handshakes_max`.
        Handshakes = "limit=handshakes",
        /// `limits.outbox_bytes_max`.
        Outbox = "limit=outbox",
        /// `engine.max_payload_bytes`.
        Payload = "limit=payload",
        /// Ids of publishes that are remembered.
        Ids = "limit=ids",
        /// `limits.events_per_second`, `limits.bytes_per_second`: a client is read later.
        Rate = "limit=rate",
        /// `socket.rooms_max`.
        Rooms = "limit=rooms",
        /// The name of a user, 256 bytes.
        User = "limit=user",
    }
}

labels! {
    /// Why entries are missing.
    pub(crate) enum Reset {
        RedisLostData = "reason=redis_lost_data",
        Trimmed = "reason=trimmed",
    }
}

labels! {
    /// What became of something from outside.
    pub(crate) enum Ingested {
        Refused = "result=refused",
        Taken = "result=taken",
    }
}

labels! {
    /// Why a WebSocket did not move.
    pub(crate) enum Stayed {
        /// Something was under way for too long.
        Busy = "reason=busy",
        /// Much of a message had been read.
        LargeMessage = "reason=large_message",
        /// No other worker would, or could, take it.
        Refused = "reason=refused",
    }
}

instruments! {
    /// What one worker counts.
    pub(crate) struct Metrics {
        /// Running builds: of the supervisor and of its workers.
        pub(crate) build: Info = "gw_build_info", "version", boot::VERSION;
        /// Log lines that could not be written: nothing reads standard error, or not fast enough, or the disk is full.
        pub(crate) log_dropped: Counters<Process> = "gw_log_lines_dropped_total";
        /// Open TCP connections of clients.
        pub(crate) connections: Gauges<Spoken> = "gw_connections", Rule::EachSum;
        /// The most that a worker takes: limits.connections_max, or what its descriptors allow.
        pub(crate) connections_max: Gauge = "gw_connections_max", Rule::Each;
        /// What clients make a worker keep: messages and bodies that are not complete, and what is not read.
        pub(crate) buffers: Gauge = "gw_buffers_bytes", Rule::EachSum;
        /// The most that it may be: limits.buffers_bytes_max.
        pub(crate) buffers_max: Gauge = "gw_buffers_bytes_max", Rule::Each;
        /// Polling sessions that began on the worker and have joined no namespace yet, as far as it knows.
        pub(crate) unsettled: Gauge = "gw_unsettled_sessions", Rule::EachSum;
        /// WebSockets that have not taken all that was written to them last: their clients are slow.
        pub(crate) slow: Gauge = "gw_slow_connections", Rule::EachSum;
        /// Sessions of which a worker holds something; no worker holds a polling session between two requests.
        pub(crate) sessions: Gauges<Held> = "gw_sessions", Rule::EachSum;
        /// 1 if clients should be sent to the worker.
        pub(crate) ready: Gauge = "gw_worker_ready", Rule::Each;
        /// 1 if the last exchange with Redis worked and the log's connection is up.
        pub(crate) redis_up: Gauge = "gw_redis_up", Rule::Each;
        /// Time since the worker has heard of the log: an entry, or a canary.
        pub(crate) canary_age: Gauge = "gw_canary_age_seconds", Rule::Age;
        /// Number of the latest entry of the log that the worker has seen.
        pub(crate) position: Gauge = "gw_log_position", Rule::Each;
        /// Recent entries that the worker keeps in memory: at most log.ring_bytes_max.
        pub(crate) ring: Gauge = "gw_ring_bytes", Rule::EachSum;
        /// 1 for the worker that reads what others put into Redis for our clients.
        pub(crate) ingest_leader: Gauge = "gw_ingest_leader", Rule::Each;
        /// WebSockets and parked polls that a draining worker still has.
        pub(crate) drain_remaining: Gauge = "gw_drain_remaining", Rule::EachSum;
        /// Resident memory.
        pub(crate) rss: Gauge = "gw_worker_rss_bytes", Rule::EachSum;
        /// Processor time of all workers there have been.
        pub(crate) cpu: Time = "gw_cpu_seconds_total";
        /// How late the event loop came to its heartbeat.
        pub(crate) lag: Histogram = "gw_loop_lag_seconds", LAGS;
        /// Connections of clients that were accepted.
        pub(crate) accepted: Counter = "gw_accepted_total";
        /// Requests, by the status of their answers.
        pub(crate) requests: Counters<Code> = "gw_http_requests_total";
        /// Requests and upgrades of polling sessions that began on another worker.
        pub(crate) foreign: Counter = "gw_foreign_requests_total";
        /// Engine.IO handshakes.
        pub(crate) handshakes: Counters<Handshake> = "gw_handshakes_total";
        /// Upgrades from polling to WebSocket.
        pub(crate) upgrades: Counters<Upgrade> = "gw_upgrades_total";
        /// Clients that came back for their session.
        pub(crate) resumes: Counters<Resume> = "gw_resume_total";
        /// Events that a WebSocket client had missed and got when it came back.
        pub(crate) recovered: Histogram = "gw_recovered_events", EVENTS;
        /// Ends of sessions and WebSockets here; those that moved to another worker have not ended.
        pub(crate) ends: Counters<Why> = "gw_disconnects_total";
        /// Events of clients.
        pub(crate) events_in: Counter = "gw_events_in_total";
        /// Events of clients that the application does not know.
        pub(crate) unknown_events: Counter = "gw_unknown_events_total";
        /// Events for clients, by what carried them; acks are not events.
        pub(crate) events_out: Counters<Carried> = "gw_events_out_total";
        /// What was done about clients that read too slowly.
        pub(crate) slow_consumers: Counters<Slow> = "gw_slow_consumer_total";
        /// Times that a limit was reached.
        pub(crate) limits: Counters<Limit> = "gw_limits_reached_total";
        /// Entries of the log that came to workers; each entry comes to each worker.
        pub(crate) entries: Counter = "gw_log_entries_total";
        /// Bytes of the log that were read again for clients that had missed them.
        pub(crate) reread: Counter = "gw_log_reread_bytes_total";
        /// Times that entries of the log were missing for good.
        pub(crate) resets: Counters<Reset> = "gw_log_resets_total";
        /// How long a canary took through Redis and back to the worker that had sent it.
        pub(crate) canary: Histogram = "gw_log_round_trip_seconds", LAGS;
        /// Keys that Redis threw away because it was full: sessions and the log may be among them.
        pub(crate) evicted: Counter = "gw_redis_evicted_keys_total";
        /// Events and orders from outside, read from Redis.
        pub(crate) ingested: Counters<Ingested> = "gw_ingested_total";
        /// How long an event from outside lay in its stream, by the clocks of Redis and of the worker.
        pub(crate) ingest_lag: Histogram = "gw_ingest_lag_seconds", LAGS;
        /// WebSockets handed to another worker.
        pub(crate) moved: Counter = "gw_handover_moved_total";
        /// WebSockets taken over from another worker.
        pub(crate) taken: Counter = "gw_handover_taken_total";
        /// WebSockets that were to move and stayed.
        pub(crate) stayed: Counters<Stayed> = "gw_handover_stayed_total";
        /// How long WebSockets were still while they moved.
        pub(crate) freeze: Histogram = "gw_handover_freeze_seconds", LAGS;
        /// Sessions whose worker had died, and that were closed here so that their clients can come back to them.
        pub(crate) swept: Counter = "gw_swept_sessions_total";
    }
}

/// Of [`Metrics::lag`] (seconds).
const LAGS: &[f64] = &[0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0];

/// Of [`Metrics::recovered`].
const EVENTS: &[f64] = &[0.0, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0];

impl Code {
    pub(crate) const fn of(status: http::StatusCode) -> Self {
        match status.as_u16() {
            101 => Self::SwitchingProtocols,
            200 => Self::Ok,
            204 => Self::NoContent,
            400 => Self::BadRequest,
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 => Self::NotFound,
            405 => Self::MethodNotAllowed,
            408 => Self::Timeout,
            413 => Self::TooLarge,
            429 => Self::TooMany,
            503 => Self::Unavailable,
            _ => Self::Other,
        }
    }
}

impl Why {
    /// Nothing, if nothing ended.
    pub(crate) const fn of(ending: &Ending) -> Option<Self> {
        Some(match ending {
            Ending::ClientLeft => Self::ClientLeft,
            Ending::ConnectTimeout => Self::ConnectTimeout,
            Ending::Dismissed => Self::Dismissed,
            Ending::Drain => Self::Drain,
            Ending::EngineProtocol(_) | Ending::Protocol(_) => Self::Protocol,
            Ending::Kicked => Self::Kicked,
            Ending::LogLost => Self::LogLost,
            Ending::Moved => return None,
            Ending::OverBudget => Self::OverBudget,
            Ending::Overlap => Self::Overlap,
            Ending::PayloadTooLarge => Self::PayloadTooLarge,
            Ending::PingTimeout => Self::PingTimeout,
            Ending::SlowClient => Self::SlowClient,
            Ending::StoreUnavailable => Self::StoreUnavailable,
            Ending::TakenOver => Self::TakenOver,
            Ending::TransportClosed => Self::TransportClosed,
            Ending::BadFrame(..) | Ending::TransportError(_) => Self::TransportError,
        })
    }
}

impl Metrics {
    /// A client has got what it had missed.
    #[expect(clippy::cast_precision_loss, reason = "at most recovery.entries_max")]
    pub(crate) fn note_recovered(&self, events: usize) {
        self.recovered.observe(events as f64);
    }

    /// A session or a WebSocket has ended here.
    pub(crate) fn ended(&self, ending: &Ending) {
        if let Some(why) = Why::of(ending) {
            self.ends.one(why);
        }
        match ending {
            Ending::OverBudget => self.limits.one(Limit::Buffers),
            Ending::PayloadTooLarge => self.limits.one(Limit::Payload),
            Ending::SlowClient => {
                self.limits.one(Limit::Outbox);
                self.slow_consumers.one(Slow::Closed);
            }
            Ending::BadFrame(..)
            | Ending::ClientLeft
            | Ending::ConnectTimeout
            | Ending::Dismissed
            | Ending::Drain
            | Ending::EngineProtocol(_)
            | Ending::Kicked
            | Ending::LogLost
            | Ending::Moved
            | Ending::Overlap
            | Ending::PingTimeout
            | Ending::Protocol(_)
            | Ending::StoreUnavailable
            | Ending::TakenOver
            | Ending::TransportClosed
            | Ending::TransportError(_) => {}
        }
    }
}
