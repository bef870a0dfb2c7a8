//! Where a connection leads and which user logs in there; and why a login failed, which the client library keeps to itself: what it
//! calls a wrong password may be a Redis that has too many clients, or is loading.

use crate::options::{Endpoint, RedisOptions};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo,
    RedisConnectionInfo, RedisError,
};
use std::time::Duration;

/// How the client says that it may not use a database (`check_db_select` of the crate `redis`); the code of Redis' reply is
/// lost.
const SELECT_REFUSED: &str = "refused to switch database";

/// A login, step by step.
pub(super) struct Login {
    /// Connects, and says nothing.
    anonymous: Client,
    /// What the client says first on each connection.
    steps: Vec<Cmd>,
}

impl Login {
    /// Of these options, on the way that `info` leads.
    pub(super) fn new(options: &RedisOptions, info: &ConnectionInfo) -> Result<Self, RedisError> {
        let silent = RedisConnectionInfo::default().set_skip_set_lib_name();
        let auth = options.password.as_ref().map(|password| {
            let mut auth = redis::cmd("AUTH");
            auth.arg(options.username.as_deref()).arg(password);
            auth
        });
        let select = (options.db != 0).then(|| redis::cmd("SELECT").arg(options.db).to_owned());
        Ok(Self {
            anonymous: Client::open(info.clone().set_redis_settings(silent))?,
            steps: auth.into_iter().chain(select).collect(),
        })
    }

    /// Whether an error of the client is one of the login, and without Redis' words.
    pub(super) fn failed(error: &RedisError) -> bool {
        error.kind() == ErrorKind::AuthenticationFailed || error.to_string().contains(SELECT_REFUSED)
    }

    /// Logs in once more, on a connection of its own.
    ///
    /// # Errors
    /// What Redis says.
    pub(super) async fn retry(&self, connect: Duration, response: Duration) -> Result<(), RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(connect))
            .set_response_timeout(Some(response));
        let mut connection = self
            .anonymous
            .get_multiplexed_async_connection_with_config(&config)
            .await?;
        for step in &self.steps {
            step.query_async::<()>(&mut connection).await?;
        }
        Ok(())
    }
}

/// What the client library is to be given.
pub(super) fn connection_info(options: &RedisOptions) -> Result<ConnectionInfo, RedisError> {
    let addr = match options.endpoint.clone() {
        Endpoint::Tcp { host, port } => ConnectionAddr::Tcp(host, port),
        Endpoint::Tls { host, port } => ConnectionAddr::TcpTls {
            host,
            port,
            insecure: false,
            tls_params: None,
        },
        Endpoint::Unix { path } => ConnectionAddr::Unix(path),
    };
    let mut login = RedisConnectionInfo::default()
        .set_db(options.db)
        .set_skip_set_lib_name();
    if let Some(username) = &options.username {
        login = login.set_username(username);
    }
    if let Some(password) = &options.password {
        login = login.set_password(password);
    }
    Ok(addr.into_connection_info()?.set_redis_settings(login))
}
