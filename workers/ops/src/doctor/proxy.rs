//! The way that clients take: a probe through the public URL, as a client with each transport.

use super::findings::Findings;
use crate::Context;
use crate::output::span;
use crate::web::{Opened, Socket, Target, ask};
use std::io::{self, Write};
use std::time::{Duration, Instant};
use store::Sid;
use tokio::time::timeout;

/// Anything but a ping comes by then.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// How long after its interval a ping may come.
const PING_MARGIN: Duration = Duration::from_secs(3);
/// An answer that is there goes through a proxy in less.
const PROMPT: Duration = Duration::from_secs(1);

const NGINX_UPGRADE: &str = "nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; \
     proxy_set_header Connection \"upgrade\";\n\
     Apache: RewriteRule to ws://…, or ProxyPass … upgrade=websocket; HAProxy and Caddy pass it on as they are";

pub(super) async fn examine(context: &Context, url: &str, findings: &mut Findings) {
    let target = match Target::parse(url) {
        Ok(target) => target,
        Err(why) => return findings.fail("proxy.url", why, "--url https://chat.example.org"),
    };
    if !secured(&target, url, findings).await {
        return UNREACHED
            .into_iter()
            .for_each(|check| findings.unseen(check, "no server can be reached through the URL"));
    }
    let patience = context.engine.ping_interval + PING_MARGIN;
    // Without standard error there is no reader who waits for this.
    writeln!(
        io::stderr(),
        "asking through {url}; a ping takes up to {}",
        span(patience)
    )
    .ok();
    let (polling, websocket) = tokio::join!(polling(context, &target), websocket(context, &target));
    for (check, outcome) in polling.into_iter().chain(websocket) {
        match outcome {
            Seen::Good(evidence) => findings.pass(check, evidence),
            Seen::Bad(evidence, remedy) => findings.fail(check, evidence, remedy),
            Seen::Not(why) => findings.unseen(check, why),
        }
    }
}

/// Whether the conversation can begin; and whether others can listen.
async fn secured(target: &Target, url: &str, findings: &mut Findings) -> bool {
    const CHECK: &str = "proxy.tls";
    let greeted = match timeout(ANSWER_PATIENCE, target.greet()).await {
        Ok(greeted) => greeted.map_err(|error| (error.kind() == io::ErrorKind::InvalidData, error.to_string())),
        Err(_) => Err((false, format!("no connection within {}", span(ANSWER_PATIENCE)))),
    };
    match greeted {
        // What rustls does not like.
        Err((true, error)) => {
            let remedy = "give the proxy a certificate for this name that clients trust, with those in between";
            findings.fail(CHECK, format!("{url}: {error}"), remedy);
            false
        }
        Err((false, error)) => {
            let remedy =
                "does the name lead to the proxy, does the proxy run, does a firewall let this machine through?";
            findings.fail(REACHES, format!("{url}: {error}"), remedy);
            false
        }
        Ok(()) if target.tls => {
            findings.pass(CHECK, "https, and the certificate is trusted");
            true
        }
        Ok(()) if target.is_loopback() => {
            findings.pass(CHECK, "http, but only on this machine");
            true
        }
        Ok(()) => {
            findings.warn(
                CHECK,
                format!("{url}: everybody on the way reads along"),
                "let the proxy speak https with clients",
            );
            true
        }
    }
}

enum Seen {
    Good(String),
    Bad(String, String),
    Not(String),
}

type Outcomes = Vec<(&'static str, Seen)>;

const REACHES: &str = "proxy.reaches_fleet";
const BUFFERING: &str = "proxy.buffering";
const POLL_TIMEOUT: &str = "proxy.poll_timeout";
const UPGRADE: &str = "proxy.websocket";
const SOCKET_TIMEOUT: &str = "proxy.websocket_timeout";
/// What is left out if no server answers.
const UNREACHED: [&str; 4] = [BUFFERING, POLL_TIMEOUT, UPGRADE, SOCKET_TIMEOUT];

async fn polling(context: &Context, target: &Target) -> Outcomes {
    if !context.engine.polling {
        return vec![(REACHES, Seen::Not("engine.transports has no polling".to_owned()))];
    }
    let path = format!("{}?EIO=4&transport=polling", context.engine.path);
    let reply = ask(target, &path, None, ANSWER_PATIENCE).await;
    let sid = match reply.and_then(|reply| reply.sid()) {
        Ok(sid) => sid,
        Err(why) => {
            let remedy = format!(
                "the proxy must pass {} on to {}, with its query; is the URL right, and its certificate trusted?",
                context.engine.path,
                context.listen.first().map(ToString::to_string).unwrap_or_default()
            );
            let rest =
                [BUFFERING, POLL_TIMEOUT].map(|check| (check, Seen::Not("no session through the URL".to_owned())));
            return [(REACHES, Seen::Bad(why, remedy))].into_iter().chain(rest).collect();
        }
    };
    let session = format!("{path}&sid={sid}");
    vec![
        (REACHES, belongs(context, &sid).await),
        (BUFFERING, buffering(context, target, &session).await),
        (POLL_TIMEOUT, poll_timeout(context, target, &session).await),
    ]
}

/// Whether the session that was opened through the URL is in our Redis.
async fn belongs(context: &Context, sid: &str) -> Seen {
    let reached = "a session was opened through the URL".to_owned();
    let inspector = context.redis.as_ref().and_then(|redis| redis.inspector().ok());
    let (Some(inspector), Ok(sid)) = (inspector, Sid::parse(sid)) else {
        return Seen::Good(reached);
    };
    match inspector.session(&sid).await {
        Ok(Some(record)) => Seen::Good(format!("{reached}, on worker {}", record.worker)),
        Ok(None) => Seen::Bad(
            format!("{reached}, and it is not in our Redis"),
            "the URL leads to another fleet, or it uses another redis.url, redis.db or redis.prefix: compare `anyworker check`"
                .to_owned(),
        ),
        Err(error) => Seen::Good(format!("{reached}; whether it is ours could not be seen: {error}")),
    }
}

/// An answer of a few bytes must come when it is there, and not when some buffer is full.
async fn buffering(context: &Context, target: &Target, session: &str) -> Seen {
    let start = Instant::now();
    let connect = format!("40{}", context.engine.prefix());
    let poll = ask(target, session, None, ANSWER_PATIENCE);
    let post = ask(target, session, Some(&connect), ANSWER_PATIENCE);
    let (polled, posted) = tokio::join!(poll, post);
    let took = start.elapsed();
    let remedy = "nginx: proxy_buffering off; proxy_request_buffering off; for this location".to_owned();
    match (polled, posted) {
        (Ok(polled), Ok(posted)) if polled.status == 200 && posted.status == 200 => {
            let evidence = format!(
                "a parked poll was answered {} ms after the POST that it waited for",
                took.as_millis()
            );
            if took <= PROMPT {
                Seen::Good(evidence)
            } else {
                Seen::Bad(evidence, remedy)
            }
        }
        (Ok(polled), Ok(posted)) => {
            let evidence = format!(
                "a poll and a POST were answered with {} and {}",
                polled.summary(),
                posted.summary()
            );
            Seen::Bad(
                evidence,
                "are all methods and bodies passed on, and is nothing cached?".to_owned(),
            )
        }
        (Err(why), _) | (_, Err(why)) => Seen::Bad(format!("an answer was held back: {why}"), remedy),
    }
}

/// A poll that is parked until the ping must not be cut off.
async fn poll_timeout(context: &Context, target: &Target, session: &str) -> Seen {
    let interval = context.engine.ping_interval;
    let start = Instant::now();
    let reply = ask(target, session, None, interval + PING_MARGIN).await;
    let took = span(start.elapsed());
    let seen = match reply {
        Ok(reply) if reply.status == 200 && reply.text().split('\x1e').any(|packet| packet == "2") => {
            Seen::Good(format!("a poll was parked for {took} until its ping"))
        }
        Ok(reply) => Seen::Bad(
            format!("a parked poll was answered with {} after {took}", reply.summary()),
            longer(interval),
        ),
        Err(why) => Seen::Bad(
            format!("a parked poll was cut off after {took}: {why}"),
            longer(interval),
        ),
    };
    // Whether it can still be said does not matter: the session ends by itself.
    drop(ask(target, session, Some("1"), ANSWER_PATIENCE).await);
    seen
}

fn longer(interval: Duration) -> String {
    let seconds = (interval * 2).as_secs().max(60);
    format!(
        "nginx: proxy_read_timeout {seconds}s; proxy_send_timeout {seconds}s;\n\
         HAProxy: timeout server {seconds}s, timeout client {seconds}s, timeout tunnel 1h\n\
         or a shorter engine.ping_interval_ms (it is {})",
        span(interval)
    )
}

async fn websocket(context: &Context, target: &Target) -> Outcomes {
    if !context.engine.websocket {
        return vec![(UPGRADE, Seen::Not("engine.transports has no websocket".to_owned()))];
    }
    let path = format!("{}?EIO=4&transport=websocket", context.engine.path);
    let no_timeout = || (SOCKET_TIMEOUT, Seen::Not("no WebSocket through the URL".to_owned()));
    let bad = |why: String| vec![(UPGRADE, Seen::Bad(why, NGINX_UPGRADE.to_owned())), no_timeout()];
    let mut socket = match timeout(ANSWER_PATIENCE, Socket::open(target, &path)).await {
        Ok(Ok(Opened::Yes(socket))) => socket,
        Ok(Ok(Opened::No(status))) => {
            return bad(format!("a WebSocket was asked for, the answer was {}", status.as_u16()));
        }
        Ok(Err(error)) => return bad(format!("a WebSocket was asked for: {error}")),
        Err(_) => {
            return bad(format!(
                "a WebSocket was asked for, and nothing came within {}",
                span(ANSWER_PATIENCE)
            ));
        }
    };
    match timeout(ANSWER_PATIENCE, socket.next()).await {
        Ok(Ok(packet)) if packet.starts_with('0') => {}
        Ok(Ok(packet)) => return bad(format!("the WebSocket's first message is {packet:?}")),
        Ok(Err(error)) => return bad(format!("the WebSocket opened and was closed: {error}")),
        Err(_) => return bad("the WebSocket opened and nothing comes through it".to_owned()),
    }
    let passes = (UPGRADE, Seen::Good("a WebSocket opens and talks".to_owned()));
    vec![passes, (SOCKET_TIMEOUT, socket_timeout(context, &mut socket).await)]
}

/// A WebSocket on which nothing is said but pings must stay open.
async fn socket_timeout(context: &Context, socket: &mut Socket) -> Seen {
    let interval = context.engine.ping_interval;
    let start = Instant::now();
    let connect = format!("40{}", context.engine.prefix());
    // If this does not get through, the next message does not come.
    let said = socket.say(&connect).await;
    let ping = async {
        said?;
        while socket.next().await? != "2" {}
        Ok::<_, io::Error>(())
    };
    let came = timeout(interval + PING_MARGIN, ping).await;
    let took = span(start.elapsed());
    match came {
        Ok(Ok(())) => Seen::Good(format!("silent for {took} until its ping, and still open")),
        Ok(Err(error)) => Seen::Bad(
            format!("a silent WebSocket was cut off after {took}: {error}"),
            longer(interval),
        ),
        Err(_) => Seen::Bad(format!("no ping came within {took}"), longer(interval)),
    }
}
