//! What `.env` files and environments hold that is not for us, or not well formed.

use super::*;
use crate::config::layers::env_name;

fn dot_env(bytes: &[u8]) -> Result<Config, Faults> {
    let place = Place::new(&[]);
    std::fs::write(place.0.path().join(".env"), bytes).unwrap();
    place.load(&[], Overrides::default())
}

/// A start never fails for a statement that sets nothing of ours; what it says of ours is in force.
#[test]
fn what_is_for_others_is_no_fault() {
    for foreign in [
        &b"KEY=\"-----BEGIN PRIVATE KEY-----\nMIIB=\n-----END PRIVATE KEY-----\""[..],
        b"DEBUG",
        b"export\tDEBUG=1",
        b"# caf\xe9",
        b"GREETING=gr\xfc\xdf",
        b"???",
        b"A B=1",
        b"OPEN=\"no end",
        b"OPEN='no end",
        b"QUOTED='a' b",
        b"=value",
        b"YAML: value",
        b"JSON={\"a\": [1, 2]}",
        b"OTHER=${NOT_SET}",
        b"ANYWORKER_PORT=tcp://10.0.0.1:8000",
        b"NUL=\0",
        b"[section]",
        b"redis_url = nothing",
        b"REDIS_HOST=localhost",
    ] {
        for (before, after) in [
            (&b""[..], &b"\n"[..]),
            (b"\xef\xbb\xbf", b"\n"),
            (b"", b"\r\n"),
            (b"", b"\r"),
        ] {
            let ours = b"REDIS_DB=7";
            let text = [before, foreign, after, ours].concat();
            let config = dot_env(&text).unwrap_or_else(|faults| panic!("{foreign:?}: {faults}"));
            assert_eq!(
                config.settings.redis.unwrap().db,
                7,
                "{:?}",
                String::from_utf8_lossy(&text)
            );
        }
    }
}

/// Python makes its virtual environments in directories of this name.
#[test]
fn a_directory_is_no_file() {
    let place = Place::new(&[]);
    std::fs::create_dir(place.0.path().join(".env")).unwrap();
    std::fs::create_dir(place.0.path().join("etc")).unwrap();
    std::fs::write(place.0.path().join("etc/supervisor.toml"), "").unwrap();
    std::fs::write(place.0.path().join("etc/.env"), "REDIS_DB=5").unwrap();
    let config = place.load_file(Some("etc/supervisor.toml"), &[], Overrides::default());
    assert_eq!(config.unwrap().settings.redis.unwrap().db, 5);
}

/// A mistake in a statement of ours is a fault with its line, and shows no value.
#[test]
fn what_is_for_us_is_a_fault() {
    for (text, expect) in [
        (
            "\nREDIS_URL=\"redis://:secret@h",
            ".env:2: the value of REDIS_URL is not understood",
        ),
        (
            "REDIS_URL='redis://:secret@h' x",
            ".env:1: the value of REDIS_URL is not understood",
        ),
        (
            "REDIS_URL: redis://:secret@h",
            ".env:1: the value of REDIS_URL: is not understood",
        ),
        (
            "REDIS_URL redis://:secret@h",
            ".env:1: the value of REDIS_URL is not understood",
        ),
        (
            "A='\n\n'\nexport ANYWORKER_EMIT__SECRET=\"secret",
            ".env:4: the value of ANYWORKER_EMIT__SECRET is",
        ),
        (
            "ANYWORKER_EMIT__SECERT='secret",
            ".env:1: the value of ANYWORKER_EMIT__SECERT is",
        ),
        (
            "REDIS_URL=redis://:secret\u{fffd}@h",
            "redis.url: the value has bytes that are not UTF-8; write it in UTF-8",
        ),
        (
            "ANYWORKER_WORKERS__CUONT=3",
            "workers.cuont: unknown key; did you mean ANYWORKER_WORKERS__COUNT?",
        ),
    ] {
        let faults: Vec<String> = dot_env(text.as_bytes()).expect_err(text).lines().collect();
        assert!(faults.len() == 1 && faults[0].contains(expect), "{text:?}: {faults:?}");
        assert!(!faults[0].contains("secret"), "{faults:?}");
    }
    // PowerShell's `>` writes such a file; nothing of it can be read.
    let faults = dot_env(b"\xff\xfeR\0E\0D\0I\0S\0").expect_err("UTF-16").to_string();
    assert!(
        faults.contains(".env: cannot be read: it is UTF-16, not UTF-8;"),
        "{faults}"
    );
    // A name without a value leaves the key to the other layers.
    assert!(dot_env(b"REDIS_URL\nANYWORKER_WORKERS__COUNT\n").unwrap().managed_redis);
}

#[test]
fn references() {
    let config = dot_env(b"PASSWORD='a#b $x'\nREDIS_URL=redis://:${PASSWORD}@h/${DB:-3}").unwrap();
    let redis = config.settings.redis.as_ref().unwrap();
    assert_eq!((redis.password.as_ref().unwrap().expose(), redis.db), ("a#b $x", 3));
    assert!(!config.notices.iter().any(|notice| notice.contains("refers to")));
    let unset = dot_env(b"OTHER=${NOT_SET}\nREDIS_URL=redis://h${NOT_SET}").unwrap();
    let hints: Vec<&String> = unset
        .notices
        .iter()
        .filter(|notice| notice.contains("refers to"))
        .collect();
    assert!(
        hints.len() == 1 && hints[0].contains(".env: REDIS_URL refers to ${NOT_SET}, which has no value"),
        "{hints:?}"
    );
}

#[test]
fn a_private_authority_has_a_file() {
    let place = Place::new(&[
        ("ca.pem", ""),
        ("supervisor.toml", "[redis]\nurl = 'rediss://h'\nca_file = 'ca.pem'"),
    ]);
    let config = place.load(&[], Overrides::default()).unwrap();
    assert_eq!(
        config.settings.redis.unwrap().ca_file,
        Some(place.0.path().join("ca.pem"))
    );
    let env = [("ANYWORKER_REDIS__CA_FILE", "/nowhere/ca.pem")];
    let fault =
        "redis.ca_file: /nowhere/ca.pem is no file; name a file with the certificate of the authority (PEM) (from";
    check_faults(place.load(&env, Overrides::default()), &[fault]);
    let unset = place.load(&[("ANYWORKER_REDIS__CA_FILE", "")], Overrides::default());
    assert_eq!(unset.unwrap().settings.redis.unwrap().ca_file, None);
}

/// A `REDIS_URL` that a Python backend reads as well.
#[test]
fn a_shared_url_may_have_parameters_of_python() {
    let place = Place::new(&[("ca.pem", ""), ("url.pem", "")]);
    let load = |env: &[(&str, &str)]| place.load(env, Overrides::default());
    let url = "rediss://h/1?socket_timeout=5&decode_responses=true&ssl_ca_certs=url.pem";
    let config = load(&[("REDIS_URL", url)]).unwrap();
    let notice = "redis.url: socket_timeout, decode_responses in the URL: for redis-py alone";
    assert!(
        config.notices.iter().any(|told| told.starts_with(notice)),
        "{:?}",
        config.notices
    );
    let redis = config.settings.redis.unwrap();
    assert_eq!((redis.db, redis.ca_file), (1, Some(place.0.path().join("url.pem"))));
    // The key wins; without TLS there is nothing to trust.
    let both = load(&[("REDIS_URL", url), ("ANYWORKER_REDIS__CA_FILE", "ca.pem")]).unwrap();
    assert_eq!(
        both.settings.redis.unwrap().ca_file,
        Some(place.0.path().join("ca.pem"))
    );
    let plain = load(&[("REDIS_URL", "redis://h?ssl_ca_certs=/nowhere")]).unwrap();
    assert_eq!(plain.settings.redis.unwrap().ca_file, None);
    let unknown = [("REDIS_URL", "redis://:secret@h?ssl_certfile=secret")];
    let fault = "redis.url: the URL has a parameter ssl_certfile that means nothing here: db, user, pass and ssl_ca_certs do; \
                 take it out; if another program needs it, give this one a URL without it in ANYWORKER_REDIS__URL (from";
    check_faults(load(&unknown), &[fault]);
    let own = [unknown[0], ("ANYWORKER_REDIS__URL", "redis://own")];
    assert_eq!(
        load(&own).unwrap().settings.redis.unwrap().to_string(),
        "redis://own:6379/0"
    );
}

/// An empty value means "off" where that is a value, and otherwise sets nothing: compose files pass on unset variables so.
#[test]
fn empty_values() {
    let defaults = from_env(&[]).unwrap();
    for key in keys::KEYS {
        for empty in ["", " \t"] {
            let name = env_name(key.name);
            let loaded = from_env(&[(&name, empty)]);
            if !matches!(key.kind, keys::Kind::List(_) | keys::Kind::Text(_)) {
                let config = loaded.unwrap_or_else(|faults| panic!("{name}: {faults}"));
                assert_eq!(config.masked_toml(), defaults.masked_toml(), "{name}");
                let notice = format!("environment {name} is empty: it sets nothing");
                assert!(config.notices.contains(&notice), "{:?}", config.notices);
            } else if let Err(faults) = loaded {
                assert!(faults.to_string().starts_with(key.name), "{name}: {faults}");
            }
        }
    }
    let file = Place::new(&[(
        "supervisor.toml",
        "[admin]\naddress = '127.0.0.1:9999'\n[workers]\ncount = 3",
    )]);
    let env = [("ANYWORKER_ADMIN__ADDRESS", ""), ("ANYWORKER_WORKERS__COUNT", "")];
    let config = file.load(&env, Overrides::default()).unwrap();
    assert_eq!((config.admin.address, config.workers.count), (None, 3));
}
