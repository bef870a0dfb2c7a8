//! Commands of operators: what they are given is made here, what they do is in `workers/ops`.

use crate::config::Config;
use crate::control::client;
use crate::sys::runtime::control_socket;
use boot::RedisEndpoint;
use ops::{Command, Context, Endpoint, Redis, RedisOptions, StatusError};
use std::io;
use std::process::ExitCode;

/// Runs a command against the fleet of a configuration.
pub(crate) fn run(command: &Command, config: Config) -> io::Result<ExitCode> {
    ops::run(command, &context(config)).map(ExitCode::from)
}

fn context(config: Config) -> Context {
    let socket = control_socket(&config.runtime_directory);
    Context {
        redis: config
            .settings
            .redis
            .as_ref()
            .map(|redis| reached(redis, config.managed_redis)),
        listen: config.listen,
        workers: config.workers.count,
        runtime_directory: config.runtime_directory,
        status: Box::new(move || client::status(&socket).map_err(StatusError)),
    }
}

fn reached(redis: &boot::Redis, managed: bool) -> Redis {
    let options = RedisOptions {
        endpoint: match redis.endpoint.clone() {
            RedisEndpoint::Tcp { host, port } => Endpoint::Tcp { host, port },
            RedisEndpoint::Tls { host, port } => Endpoint::Tls { host, port },
            RedisEndpoint::Unix { path } => Endpoint::Unix { path },
        },
        db: redis.db,
        username: redis.username.clone(),
        password: redis.password.as_ref().map(|secret| secret.expose().to_owned()),
        pool_size: redis.pool_size,
        connect_timeout: redis.connect_timeout,
        response_timeout: redis.response_timeout,
    };
    Redis {
        options,
        managed,
        prefix: redis.prefix.clone(),
        url: redis.to_string(),
    }
}
