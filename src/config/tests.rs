//! Whole configurations, from files and environment to a configuration or its faults.

use super::files::load_in;
use super::{Config, Faults, Overrides, Sources, document, keys, values};
use boot::RedisEndpoint;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

mod env;
mod syntax;

/// A working directory with the given files.
struct Place(tempfile::TempDir);

impl Place {
    fn new(files: &[(&str, &str)]) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            std::fs::write(place.0.path().join(name), text).unwrap();
        }
        place
    }

    fn load(&self, env: &[(&str, &str)], overrides: Overrides) -> Result<Config, Faults> {
        self.load_file(None, env, overrides)
    }

    fn load_file(&self, file: Option<&str>, env: &[(&str, &str)], overrides: Overrides) -> Result<Config, Faults> {
        let env = env
            .iter()
            .map(|&(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let sources = Sources {
            file: file.map(PathBuf::from),
            env,
            overrides,
        };
        load_in(&sources, self.0.path(), &self.0.path().join("system.toml"))
    }
}

fn from_file(text: &str) -> Result<Config, Faults> {
    Place::new(&[("supervisor.toml", text)]).load(&[], Overrides::default())
}

fn from_env(env: &[(&str, &str)]) -> Result<Config, Faults> {
    Place::new(&[]).load(env, Overrides::default())
}

/// The configuration has exactly the faults whose lines begin so, in any order.
fn check_faults(loaded: Result<Config, Faults>, begins: &[&str]) {
    let faults: Vec<String> = loaded.expect_err("faults").lines().collect();
    for begin in begins {
        assert!(
            faults.iter().any(|fault| fault.starts_with(begin)),
            "no {begin:?} in {faults:#?}"
        );
    }
    assert_eq!(faults.len(), begins.len(), "{faults:#?}");
}

#[test]
fn nothing_given() {
    let config = from_env(&[]).unwrap();
    assert_eq!(config.listen, ["127.0.0.1:8000".parse().unwrap()]);
    assert_eq!(config.workers.count, 4);
    assert_eq!(config.workers.grace, Duration::from_secs(30));
    assert!(config.managed_redis);
    let redis = config.settings.redis.unwrap();
    assert_eq!(
        redis.endpoint,
        RedisEndpoint::Unix {
            path: config.runtime_directory.join("redis.sock")
        }
    );
    assert_eq!(config.settings.engine.cookie, None);
}

#[test]
fn later_layers_win() {
    let file = "[engine]\nping_interval_ms = 1\nping_timeout_ms = 1\nupgrade_timeout_ms = 1\npath = '/file/'\n";
    let dot_env = "ANYWORKER_ENGINE__PING_INTERVAL_MS=2\nANYWORKER_ENGINE__PING_TIMEOUT_MS=2\nREDIS_URL=redis://dot\n\
                   ANYWORKER_WORKERS__COUNT=2\nUNRELATED=x\n";
    let place = Place::new(&[("supervisor.toml", file), (".env", dot_env)]);
    let env = [
        ("ANYWORKER_ENGINE__PING_INTERVAL_MS", "300"),
        ("ANYWORKER_WORKERS__COUNT", "3"),
        ("HOME", "/"),
    ];
    let overrides = Overrides {
        workers: Some(5),
        redis: Some("redis://flag:1/2".to_owned()),
        listen: vec![":0".to_owned(), "[::1]:81".to_owned()],
    };
    let config = place.load(&env, overrides).unwrap();
    let millis = Duration::from_millis;
    let engine = &config.settings.engine;
    assert_eq!(
        (engine.ping_interval, engine.ping_timeout, engine.upgrade_timeout),
        (millis(300), millis(2), millis(1))
    );
    assert_eq!((config.workers.count, engine.path.as_str()), (5, "/file/"));
    assert_eq!(config.settings.redis.as_ref().unwrap().to_string(), "redis://flag:1/2");
    assert_eq!(
        config.listen,
        ["0.0.0.0:0".parse().unwrap(), "[::1]:81".parse().unwrap()]
    );
    let printed = config.masked_toml();
    for line in [
        "ping_interval_ms = 300  # environment ANYWORKER_ENGINE__PING_INTERVAL_MS",
        "upgrade_timeout_ms = 1  # supervisor.toml",
        "count = 5  # flag --workers",
        "max_payload_bytes = 1000000  # default",
        "db = 2  # default",
        ".env ANYWORKER_ENGINE__PING_TIMEOUT_MS",
    ] {
        assert!(printed.contains(line), "no {line:?} in\n{printed}");
    }
    let parsed = printed.parse::<toml::Table>().unwrap();
    assert_eq!(parsed["listen"]["address"].as_array().unwrap().len(), 2);
}

#[test]
fn which_file() {
    let place = Place::new(&[
        ("system.toml", "[workers]\ncount = 2"),
        ("other.toml", "[workers]\ncount = 3"),
    ]);
    assert_eq!(place.load(&[], Overrides::default()).unwrap().workers.count, 2);
    assert_eq!(
        place
            .load_file(Some("other.toml"), &[], Overrides::default())
            .unwrap()
            .workers
            .count,
        3
    );
    std::fs::write(place.0.path().join("supervisor.toml"), "[workers]\ncount = 7").unwrap();
    assert_eq!(place.load(&[], Overrides::default()).unwrap().workers.count, 7);
    let missing = place.load_file(Some("missing.toml"), &[("REDIS_DB", "x")], Overrides::default());
    check_faults(
        missing,
        &[
            "--config: missing.toml does not exist",
            "redis.db: \"x\" is not a whole number",
        ],
    );

    std::fs::create_dir(place.0.path().join("sub")).unwrap();
    std::fs::write(place.0.path().join("sub/supervisor.toml"), "").unwrap();
    std::fs::write(place.0.path().join("sub/.env"), "REDIS_DB=9").unwrap();
    let beside = place
        .load_file(Some("sub/supervisor.toml"), &[], Overrides::default())
        .unwrap();
    assert_eq!(beside.settings.redis.unwrap().db, 9);
    std::fs::write(place.0.path().join(".env"), "REDIS_DB=8").unwrap();
    let first = place
        .load_file(Some("sub/supervisor.toml"), &[], Overrides::default())
        .unwrap();
    assert_eq!(first.settings.redis.unwrap().db, 8);
}

#[test]
fn names_of_the_guide() {
    let url = "redis://:YourVeryStrong!Redis@Password#2024@localhost:6379";
    let dot_env = format!("# Redis\nREDIS_URL={url}\nREDIS_DB=3\nREDIS_ENABLED=true\n");
    let config = Place::new(&[(".env", &dot_env)])
        .load(&[], Overrides::default())
        .unwrap();
    assert!(!config.managed_redis);
    let redis = config.settings.redis.clone().unwrap();
    assert_eq!(
        redis.password.as_ref().unwrap().expose(),
        "YourVeryStrong!Redis@Password#2024"
    );
    assert_eq!(
        (redis.db, redis.endpoint),
        (
            3,
            RedisEndpoint::Tcp {
                host: "localhost".to_owned(),
                port: 6379
            }
        )
    );
    for shown in [
        config.masked_toml().to_owned(),
        format!("{config:?}"),
        format!("{:?}", config.settings),
    ] {
        assert!(!shown.contains("YourVery") && !shown.contains("2024"), "{shown}");
    }
    assert!(config.masked_toml().contains("url = \"redis://:***@localhost:6379/3\""));

    let six = from_env(&[("REDIS_URL", "redis://[::1]")]).unwrap();
    assert!(six.masked_toml().contains("url = \"redis://[::1]:6379/0\""));
    let both = [
        ("REDIS_URL", "redis://a"),
        ("ANYWORKER_REDIS__URL", "redis://b"),
        ("REDIS_DB", ""),
    ];
    let redis = from_env(&both).unwrap().settings.redis.unwrap();
    assert_eq!(redis.to_string(), "redis://b:6379/0");
    for (text, enabled) in [
        ("true", true),
        ("1", true),
        ("YES", true),
        ("false", false),
        ("0", false),
        ("no", false),
    ] {
        let config = from_env(&[("REDIS_ENABLED", text)]).unwrap();
        assert_eq!(config.settings.redis.is_some(), enabled, "{text}");
        assert_eq!(
            (config.workers.count, config.managed_redis),
            if enabled { (4, true) } else { (1, false) }
        );
        assert_eq!(
            config.notices.iter().any(|notice| notice.contains("one worker")),
            !enabled
        );
    }
    let bad = [
        ("REDIS_ENABLED", "maybe"),
        ("REDIS_DB", "-1"),
        ("REDIS_URL", "localhost:6379"),
    ];
    check_faults(
        from_env(&bad),
        &[
            "redis.enabled: \"maybe\" is neither true nor false; use true or false (from environment REDIS_ENABLED)",
            "redis.db: \"-1\" is not a whole number; use 0 to 65535 (from environment REDIS_DB)",
            "redis.url: the scheme of the URL is none of",
        ],
    );
}

#[test]
fn every_fault_at_once() {
    let text = "redis = 'redis://:secret@h'\ncolour = 'red'\n[listen]\naddress = ['example.com:80', ':80', ':80']\n\
                [workers]\ncount = 0\ncuont = 3\ngrace_ms = '5'\n[engine]\npath = '/api/x/'\ntransports = ['smoke']\n\
                ping_interval_ms = -5\n[http]\norigins = '*'\ncredentials = true\n[log]\ncanary_overdue_ms = 4000\n\
                [engine.cookie]\nsame_site = 'none'\n[checks.redis]\ntcp = 'h:1'\n[checks.db]\n[checks.x]\ntimeout_ms = 5\n\
                [app.events]\nleave = 'join'\n[logging]\nlevel = 'loud'\n[enigne]\n";
    check_faults(
        from_file(text),
        &[
            "redis: is a section, not a key; write [redis]",
            "colour: unknown key; remove it",
            "listen.address: \"example.com:80\" is not an address",
            "listen.address: 0.0.0.0:80 is there twice",
            "workers.count: 0 is not allowed; use 1 to 1024",
            "workers.cuont: unknown key; did you mean workers.count?",
            "workers.grace_ms: \"5\" has the wrong type; use 0 to 3600000 (milliseconds)",
            "engine.path: \"/api/x/\" collides",
            "engine.transports: [\"smoke\"] is not allowed",
            "engine.ping_interval_ms: -5 is not allowed; use 1 to 86400000 (milliseconds)",
            "http.credentials: true although http.origins is \"*\"",
            "log.canary_overdue_ms: 4000 is not longer than",
            "engine.cookie.same_site: \"none\" without secure",
            "checks.redis: anyworker has a check of this name",
            "checks.db: nothing to check",
            "checks.x: nothing to check",
            "app.events.leave: \"join\" is app.events.join already",
            "logging.level: \"loud\" is not allowed; use \"error\" or",
            "enigne: unknown key; did you mean [engine]?",
        ],
    );
}

#[test]
fn faults_of_pairs() {
    for (text, fault) in [
        (
            "[redis]\nurl = 'redis://h'\nmanaged = true",
            "redis.managed: true, although redis.url is given",
        ),
        ("[redis]\nmanaged = false", "redis.url: missing"),
        (
            "[redis]\nenabled = false\n[workers]\ncount = 2",
            "workers.count: 2 although Redis is disabled: multi-worker needs Redis; set workers.count = 1 or redis.enabled = true",
        ),
        (
            "[diagnostics]\nengine_echo = '/socket.io/'",
            "diagnostics.engine_echo: \"/socket.io/\" collides",
        ),
        (
            "[diagnostics]\nengine_echo = '/socket.io/echo/'",
            "diagnostics.engine_echo: ",
        ),
        ("[diagnostics]\nengine_echo = '/api/echo/'", "diagnostics.engine_echo: "),
        (
            "[http]\ncredentials = true\norigins = ['https://a.example', 'null']",
            "http.credentials: true although http.origins lists \"null\"",
        ),
        (
            "[recovery]\nwindow_ms = 300_001",
            "recovery.window_ms: 300001 is longer than",
        ),
        (
            "[log]\nentry_bytes_max = 9_000_000",
            "log.queue_bytes_max: 8388608 cannot hold",
        ),
        ("[log]\nbytes_max = 999_999", "log.bytes_max: 999999 cannot hold"),
        (
            "[redis]\nmemory_bytes_max = 400_000_000",
            "redis.memory_bytes_max: 400000000 is too little for log.bytes_max",
        ),
        ("[workers]\nmax_rss_bytes = 1", "workers.max_rss_bytes: 1 is less than"),
        (
            "[log]\nentry_bytes_max = 10",
            "log.entry_bytes_max: 10 is not allowed; use 512 to ",
        ),
        (
            "[checks.\"a\\nb\"]\ntcp = 'h:1'",
            "checks.a\\u000ab: \"a\\nb\" is not a name",
        ),
        (
            "[workers]\nboot_timeout_ms = 1000",
            "redis.connect_timeout_ms: 2000 is not shorter",
        ),
        (
            "[runtime]\ndirectory = '/a23456789/a23456789/a23456789/a23456789/a23456789/a23456789/a23456789/a23456789/a'",
            "runtime.directory: ",
        ),
        ("[listen]\naddress = []", "listen.address: 0 addresses"),
        ("[listen\n", "supervisor.toml:1: "),
        ("[listen]\n\naddress = 'unclosed", "supervisor.toml:3: "),
        ("[redis]\nurl = 5", "redis.url: the value has the wrong type"),
        (
            "[socket]\nnamespaces = ['chat']",
            "socket.namespaces: \"chat\" is not a namespace; write \"/chat\"",
        ),
    ] {
        check_faults(from_file(text), &[fault]);
    }
}

#[test]
fn rates_that_no_full_post_could_keep_are_faults() {
    for (text, fault) in [
        (
            "[limits]\nevents_per_second = 409",
            "limits.events_per_second: 409: what one",
        ),
        (
            "[limits]\nbytes_per_second = 99_999",
            "limits.bytes_per_second: 99999: what one",
        ),
    ] {
        check_faults(from_file(text), &[fault]);
    }
}

#[test]
fn pairs_without_a_fault() {
    for good in [
        "[redis]\nurl = 'redis://h'\nmanaged = false",
        "[redis]\nenabled = false\n[workers]\ncount = 1",
        "[diagnostics]\nengine_echo = '/engine.io/'",
        "[recovery]\nenabled = false\nwindow_ms = 999_999",
        "[engine]\nping_interval_ms = 300\nping_timeout_ms = 200",
        "[checks]\n[engine]\n",
        "[app.events]\nmessage = 'publish'",
    ] {
        assert!(from_file(good).is_ok(), "{good}: {:?}", from_file(good));
    }
}

#[test]
fn what_collides_with_something_else_is_a_fault() {
    for (text, fault) in [
        (
            "[emit]\nstream = 'socketio:log'",
            "emit.stream: \"socketio:log\" is below redis.prefix",
        ),
        (
            "[emit]\nnode_stream = 'socketio:session:x'",
            "emit.node_stream: \"socketio:session:x\" is below redis.prefix",
        ),
        (
            "[runtime]\ndirectory = '/etc/passwd'\n[redis]\ndirectory = '/srv'",
            "runtime.directory: /etc/passwd is no directory; name",
        ),
        (
            "[redis]\ndirectory = '/etc/passwd'",
            "redis.directory: /etc/passwd is no directory; name",
        ),
        (
            "[listen]\naddress = ':9000'\n[admin]\naddress = '127.0.0.1:9000'",
            "admin.address: 127.0.0.1:9000 is the port of listen.address 0.0.0.0:9000 too",
        ),
        (
            "[workers]\nmax_rss_bytes = 99_999_999_999_999_999_999",
            "workers.max_rss_bytes: 99999999999999999999 is not allowed; use 0 to ",
        ),
        (
            "[workers]\ncount = 0xffff_ffff_ffff_ffff",
            "workers.count: 0xffffffffffffffff is not allowed; use 1 to 1024",
        ),
    ] {
        check_faults(from_file(text), &[fault]);
    }
    for good in [
        "[emit]\nstream = ''\nnode_stream = 'socketio:ingest'",
        "[redis]\nprefix = 'x'\n[emit]\nstream = 'x:ingest'",
        "[redis]\nenabled = false\n[emit]\nstream = 'socketio:log'",
        "[listen]\naddress = '[::]:9000'\n[admin]\naddress = '127.0.0.1:9000'",
    ] {
        assert!(from_file(good).is_ok(), "{good}: {:?}", from_file(good));
    }
}

#[test]
fn url_and_managed_in_different_layers() {
    let managed = Place::new(&[("supervisor.toml", "[redis]\nmanaged = true")]);
    let config = managed
        .load(&[("REDIS_URL", "redis://h")], Overrides::default())
        .unwrap();
    assert!(!config.managed_redis && config.notices.iter().any(|notice| notice.contains("overrides")));
    let url = Place::new(&[("supervisor.toml", "[redis]\nurl = 'redis://h'")]);
    let config = url
        .load(&[("ANYWORKER_REDIS__MANAGED", "yes")], Overrides::default())
        .unwrap();
    assert!(config.managed_redis && config.masked_toml().contains("url = \"\""));
}

#[test]
fn faults_of_the_environment() {
    let env = [
        ("ANYWORKER_ENGINE__PING_INTERVALL_MS", "1"),
        ("ANYWORKER_FOO__BAR", "1"),
        ("ANYWORKER_WORKERS_COUNT", "1"),
        ("ANYWORKER_WORKERS__COUNT", "many"),
        ("ANYWORKER_CHECKS__OLLAMA__HTTP", "https://x"),
        ("ANYWORKER_HTTP__ORIGINS", "[1]"),
    ];
    check_faults(
        from_env(&env),
        &[
            "engine.ping_intervall_ms: unknown key; did you mean ANYWORKER_ENGINE__PING_INTERVAL_MS? (from environment ANY",
            "foo.bar: unknown key; remove it; the form is",
            "workers_count: unknown key; did you mean ANYWORKER_WORKERS__COUNT?",
            "workers.count: \"many\" is not a whole number; use 1 to 1024 (from environment ANYWORKER_WORKERS__COUNT)",
            "checks.ollama: only http:// can be checked",
            "http.origins: a value of type array has the wrong type",
        ],
    );
    let good = [
        ("ANYWORKER_LISTEN__ADDRESS", "127.0.0.1:0, [::1]:0"),
        (
            "ANYWORKER_HTTP__ORIGINS",
            r#"["https://a.example", "https://b.example"]"#,
        ),
        ("ANYWORKER_APP__EVENTS__JOIN", "enter"),
        ("ANYWORKER_CHECKS__OLLAMA__HTTP", "http://localhost:11434/"),
        ("ANYWORKER_ENGINE__COOKIE__NAME", "sid"),
    ];
    let config = from_env(&good).unwrap();
    assert_eq!(
        (config.listen.len(), config.settings.app.events.join.as_str()),
        (2, "enter")
    );
    assert_eq!(config.settings.checks["ollama"].timeout, Duration::from_secs(2));
    assert_eq!(config.settings.engine.cookie.unwrap().name, "sid");
}

/// What Kubernetes puts into the environment for Services that are called like us.
#[test]
fn names_that_are_not_meant_for_us_are_ignored() {
    let links = [
        ("ANYWORKER_SERVICE_HOST", "10.0.0.1"),
        ("ANYWORKER_SERVICE_PORT", "8000"),
        ("ANYWORKER_SERVICE_PORT_HTTP", "8000"),
        ("ANYWORKER_PORT", "tcp://10.0.0.1:8000"),
        ("ANYWORKER_PORT_8000_TCP", "tcp://10.0.0.1:8000"),
        ("ANYWORKER_PORT_8000_TCP_ADDR", "10.0.0.1"),
        ("ANYWORKER_PORT_8000_TCP_PORT", "8000"),
        ("ANYWORKER_PORT_8000_TCP_PROTO", "tcp"),
        ("ANYWORKER_REDIS_SERVICE_HOST", "10.0.0.2"),
        ("ANYWORKER_REDIS_PORT", "tcp://10.0.0.2:6379"),
        ("ANYWORKER_REDIS_PORT_6379_TCP_ADDR", "10.0.0.2"),
    ];
    let config = from_env(&links).unwrap();
    let notices = config.notices.iter().filter(|notice| notice.contains("ignored"));
    assert_eq!(notices.count(), 1, "{:?}", config.notices);
    assert!(config.notices[0].starts_with("ANYWORKER_PORT, ANYWORKER_PORT_8000_TCP, "));
}

#[test]
fn a_file_that_would_be_waited_for_is_a_fault() {
    for name in ["supervisor.toml", ".env"] {
        let place = Place::new(&[]);
        let fifo = place.0.path().join(name);
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let fault = format!("{}: cannot be read: not a regular file", fifo.display());
        check_faults(place.load(&[], Overrides::default()), &[&fault]);
    }
}

#[test]
fn the_files_that_were_read_are_known() {
    let place = Place::new(&[("supervisor.toml", ""), (".env", "")]);
    let config = place.load(&[], Overrides::default()).unwrap();
    assert_eq!(
        config.files,
        [PathBuf::from("supervisor.toml"), place.0.path().join(".env")]
    );
    assert!(from_env(&[]).unwrap().files.is_empty());
}

#[test]
fn security_checks() {
    let passed = |config: &Config, name: &str| config.settings.security.checks[name];
    let shipped = from_env(&[("ANYWORKER_RUNTIME__DIRECTORY", "/nowhere/x")]).unwrap();
    for (name, &passed) in &shipped.settings.security.checks {
        assert!(passed || name == "not_root", "{name}");
        assert!(
            document::page().contains(&format!("\n    {name} ")),
            "{name} is not explained"
        );
    }
    let root = nix::unistd::geteuid().is_root();
    assert_eq!(passed(&shipped, "not_root"), !root);
    assert_eq!(
        shipped
            .notices
            .iter()
            .any(|notice| notice.contains("not_root is false")),
        root
    );
    let away = from_env(&[("REDIS_URL", "redis://10.0.0.1"), ("ANYWORKER_HTTP__ORIGINS", "*")]).unwrap();
    for name in ["redis_private", "redis_password", "origins_restricted"] {
        assert!(!passed(&away, name), "{name}");
    }
    let safe = from_env(&[("REDIS_URL", "rediss://:p@10.0.0.1")]).unwrap();
    assert!(passed(&safe, "redis_private") && passed(&safe, "redis_password"));
    let origins = "[http]\ncredentials = true\norigins = ['http://localhost:3000', 'https://a.example']";
    assert!(passed(&from_file(origins).unwrap(), "credentials_safe"));
    assert!(!passed(
        &from_file(&origins.replace("localhost:3000", "b.example")).unwrap(),
        "credentials_safe"
    ));
}

#[test]
fn a_password_that_everybody_may_read() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new(&[(".env", "REDIS_URL=redis://:p@localhost")]);
    for (mode, passed) in [(0o644, false), (0o640, true)] {
        std::fs::set_permissions(place.0.path().join(".env"), PermissionsExt::from_mode(mode)).unwrap();
        let config = place.load(&[], Overrides::default()).unwrap();
        assert_eq!(
            config.settings.security.checks["config_not_world_readable"], passed,
            "{mode:o}"
        );
    }
}

#[test]
fn the_files_of_redis_are_where_systemd_keeps_state() {
    let place = Place::new(&[]);
    for (env, expected) in [
        (vec![("RUNTIME_DIRECTORY", "/run/a")], "/run/a/redis"),
        (
            vec![
                ("RUNTIME_DIRECTORY", "/run/a"),
                ("STATE_DIRECTORY", "/var/lib/a:/var/lib/b"),
            ],
            "/var/lib/a/redis",
        ),
        (
            vec![
                ("STATE_DIRECTORY", "/var/lib/a"),
                ("ANYWORKER_REDIS__DIRECTORY", "/srv/x"),
            ],
            "/srv/x",
        ),
    ] {
        let config = place.load(&env, Overrides::default()).unwrap();
        assert_eq!(config.redis_directory, Path::new(expected), "{env:?}");
    }
}

#[test]
fn runtime_directory() {
    let place = Place::new(&[]);
    let here = place.0.path().to_str().unwrap().to_owned();
    let xdg = format!("{here}/anyworker");
    for (env, expect) in [
        (
            vec![("RUNTIME_DIRECTORY", "/run/a:/run/b"), ("XDG_RUNTIME_DIR", &here)],
            "/run/a",
        ),
        (vec![("XDG_RUNTIME_DIR", &here)], &xdg),
        (
            vec![("XDG_RUNTIME_DIR", &here), ("ANYWORKER_RUNTIME__DIRECTORY", "/srv/x")],
            "/srv/x",
        ),
    ] {
        assert_eq!(
            place.load(&env, Overrides::default()).unwrap().runtime_directory,
            Path::new(expect),
            "{env:?}"
        );
    }
    let relative = place
        .load(&[("ANYWORKER_RUNTIME__DIRECTORY", "run")], Overrides::default())
        .unwrap();
    assert_eq!(relative.runtime_directory, place.0.path().join("run"));
}

#[test]
fn the_admin_listener_is_chosen_or_not() {
    let address = |config: &Config| config.admin.address.map(|address| address.to_string());
    let quiet = from_env(&[]).unwrap();
    assert_eq!(
        (address(&quiet).as_deref(), quiet.admin.chosen),
        (Some("127.0.0.1:9464"), false)
    );
    let chosen = from_env(&[("ANYWORKER_ADMIN__ADDRESS", ":9000")]).unwrap();
    assert_eq!(
        (address(&chosen).as_deref(), chosen.admin.chosen),
        (Some("0.0.0.0:9000"), true)
    );
    assert_eq!(address(&from_file("[admin]\naddress = ''").unwrap()), None);
    check_faults(
        from_file("[admin]\naddress = ''\npublic_health = false"),
        &["admin.address: none although"],
    );
    check_faults(
        from_file("[admin]\naddress = '127.0.0.1:8000'"),
        &["admin.address: 127.0.0.1:8000 is in listen.address too"],
    );
}

/// The reference file as it stands, and with its commented assignments in force.
#[test]
fn reference_file_names_every_key_with_its_default() {
    let reference = include_str!("../../supervisor.toml");
    let shipped = from_file(reference).unwrap_or_else(|faults| panic!("{faults}"));
    assert!(shipped.managed_redis);
    let defaults = from_env(&[]).unwrap();
    assert_eq!(
        (&shipped.listen, &shipped.workers),
        (&defaults.listen, &defaults.workers)
    );
    assert_eq!(shipped.settings, defaults.settings);

    let entries = document::pieces().into_iter().filter_map(|piece| match piece {
        document::Piece::Entry(entry) => Some((entry.name, entry.value)),
        document::Piece::Section { .. } | document::Piece::Text(_) => None,
    });
    let mut found: BTreeMap<String, String> = entries.collect();
    for key in keys::KEYS {
        let written = found
            .remove(key.name)
            .unwrap_or_else(|| panic!("{} is not in supervisor.toml", key.name));
        let value = format!("value = {written}").parse::<toml::Table>().unwrap();
        let value = values::from_toml(key, key.name, &value["value"]).unwrap();
        assert_eq!(value, key.kind.default_value(), "{}", key.name);
    }
    for key in keys::CHECK_KEYS {
        assert!(
            found.remove(key.name).is_some(),
            "{} is not in supervisor.toml",
            key.name
        );
    }
    assert!(found.is_empty(), "unknown: {found:?}");
}
