//! Connections to Redis: a pool, and one held connection per class, because the pool checks a connection with a
//! round trip each time it is taken. Commands of many requests share a held connection.

use super::login::{Login, connection_info};
use super::refusal::Refusal;
use super::script::Script;
use super::spoken::Spoken;
use super::trust;
use crate::counts::{Counts, Failed, Over};
use crate::error::{Speaks, StoreError};
use crate::options::{Endpoint, RedisOptions};
use deadpool_redis::{Connection, Manager, Pool, Runtime};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, RedisError, Value, aio::MultiplexedConnection, aio::PubSubStream,
};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Commands that wait to be written on one connection.
const PIPELINE_COMMANDS_MAX: usize = 512;

/// How the library for TLS says that no trusted authority has signed a certificate.
const UNKNOWN_ISSUER: &str = "UnknownIssuer";

/// Which held connection a command goes over, so that a large read or a batch does not delay a poll.
#[derive(Clone, Copy, Debug)]
pub(super) enum ConnectionClass {
    Requests = 0,
    Log = 1,
    Bulk = 2,
}

impl ConnectionClass {
    const fn over(self) -> Over {
        match self {
            Self::Requests => Over::Requests,
            Self::Log => Over::Log,
            Self::Bulk => Over::Bulk,
        }
    }
}

/// A held connection.
struct Held {
    /// Tells connections of a class apart.
    number: u64,
    connection: Connection,
}

#[derive(Default)]
struct Slot {
    held: RefCell<Option<Held>>,
    connecting: tokio::sync::Mutex<()>,
    failed: RefCell<Option<(Instant, StoreError)>>,
    /// It had a connection before.
    broken: Cell<bool>,
    /// Number of the latest connection that has answered.
    answered: Cell<u64>,
}

impl Slot {
    /// The connection that is held, and its number.
    fn connection(&self) -> Option<(u64, MultiplexedConnection)> {
        let held = self.held.borrow();
        held.as_ref()
            .map(|h| (h.number, MultiplexedConnection::clone(&h.connection)))
    }
}

/// The way to Redis.
pub(super) struct Link {
    client: Client,
    login: Login,
    pool: Pool,
    slots: Vec<Slot>,
    next: Cell<u64>,
    healthy: Cell<bool>,
    connect_timeout: Duration,
    response_timeout: Duration,
    password: Option<String>,
    endpoint: Endpoint,
    spoken: Spoken,
    counts: Rc<Counts>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("healthy", &self.healthy)
            .finish_non_exhaustive()
    }
}

impl Link {
    /// Prepares; connects to nothing yet.
    pub(super) fn new(options: RedisOptions, counts: &Rc<Counts>) -> Result<Self, StoreError> {
        let refused = |reason: String| StoreError::Refused { op: "open", reason };
        if matches!(options.endpoint, Endpoint::Tls { .. }) {
            // The client's rustls has no cryptography of its own. An error means: there is one already.
            drop(rustls::crypto::ring::default_provider().install_default());
        }
        let info = connection_info(&options).map_err(|e| refused(e.to_string()))?;
        let info = trust::trusting(info, &options).map_err(|reason| StoreError::Corrupt {
            what: "certificates for redis",
            reason,
        })?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(options.connect_timeout))
            .set_response_timeout(Some(options.response_timeout))
            .set_pipeline_buffer_size(PIPELINE_COMMANDS_MAX);
        let client = Client::open(info.clone()).map_err(|e| refused(e.to_string()))?;
        let login = Login::new(&options, &info).map_err(|e| refused(e.to_string()))?;
        let manager = Manager::new_with_config(info, config).map_err(|e| refused(e.to_string()))?;
        let size = options.pool_size.max(1);
        let pool = Pool::builder(manager)
            .max_size(size)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|e| refused(e.to_string()))?;
        Ok(Self {
            client,
            login,
            pool,
            slots: (0..size.min(ConnectionClass::Bulk as usize + 1))
                .map(|_| Slot::default())
                .collect(),
            next: Cell::new(0),
            healthy: Cell::new(false),
            connect_timeout: options.connect_timeout,
            response_timeout: options.response_timeout,
            password: options.password,
            endpoint: options.endpoint,
            spoken: Spoken::default(),
            counts: counts.clone(),
        })
    }

    /// Whether the latest exchange with Redis worked.
    pub(super) fn healthy(&self) -> bool {
        self.healthy.get()
    }

    /// The tailer's connection tells too.
    pub(super) fn set_healthy(&self, healthy: bool) {
        self.healthy.set(healthy);
    }

    /// Runs a command that may be run twice: if the connection broke, once more on a fresh one.
    pub(super) async fn run(&self, class: ConnectionClass, op: &'static str, cmd: &Cmd) -> Result<Value, StoreError> {
        match self.once(class, op, cmd).await {
            Err(Failure { broken: true, .. }) => Box::pin(self.once(class, op, cmd)).await.map_err(|f| f.error),
            Err(failure) => Err(failure.error),
            Ok(value) => Ok(value),
        }
    }

    /// Runs commands on one connection, with nothing of others in between; each has its own outcome.
    pub(super) async fn pipeline(
        &self,
        op: &'static str,
        commands: &redis::Pipeline,
    ) -> Result<Vec<Result<Value, StoreError>>, StoreError> {
        let slot = self
            .slot(ConnectionClass::Requests, op)
            .map_err(|failure| failure.error)?;
        let mut connection = match slot.connection() {
            Some((_, connection)) => connection,
            None => {
                Box::pin(self.connection(slot, op))
                    .await
                    .map_err(|failure| failure.error)?
                    .1
            }
        };
        let answers: Vec<Value> = commands
            .query_async(&mut connection)
            .await
            .map_err(|error| self.error(op, &error))?;
        let outcome = |answer| {
            if let Value::ServerError(error) = answer {
                Err(self.error(op, &RedisError::from(error)))
            } else {
                Ok(answer)
            }
        };
        Ok(answers.into_iter().map(outcome).collect())
    }

    /// Runs a script that may be run twice.
    pub(super) async fn script(&self, class: ConnectionClass, script: &Script, cmd: &Cmd) -> Result<Value, StoreError> {
        match self.script_once(class, script, cmd).await {
            Err(Failure { broken: true, .. }) => Box::pin(self.script_once(class, script, cmd))
                .await
                .map_err(|f| f.error),
            Err(failure) => Err(failure.error),
            Ok(value) => Ok(value),
        }
    }

    /// Runs a script once, after making it known if Redis does not know it (it was restarted).
    pub(super) async fn script_once(
        &self,
        class: ConnectionClass,
        script: &Script,
        cmd: &Cmd,
    ) -> Result<Value, Failure> {
        match self.once(class, script.op, cmd).await {
            Err(Failure {
                unknown_script: true, ..
            }) => {
                Box::pin(self.once(class, script.op, &script.load())).await?;
                Box::pin(self.once(class, script.op, cmd)).await
            }
            other => other,
        }
    }

    async fn once(&self, class: ConnectionClass, op: &'static str, cmd: &Cmd) -> Result<Value, Failure> {
        let slot = self.slot(class, op)?;
        // What is rare is in boxes here: every caller's future would have to have room for it.
        let (number, mut connection) = match slot.connection() {
            Some(held) => held,
            None => Box::pin(self.connection(slot, op)).await?,
        };
        let began = Instant::now();
        let answer = cmd.query_async::<Value>(&mut connection).await;
        self.counts.op.observe(class.over(), began.elapsed().as_secs_f64());
        match answer {
            Ok(value) => {
                slot.answered.set(number);
                self.healthy.set(true);
                Ok(value)
            }
            Err(error) => {
                let mut failure = self.classify(op, &error);
                if slot.answered.get() != number {
                    failure.error = Box::pin(self.named(op, failure.error)).await;
                }
                if !failure.unknown_script {
                    self.counts.failed.one(Failed::of(&failure.error));
                }
                if failure.discard {
                    discard(slot, number);
                    self.healthy.set(false);
                }
                Err(failure)
            }
        }
    }

    fn slot(&self, class: ConnectionClass, op: &'static str) -> Result<&Slot, Failure> {
        let index = class as usize % self.slots.len().max(1);
        let none = || Failure::refused(op, "no connections are allowed".to_owned());
        self.slots.get(index).ok_or_else(none)
    }

    /// The connection of the class; the first caller that finds none makes one, the others wait for the outcome.
    async fn connection(&self, slot: &Slot, op: &'static str) -> Result<(u64, MultiplexedConnection), Failure> {
        let asked = Instant::now();
        let _connecting = slot.connecting.lock().await;
        if let Some(found) = slot.connection() {
            return Ok(found);
        }
        if let Some((when, error)) = slot.failed.borrow().as_ref()
            && *when >= asked
        {
            return Err(Failure::unsent(error.clone()));
        }
        match self.connect(op).await {
            Ok(connection) => {
                let number = self.next.get() + 1;
                self.next.set(number);
                if slot.broken.take() {
                    self.counts.reconnects.one();
                }
                let shared = MultiplexedConnection::clone(&connection);
                slot.held.replace(Some(Held { number, connection }));
                Ok((number, shared))
            }
            Err(error) => {
                self.healthy.set(false);
                self.counts.failed.one(Failed::of(&error));
                slot.failed.replace(Some((Instant::now(), error.clone())));
                Err(Failure::unsent(error))
            }
        }
    }

    async fn connect(&self, op: &'static str) -> Result<Connection, StoreError> {
        // A hung Redis accepts connections and then says nothing.
        let patience = self.connect_timeout + self.response_timeout;
        match timeout(patience, self.pool.get()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(deadpool_redis::PoolError::Backend(error))) => Err(self.setup_error(op, &error).await),
            Ok(Err(error)) => Err(StoreError::Unavailable {
                op,
                reason: error.to_string(),
            }),
            Err(_) => Err(self.named(op, StoreError::Timeout { op, after: patience }).await),
        }
    }

    /// A connection of its own for commands that wait.
    pub(super) async fn connection_of_its_own(&self) -> Result<MultiplexedConnection, StoreError> {
        let op = "connect";
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(None);
        let patience = self.connect_timeout + self.response_timeout;
        let connecting = self.client.get_multiplexed_async_connection_with_config(&config);
        match timeout(patience, connecting).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(self.setup_error(op, &error).await),
            Err(_) => Err(self.named(op, StoreError::Timeout { op, after: patience }).await),
        }
    }

    pub(super) fn response_timeout(&self) -> Duration {
        self.response_timeout
    }

    /// What an error means that ended the making of a connection: if it is of the login, Redis is asked why.
    async fn setup_error(&self, op: &'static str, error: &RedisError) -> StoreError {
        if !Login::failed(error) {
            return self.named(op, self.error(op, error)).await;
        }
        let patience = self.connect_timeout + self.response_timeout;
        match timeout(patience, self.login.retry(self.connect_timeout, self.response_timeout)).await {
            Ok(Err(words)) => self.error(op, &words),
            // It has passed meanwhile.
            Ok(Ok(())) => StoreError::Unavailable {
                op,
                reason: error.to_string(),
            },
            Err(_) => StoreError::Timeout { op, after: patience },
        }
    }

    /// The error of a connection that gave no answer yet, or what stands behind it: the port speaks TLS and the URL says
    /// otherwise, or the reverse.
    async fn named(&self, op: &'static str, error: StoreError) -> StoreError {
        // A Redis without TLS waits in silence for the end of a greeting.
        let is_silent = matches!(error, StoreError::Timeout { .. }) && matches!(self.endpoint, Endpoint::Tls { .. });
        let may_be = is_silent || matches!(error, StoreError::NotRedis { .. } | StoreError::Unavailable { .. });
        let speaks = if may_be {
            self.spoken.instead(&self.endpoint).await
        } else {
            None
        };
        let place = self.endpoint.to_string();
        speaks.map_or(error, |speaks| StoreError::NotRedis { op, place, speaks })
    }

    /// What an error of the client means to us.
    pub(super) fn error(&self, op: &'static str, error: &RedisError) -> StoreError {
        self.classify(op, error).error
    }

    /// A connection of its own that is subscribed to `channels`.
    pub(super) async fn subscribe(&self, channels: &[String]) -> Result<PubSubStream, StoreError> {
        self.subscribe_to(channels, &[]).await
    }

    /// The same, with patterns.
    pub(super) async fn subscribe_to(
        &self,
        channels: &[String],
        patterns: &[String],
    ) -> Result<PubSubStream, StoreError> {
        let op = "subscribe";
        let patience = self.connect_timeout + self.response_timeout;
        let subscribed = async {
            let mut pubsub = self.client.get_async_pubsub().await?;
            if !channels.is_empty() {
                pubsub.subscribe(channels).await?;
            }
            if !patterns.is_empty() {
                pubsub.psubscribe(patterns).await?;
            }
            Ok::<_, RedisError>(pubsub.into_on_message())
        };
        match timeout(patience, subscribed).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(self.setup_error(op, &error).await),
            Err(_) => Err(StoreError::Timeout { op, after: patience }),
        }
    }

    fn classify(&self, op: &'static str, error: &RedisError) -> Failure {
        let mut reason = error.to_string();
        // By Redis' own words: a short password may be a part of any of them.
        let refusal = Refusal::of(error.code(), &reason);
        if let Some(password) = self.password.as_deref().filter(|p| !p.is_empty()) {
            reason = reason.replace(password, "***");
        }
        if error.is_timeout() {
            let error = StoreError::Timeout {
                op,
                after: self.response_timeout,
            };
            return Failure {
                error,
                discard: true,
                sent: true,
                ..Failure::default()
            };
        }
        if error.kind() == ErrorKind::AuthenticationFailed {
            return Failure::unsent(StoreError::Unauthorized { op, reason });
        }
        if error.kind() == ErrorKind::Parse {
            let (place, speaks) = (self.endpoint.to_string(), Speaks::Other);
            return Failure {
                error: StoreError::NotRedis { op, place, speaks },
                discard: true,
                sent: true,
                ..Failure::default()
            };
        }
        if reason.contains(UNKNOWN_ISSUER) {
            reason.push_str("; name the authority of its certificate in redis.ca_file");
        }
        if error.is_io_error() || error.is_connection_dropped() || error.is_unrecoverable_error() {
            let error = StoreError::Unavailable { op, reason };
            return Failure {
                error,
                broken: true,
                discard: true,
                sent: true,
                ..Failure::default()
            };
        }
        // A name without an address: the name server does not know it yet, or not now.
        if error.kind() == ErrorKind::InvalidClientConfig {
            return Failure::unsent(StoreError::Unavailable { op, reason });
        }
        Failure {
            error: refusal.error(op, reason),
            discard: refusal.ends_connection(),
            unknown_script: refusal == Refusal::UnknownScript,
            ..Failure::default()
        }
    }
}

/// Gives a connection up, unless it was replaced already.
fn discard(slot: &Slot, number: u64) {
    let mut held = slot.held.borrow_mut();
    if held.as_ref().is_some_and(|h| h.number == number)
        && let Some(old) = held.take()
    {
        slot.broken.set(true);
        drop(Connection::take(old.connection));
    }
}

/// A command failed, and what that means for trying again.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: StoreError,
    /// The connection broke: a fresh one may do.
    broken: bool,
    /// The connection is not to be used again.
    discard: bool,
    /// Redis may have done it all the same.
    pub(super) sent: bool,
    unknown_script: bool,
}

impl Default for Failure {
    fn default() -> Self {
        Self::refused("", String::new())
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::unsent(error)
    }
}

impl Failure {
    fn refused(op: &'static str, reason: String) -> Self {
        Self::unsent(StoreError::Refused { op, reason })
    }

    /// It never left this process.
    fn unsent(error: StoreError) -> Self {
        Self {
            error,
            broken: false,
            discard: false,
            sent: false,
            unknown_script: false,
        }
    }
}
