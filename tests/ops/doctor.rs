//! The doctor finds each fault that is planted, and nothing else.

use crate::harness::{NetworkFault, Plan, Proxy, Redis, Server, ms, until};
use crate::patient::{ADMIN, Diagnosis, Illness, NAMES, Patient, WORKERS};
use crate::proxies::{Manner, Middle, Secure};
use std::collections::BTreeSet;

/// Looks at a machine with this illness: exactly these checks must find something.
async fn finds(illness: Illness, expected: &[&str]) -> Diagnosis {
    let patient = Patient::new(&illness).await;
    let diagnosis = patient.examine().await;
    let expected: BTreeSet<&str> = expected.iter().copied().collect();
    assert_eq!(diagnosis.bad(), expected, "{illness:?}: {:#?}", diagnosis.findings);
    let code = if diagnosis.all("fail").is_empty() { 1 } else { 2 };
    assert_eq!(diagnosis.code, if expected.is_empty() { 0 } else { code });
    diagnosis
}

fn redis(settings: &[(&'static str, &'static str)]) -> Illness {
    Illness {
        redis: settings.to_vec(),
        ..Illness::default()
    }
}

fn file(path: &'static str, text: &'static str) -> Illness {
    Illness {
        files: vec![(path, text)],
        ..Illness::default()
    }
}

fn unit(text: &'static str) -> Illness {
    file("etc/systemd/system/anyworker.service.d/10.conf", text)
}

fn toml(toml: &'static str) -> Illness {
    Illness {
        toml,
        ..Illness::default()
    }
}

#[tokio::test]
async fn nothing_is_found_where_nothing_is_wrong() {
    let diagnosis = finds(Illness::default(), &[]).await;
    // No server runs here, and there is no proxy: that is said, and all else is seen.
    let unseen = BTreeSet::from(["config.not_root", "proxy"]);
    assert_eq!(diagnosis.all("could_not_see"), unseen, "{:#?}", diagnosis.findings);
    assert!(diagnosis.findings.len() >= 30);
}

#[tokio::test]
async fn faults_of_exposure_are_found() {
    let network = Some("00000000");
    let open = Illness {
        listens: network,
        ..Illness::default()
    };
    finds(open.clone(), &["redis.bind"]).await;
    finds(redis(&[("protected-mode", "no")]), &["redis.protected_mode"]).await;
    let anybody = Illness {
        without: vec!["requirepass"],
        ..open
    };
    // Redis refuses others by itself, unless it is told not to.
    finds(anybody.clone(), &["redis.bind"]).await;
    let anybody = Illness {
        redis: vec![("protected-mode", "no")],
        ..anybody
    };
    finds(anybody, &["redis.bind", "redis.password", "redis.protected_mode"]).await;
    let mighty = Illness {
        login: Some(concat!(":", "b1946ac92492d2347c6235b4d2611184")),
        ..Illness::default()
    };
    let diagnosis = finds(mighty, &["redis.dangerous_commands"]).await;
    let named = diagnosis.evidence("redis.dangerous_commands");
    assert!(
        ["FLUSHALL", "FLUSHDB", "CONFIG"]
            .iter()
            .all(|name| named.contains(name)),
        "{named}"
    );
    assert_eq!(ADMIN, "b1946ac92492d2347c6235b4d2611184");
    let weak = format!("on >{WORKERS} {NAMES} +@all -@dangerous +info +config|get -xadd -publish");
    let weak = Illness {
        without: vec!["user"],
        redis: vec![("user", Box::leak(format!("workers {weak}").into_boxed_str()))],
        ..Illness::default()
    };
    let diagnosis = finds(weak, &["redis.permissions"]).await;
    let named = diagnosis.evidence("redis.permissions");
    assert!(
        named.contains("XADD") && named.contains("PUBLISH") && !named.contains("HSET"),
        "{named}"
    );
    // A pattern may be heard only if it stands there letter for letter.
    let names = NAMES
        .replace("&socket.io#/*#*", "&socket.io*")
        .replace("~socket.io ", "");
    let wrong = format!("workers on >{WORKERS} {names} +@all -@dangerous +info +config|get");
    let wrong = Illness {
        without: vec!["user"],
        redis: vec![("user", Box::leak(wrong.into_boxed_str()))],
        ..Illness::default()
    };
    let diagnosis = finds(wrong, &["redis.permissions"]).await;
    let named = diagnosis.evidence("redis.permissions");
    for part in ["PSUBSCRIBE (socket.io#/*#*: ", "XREAD (socket.io: "] {
        assert!(named.contains(part), "{part} in {named}");
    }
    assert!(!named.contains("request"), "{named}");
}

#[tokio::test]
async fn faults_of_the_promise_are_found() {
    let diagnosis = finds(redis(&[("appendonly", "no")]), &["redis.persistence"]).await;
    assert_eq!(diagnosis.code, 2);
    finds(redis(&[("appendfsync", "no")]), &["redis.appendfsync"]).await;
    for policy in ["allkeys-lru", "volatile-lru"] {
        let limited = redis(&[("maxmemory-policy", policy)]);
        assert_eq!(finds(limited, &["redis.maxmemory_policy"]).await.code, 2);
    }
    // Without a limit it does no harm yet.
    let unlimited = redis(&[("maxmemory", "0"), ("maxmemory-policy", "allkeys-lru")]);
    assert_eq!(
        finds(unlimited, &["redis.maxmemory_policy", "redis.memory"]).await.code,
        1
    );
    // Less than the log may have, and sessions need besides.
    for bytes in ["0", "400mb"] {
        assert_eq!(finds(redis(&[("maxmemory", bytes)]), &["redis.memory"]).await.code, 1);
    }
    let narrow = redis(&[("client-output-buffer-limit", "pubsub 1mb 512kb 60")]);
    finds(narrow, &["redis.output_buffer"]).await;
    finds(
        redis(&[("client-output-buffer-limit", "pubsub 0 0 0")]),
        &["redis.output_buffer"],
    )
    .await;
    finds(redis(&[("maxclients", "24")]), &["redis.maxclients"]).await;
    // Nothing can be written there, which is no matter of rights, nor of the disk.
    for (name, value) in [("cluster-enabled", "yes"), ("replicaof", "127.0.0.1 1")] {
        assert_eq!(finds(redis(&[(name, value)]), &["redis.role"]).await.code, 2);
    }
}

/// It is there: searching for it does not help.
#[tokio::test]
async fn a_wrong_password_is_told_from_a_redis_that_is_not_there() {
    let patient = Patient::new(&Illness::default()).await;
    patient.configure(&format!("redis://:wrong@{}", patient.addr), "");
    let diagnosis = patient.examine().await;
    let finding = diagnosis.finding("redis.reachable");
    assert_eq!(finding["outcome"], "fail", "{finding}");
    assert!(
        finding["remedy"]
            .as_str()
            .is_some_and(|remedy| remedy.contains("password")),
        "{finding}"
    );
}

#[tokio::test]
async fn a_slow_and_a_dead_redis_are_found() {
    let mut patient = Patient::new(&Illness::default()).await;
    let proxy = Proxy::start(patient.addr).await;
    proxy.set(NetworkFault::Slow(ms(15)));
    let slow = patient
        .url()
        .replace(&patient.addr.to_string(), &proxy.addr.to_string());
    patient.configure(&slow, "");
    let diagnosis = patient.examine().await;
    assert_eq!(
        diagnosis.bad(),
        BTreeSet::from(["redis.latency"]),
        "{:#?}",
        diagnosis.findings
    );
    patient.configure(&patient.url(), "");
    patient.stop();
    let diagnosis = patient.examine().await;
    assert_eq!(
        diagnosis.bad(),
        BTreeSet::from(["redis.reachable"]),
        "{:#?}",
        diagnosis.findings
    );
    assert_eq!(diagnosis.code, 2);
    assert!(diagnosis.all("could_not_see").contains("redis.persistence"));
}

#[tokio::test]
async fn faults_of_the_kernel_are_found() {
    finds(file("proc/sys/net/core/somaxconn", "128\n"), &["kernel.somaxconn"]).await;
    finds(
        file("proc/sys/net/ipv4/tcp_migrate_req", "0\n"),
        &["kernel.tcp_migrate_req"],
    )
    .await;
    let ports = file("proc/sys/net/ipv4/ip_local_port_range", "60000\t60999\n");
    finds(ports, &["kernel.ephemeral_ports"]).await;
    finds(
        file("proc/sys/vm/overcommit_memory", "0\n"),
        &["kernel.overcommit_memory"],
    )
    .await;
    let thp = file("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n");
    finds(thp, &["kernel.transparent_hugepage"]).await;
    let limits = file(
        "proc/self/limits",
        "Max open files            1024                 4096                 files\n",
    );
    finds(limits, &["kernel.nofile"]).await;
}

#[tokio::test]
async fn faults_of_the_unit_are_found() {
    let short = finds(unit("[Service]\nTimeoutStopSec=10\n"), &["systemd.drain_budget"]).await;
    assert_eq!(short.code, 1, "the supervisor asks for more");
    let wrong = unit("[Service]\nTimeoutStopSec=10\nType=simple\nWatchdogSec=\n");
    let wrong = finds(wrong, &["systemd.drain_budget", "systemd.type", "systemd.watchdog"]).await;
    assert_eq!(wrong.code, 2);
    finds(unit("[Service]\nKillMode=control-group\n"), &["systemd.kill_mode"]).await;
    finds(unit("[Service]\nLimitNOFILE=1024\n"), &["systemd.nofile"]).await;
    finds(unit("[Service]\nWatchdogSec=0\n"), &["systemd.watchdog"]).await;
    finds(toml("workers.grace_ms = 90000"), &["systemd.drain_budget"]).await;
    // Our own, as it is.
    let ours = include_str!("../../systemd/anyworker.service");
    finds(file("etc/systemd/system/anyworker.service", ours), &[]).await;
}

#[tokio::test]
async fn bad_secrets_are_found() {
    let password = "YourVeryStrong!Redis@Password#2024";
    let guide = Illness {
        redis: vec![("requirepass", password)],
        login: Some(concat!(":", "YourVeryStrong!Redis@Password#2024")),
        ..Illness::default()
    };
    let diagnosis = finds(guide, &["redis.dangerous_commands", "secrets.redis_password"]).await;
    assert!(!format!("{:?}", diagnosis.findings).contains(password));
    let short = Illness {
        redis: vec![("requirepass", "k3xv!9")],
        login: Some(":k3xv!9"),
        ..Illness::default()
    };
    finds(short, &["redis.dangerous_commands", "secrets.redis_password"]).await;
    finds(toml("emit.secret = \"changeme-changeme\""), &["secrets.emit_secret"]).await;
    finds(toml("emit.secret = \"aaaaaaaaaaaaaaaaaaaa\""), &["secrets.emit_secret"]).await;
    finds(toml("emit.secret = \"9a0364b9e99bb480dd25e1f0284c8555\""), &[]).await;
    finds(toml("http.origins = [\"*\"]"), &["config.origins_restricted"]).await;
}

#[tokio::test]
async fn what_cannot_be_seen_is_said_and_not_guessed() {
    let away = redis(&[
        ("rename-command", "CONFIG \"\""),
        ("rename-command", "KEYS \"\""),
        ("rename-command", "INFO \"\""),
    ]);
    let rights = format!("workers on >{WORKERS} {NAMES} +@all -@dangerous");
    let away = Illness {
        without: vec!["user"],
        redis: [away.redis, vec![("user", Box::leak(rights.into_boxed_str()))]].concat(),
        ..away
    };
    let diagnosis = finds(away.clone(), &[]).await;
    let unseen = diagnosis.all("could_not_see");
    for check in [
        "persistence",
        "appendfsync",
        "maxmemory_policy",
        "memory",
        "output_buffer",
        "disk",
        "maxclients",
    ] {
        let check = format!("redis.{check}");
        assert!(unseen.contains(check.as_str()), "{check} in {unseen:?}");
        assert!(
            diagnosis.evidence(&check).contains("unknown command"),
            "{}",
            diagnosis.evidence(&check)
        );
    }
    // Without any of these commands there is still a version, a role, and the rights of users.
    let seen = diagnosis.all("pass");
    for check in [
        "version",
        "role",
        "latency",
        "password",
        "dangerous_commands",
        "permissions",
        "bind",
    ] {
        let check = format!("redis.{check}");
        assert!(seen.contains(check.as_str()), "{check} in {seen:?}");
    }
    assert!(diagnosis.evidence("redis.version").ends_with("(HELLO)"));

    // With the file of this Redis at its usual place most of it can be seen after all.
    let patient = Patient::new(&away).await;
    let text = std::fs::read_to_string(patient.path().join("redis.conf")).unwrap();
    patient.file("etc/redis/redis.conf", &text);
    let diagnosis = patient.examine().await;
    assert!(diagnosis.bad().is_empty(), "{:#?}", diagnosis.findings);
    assert!(
        diagnosis
            .evidence("redis.persistence")
            .contains("/etc/redis/redis.conf")
    );
    patient.file("etc/redis/redis.conf", &text.replace("appendonly yes", "appendonly no"));
    assert_eq!(patient.examine().await.bad(), BTreeSet::from(["redis.persistence"]));
    // The file of another Redis says nothing about this one.
    patient.file("etc/redis/redis.conf", "port 6379\nappendonly no\n");
    let diagnosis = patient.examine().await;
    assert!(diagnosis.all("could_not_see").contains("redis.persistence"));
}

#[tokio::test]
async fn a_person_can_read_it() {
    let patient = Patient::new(&redis(&[("appendonly", "no")])).await;
    let root = patient.path().join("root");
    let output = patient.ask(&["doctor", "--root", root.to_str().unwrap()]).await;
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.is_ascii(), "{text}");
    assert!(text.contains("[FAIL] redis.persistence"), "{text}");
    assert!(text.contains("redis-cli CONFIG SET appendonly yes"), "{text}");
    assert!(text.contains("\n1 fault, 0 warnings, "), "{text}");
}

/// What the doctor says about a fleet, looking for /proc and so on where `patient` has them.
async fn examine(server: &Server, more: &[&str]) -> Diagnosis {
    let arguments = [&["--json"], more].concat();
    Diagnosis::of(&server.cli("doctor", &arguments).await)
}

#[tokio::test]
async fn the_remedy_for_dangerous_commands_works() {
    let patient = Patient::new(&Illness {
        redis: vec![("unixsocket", "redis.sock"), ("user", "default on nopass ~* &* +@all")],
        without: vec!["requirepass", "user"],
        ..Illness::default()
    })
    .await;
    patient.configure(&format!("redis://{}", patient.addr), "");
    let diagnosis = patient.examine().await;
    let remedy = diagnosis.finding("redis.dangerous_commands")["remedy"]
        .as_str()
        .unwrap();
    let command = remedy.lines().find(|line| line.starts_with("ACL SETUSER")).unwrap();
    let command = command.replace("PASSWORD", WORKERS);
    let words: Vec<&str> = command.split(' ').collect();
    Redis::at(&patient.path().join("redis.sock")).command(&words).await;

    let url = format!("redis.url = \"redis://anyworker:{WORKERS}@{}\"", patient.addr);
    let server = Plan::new().without_redis().with(&url).start().await;
    let output = server.cli("selftest", &[]).await;
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    let diagnosis = examine(&server, &[]).await;
    assert_eq!(diagnosis.finding("redis.dangerous_commands")["outcome"], "pass");
    assert_eq!(diagnosis.finding("redis.permissions")["outcome"], "pass");
}

#[tokio::test]
async fn a_running_fleet_is_looked_at() {
    let server = Plan::new().start().await;
    let root = server.directory().join("root");
    let plant = |path: String, text: &str| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let status = server.status().await;
    let (supervisor, worker) = (status.supervisor.pid, status.ready_pids()[0]);
    let arguments = ["--root", root.to_str().unwrap()];
    plant(
        format!("proc/{supervisor}/limits"),
        "Max open files  1024  524288  files\n",
    );
    plant(format!("proc/{supervisor}/cgroup"), "0::/system.slice/chat.service\n");
    plant(
        format!("proc/{worker}/status"),
        "Name:\tanyworker\nUid:\t998\t998\t998\t998\n",
    );
    plant(
        "usr/lib/systemd/system/chat.service".to_owned(),
        "[Service]\nType=notify\nTimeoutStopSec=infinity\n",
    );
    let diagnosis = examine(&server, &arguments).await;
    assert!(
        diagnosis
            .evidence("kernel.nofile")
            .starts_with("the supervisor may open 524288")
    );
    assert!(diagnosis.evidence("config.not_root").contains("runs as user 998"));
    // It is told which unit it is about.
    assert_eq!(diagnosis.finding("systemd.drain_budget")["outcome"], "pass");
    assert!(diagnosis.evidence("systemd.kill_mode").contains("chat.service"));
    plant(format!("proc/{worker}/status"), "Name:\tanyworker\nUid:\t0\t0\t0\t0\n");
    let diagnosis = examine(&server, &arguments).await;
    assert_eq!(diagnosis.finding("config.not_root")["outcome"], "warn");
}

/// A user that may not open the control socket is told so, and not to start what runs already. Skipped, with a note, without root.
#[tokio::test]
async fn another_user_is_told_which_user_may_ask() {
    let nobody = nix::unistd::User::from_name("nobody").unwrap().expect("nobody");
    let server = Plan::new().start().await;
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    open(server.directory(), 0o755);
    open(&server.config_file(), 0o644);
    let ask = async |command: &str, more: &[&str]| {
        let mut asked = tokio::process::Command::from(server.command(command));
        asked.args(more).uid(nobody.uid.as_raw()).gid(nobody.gid.as_raw());
        asked.kill_on_drop(true).output().await
    };
    let Ok(output) = ask("status", &[]).await else {
        return eprintln!("left out: needs root, and a program that others may start");
    };
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(69), "{text}");
    let fault = "control.sock may not be opened by this user";
    assert!(
        text.contains(fault) && text.contains("run this command as root (sudo)"),
        "{text}"
    );
    let root = server.directory().join("root");
    let output = ask("doctor", &["--json", "--root", root.to_str().unwrap()])
        .await
        .unwrap();
    let diagnosis = Diagnosis::of(&output);
    for check in ["kernel.nofile", "systemd", "config.not_root"] {
        assert_eq!(diagnosis.finding(check)["outcome"], "could_not_see", "{check}");
        assert!(
            diagnosis.evidence(check).contains(fault),
            "{}",
            diagnosis.evidence(check)
        );
    }
    let remedy = diagnosis.finding("redis.reachable")["remedy"].to_string();
    assert!(remedy.contains("this user may not ask it"), "{remedy}");
    assert!(
        !format!("{:?}", diagnosis.findings).contains("anyworker run"),
        "{:#?}",
        diagnosis.findings
    );
}

#[tokio::test]
async fn the_way_through_a_proxy_is_looked_at() {
    let plan = Plan::new().with("engine = { ping_interval_ms = 1500, ping_timeout_ms = 3000 }");
    let server = plan.start().await;
    let checks = |diagnosis: &Diagnosis| {
        let bad = diagnosis.bad();
        let names: BTreeSet<String> = bad
            .iter()
            .filter(|check| check.starts_with("proxy"))
            .map(|c| (*c).to_owned())
            .collect();
        names
    };
    let look = async |manner| {
        let proxy = Middle::start(server.addr, manner).await;
        checks(&examine(&server, &["--url", &proxy.url()]).await)
    };
    let set = |names: &[&str]| -> BTreeSet<String> { names.iter().map(|name| (*name).to_owned()).collect() };
    assert_eq!(look(Manner::Good).await, set(&[]));
    assert_eq!(look(Manner::NoUpgrade).await, set(&["proxy.websocket"]));
    let impatient = set(&["proxy.poll_timeout", "proxy.websocket_timeout"]);
    assert_eq!(look(Manner::Impatient(ms(700))).await, impatient);
    assert_eq!(look(Manner::Buffering(ms(1300))).await, set(&["proxy.buffering"]));
    assert_eq!(
        look(Manner::Lost).await,
        set(&["proxy.reaches_fleet", "proxy.websocket"])
    );
    // A session of somebody else's fleet is not taken for ours.
    let other = Plan::new()
        .with("engine = { ping_interval_ms = 1500, ping_timeout_ms = 3000 }")
        .start()
        .await;
    let diagnosis = examine(&server, &["--url", &other.url()]).await;
    assert_eq!(checks(&diagnosis), set(&["proxy.reaches_fleet"]));
    // What is no URL is said so.
    assert_eq!(
        checks(&examine(&server, &["--url", "chat.example.org"]).await),
        set(&["proxy.url"])
    );
    until("the probes' sessions have ended", async || {
        server.redis().keys("socketio:session:*").await.is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_untrusted_certificate_is_found() {
    let plan = Plan::new().with("engine = { ping_interval_ms = 1500, ping_timeout_ms = 3000 }");
    let mut server = plan.start().await;
    let proxy = Secure::start(server.addr).await;
    let diagnosis = examine(&server, &["--url", &proxy.url()]).await;
    assert!(diagnosis.all("fail").contains("proxy.tls"), "{:#?}", diagnosis.findings);
    assert!(diagnosis.all("could_not_see").contains("proxy.websocket"));
    assert!(
        diagnosis.evidence("proxy.tls").contains("certificate"),
        "{}",
        diagnosis.evidence("proxy.tls")
    );
    // A client that trusts it gets through, with both transports.
    let file = server.directory().join("trusted.pem");
    std::fs::write(&file, &proxy.certificate).unwrap();
    server.set_env("SSL_CERT_FILE", file.to_str().unwrap());
    let diagnosis = examine(&server, &["--url", &proxy.url()]).await;
    let passed = diagnosis.all("pass");
    for check in [
        "tls",
        "reaches_fleet",
        "buffering",
        "poll_timeout",
        "websocket",
        "websocket_timeout",
    ] {
        let check = format!("proxy.{check}");
        assert!(passed.contains(check.as_str()), "{check}: {:#?}", diagnosis.findings);
    }
    // No server there.
    let url = proxy.url();
    drop(proxy);
    let diagnosis = examine(&server, &["--url", &url]).await;
    assert!(
        diagnosis.all("fail").contains("proxy.reaches_fleet"),
        "{:#?}",
        diagnosis.findings
    );
}

/// The names of checks in a text, in these quotes.
fn checks_in(text: &str, quote: char) -> BTreeSet<String> {
    let parts = ["redis.", "kernel.", "systemd.", "secrets.", "config.", "proxy."];
    let quoted = text
        .split(quote)
        .filter(|word| parts.iter().any(|part| word.starts_with(part)));
    let names = quoted.filter(|word| word.chars().all(|c| c.is_ascii_lowercase() || "._".contains(c)));
    names.map(str::to_owned).collect()
}

#[test]
fn the_documents_list_every_check() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = std::fs::read_to_string(root.join("docs/doctor.md")).unwrap();
    let rows: String = document
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|row| row.split(" | ").next().unwrap())
        .collect();
    let mut source = BTreeSet::new();
    for entry in std::fs::read_dir(root.join("workers/ops/src/doctor")).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        source.extend(checks_in(text.split("#[cfg(test)]").next().unwrap(), '"'));
    }
    assert_eq!(checks_in(&rows, '`'), source);
}
