//! The application link: the scripts as a worker runs them, and as a process does, which knows nothing but what is published.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

use redis::FromRedisValue;
use session::{Entry, EntryKind, Sid};
use std::collections::HashMap;
use std::time::Duration;
use store::{Applications, LinkTerms, Put, Store, Tail, TailEvent, Unit};
use support::{PATIENCE, Redis, World, event, eventually};
use tokio::time::timeout;

const LINK: &str = "socketio:{app}:link:1";
const DUE: Duration = Duration::from_secs(60);

/// A process of the application.
struct Process {
    connection: redis::Connection,
    link: HashMap<String, String>,
    me: String,
    batch: u64,
}

impl Process {
    fn new(redis: &Redis) -> Self {
        let link = redis.run(&["HGETALL", LINK]);
        let mut process = Self {
            connection: redis.client().get_connection().expect("a connection"),
            link,
            me: String::new(),
            batch: 0,
        };
        let number: u64 = process.script("begin", &[]);
        process.me = format!("{number}-t");
        process
    }

    fn script<T: FromRedisValue>(&mut self, name: &str, args: &[&str]) -> T {
        self.attempt(name, args).expect("a script")
    }

    fn attempt<T: FromRedisValue>(&mut self, name: &str, args: &[&str]) -> redis::RedisResult<T> {
        let keys: Vec<String> = serde_json::from_str(&self.link[&format!("keys_{name}")]).expect("a list of keys");
        let mut cmd = redis::cmd("EVAL");
        cmd.arg(&self.link[name]).arg(keys.len()).arg(keys).arg(args);
        cmd.query(&mut self.connection)
    }

    /// Partitions with their epochs; `-` marks what is to be given back.
    fn lease(&mut self, how: &str, back: &[&str]) -> Vec<String> {
        let me = self.me.clone();
        let args = [&[&me[..], how, "test"], back].concat();
        let mut said: Vec<String> = self.script("lease", &args);
        said.remove(0);
        said
    }

    /// Does operations in one batch; a letter for each.
    fn write(&mut self, operations: &[&[&str]]) -> String {
        self.batch += 1;
        self.write_again(operations)
    }

    /// The latest batch once more.
    fn write_again(&mut self, operations: &[&[&str]]) -> String {
        let mut args = vec![self.batch.to_string(), self.me.clone(), "0".to_owned(), "0".to_owned()];
        for operation in operations {
            args.extend(operation[..3].iter().map(|word| (*word).to_owned()));
            args.push((operation.len() - 3).to_string());
            args.extend(operation[3..].iter().map(|word| (*word).to_owned()));
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let said: String = self.script("write", &args);
        said.split(' ').nth(3).expect("letters").to_owned()
    }
}

async fn worker(world: &World, me: &str) -> (Store, Tail, Applications) {
    worker_with(world, me, LinkTerms::default()).await
}

async fn worker_with(world: &World, me: &str, terms: LinkTerms) -> (Store, Tail, Applications) {
    let (store, tail) = world.worker(me).await;
    let link = store.applications().expect("a Redis");
    link.publish(&terms).await.expect("publish");
    (store, tail, link)
}

fn public(n: u8) -> Sid {
    Sid::public([n; 12])
}

fn connect(sid: &Sid) -> Unit {
    let auth = Some("{}".to_owned());
    Unit::connect(
        0,
        (sid, None),
        "/",
        r#"{"path":"/"}"#.to_owned(),
        auth,
        (&support::sid(1), DUE),
    )
}

fn said(sid: &Sid, args: &str) -> Unit {
    Unit::event(0, sid, "/", None, args.to_owned(), Vec::new())
}

fn redis_of(world: &World) -> &Redis {
    match world {
        World::Redis(redis) => redis,
        World::Memory(_) => panic!("a Redis"),
    }
}

type Items = Vec<(String, HashMap<String, String>)>;

fn inbox(redis: &Redis, name: &str) -> Items {
    redis.run(&["XRANGE", &format!("socketio:{{app}}:{name}"), "-", "+"])
}

async fn entries(tail: &mut Tail, count: usize) -> Vec<Entry> {
    let mut all = Vec::new();
    while all.len() < count {
        if let TailEvent::Entries(some) = event(tail).await {
            all.extend(some.iter().map(|(_, bytes)| Entry::decode(bytes).expect("an entry")));
        }
    }
    all
}

fn texts(entries: &[Entry]) -> Vec<(EntryKind, String)> {
    let text = |entry: &Entry| String::from_utf8_lossy(&entry.text).into_owned();
    entries.iter().map(|entry| (entry.kind, text(entry))).collect()
}

#[test]
fn what_a_client_does_waits_in_its_partition_in_order() {
    support::on_redis(async |world| {
        let (_store, _tail, link) = worker(&world, "w-1").await;
        let sid = public(1);
        let first = link.put(vec![connect(&sid)]);
        let rest = link.put(vec![said(&sid, r#"["a"]"#), said(&sid, r#"["b",1]"#)]);
        assert_eq!(first.await.unwrap(), [Put::Done]);
        assert_eq!(rest.await.unwrap(), [Put::Done, Put::Done]);
        let items = inbox(redis_of(&world), "inbox:0");
        let what: Vec<_> = items
            .iter()
            .map(|(_, item)| (item["k"].as_str(), item.get("d").map(String::as_str)))
            .collect();
        assert_eq!(
            what,
            [
                ("connect", None),
                ("event", Some(r#"["a"]"#)),
                ("event", Some(r#"["b",1]"#))
            ]
        );
        assert!(
            items
                .iter()
                .all(|(_, item)| item["s"] == sid.as_str() && item["n"] == "/" && item["o"] == "0")
        );
        // What is secret is in the socket's hash, which expires, and in no record.
        assert!(
            items
                .iter()
                .all(|(_, item)| !item.contains_key("e") && !item.contains_key("a"))
        );
        let sock: HashMap<String, String> = redis_of(&world).run(&["HGETALL", &format!("socketio:{{app}}:sock:{sid}")]);
        assert_eq!((sock["a"].as_str(), sock["state"].as_str()), ("{}", "pending"));
        let ttl: i64 = redis_of(&world).run(&["PTTL", &format!("socketio:{{app}}:sock:{sid}")]);
        assert!(ttl > 0, "{ttl}");
    });
}

#[test]
fn a_full_partition_takes_a_disconnect_and_no_more_events() {
    support::on_redis(async |world| {
        let terms = LinkTerms {
            backlog_max: 3,
            ..LinkTerms::default()
        };
        let (_store, _tail, link) = worker_with(&world, "w-1", terms).await;
        let (sid, other) = (public(1), public(2));
        let units = vec![connect(&sid), said(&sid, "[1]"), said(&sid, "[2]"), said(&sid, "[3]")];
        assert_eq!(
            link.put(units).await.unwrap(),
            [Put::Done, Put::Done, Put::Done, Put::Full]
        );
        assert_eq!(link.put(vec![said(&sid, "[3]")]).await.unwrap(), [Put::Full]);
        assert_eq!(
            link.put(vec![Unit::leave(&sid, "client disconnect")]).await.unwrap(),
            [Put::Done]
        );
        assert_eq!(
            link.put(vec![Unit::leave(&sid, "client disconnect")]).await.unwrap(),
            [Put::Nothing]
        );
        assert_eq!(
            link.put(vec![Unit::leave(&other, "client disconnect")]).await.unwrap(),
            [Put::Nothing]
        );
        assert_eq!(inbox(redis_of(&world), "inbox:0").len(), 4);
    });
}

#[test]
fn a_partition_has_one_owner_and_its_epoch_rises_with_each() {
    support::on_redis(async |world| {
        let (_store, _tail, link) = worker(&world, "w-1").await;
        let redis = redis_of(&world);
        let mut a = Process::new(redis);
        let all = a.lease("run", &[]);
        assert_eq!(all.len(), 16);
        assert!(all.iter().all(|line| line.ends_with(" 1")), "{all:?}");
        // A second one: half of them are too many, and are had only when they are given back.
        let mut b = Process::new(redis);
        assert!(b.lease("run", &[]).is_empty());
        let of_a = a.lease("run", &[]);
        let surplus: Vec<&str> = of_a.iter().filter_map(|line| line.strip_prefix('-')).collect();
        assert_eq!(surplus.len(), 8);
        let back: Vec<&str> = surplus.iter().map(|line| line.split(' ').next().unwrap()).collect();
        assert_eq!(a.lease("run", &back).len(), 8);
        // It was told that there is something.
        let woken = inbox(redis, &format!("inbox:@{}", b.me.split('-').next().unwrap()));
        assert_eq!(woken.last().expect("a message").1["k"], "wake");
        let of_b = b.lease("run", &[]);
        assert_eq!(of_b.len(), 8);
        assert!(of_b.iter().all(|line| line.ends_with(" 2")), "{of_b:?}");
        // The end of a process frees what it has at once.
        b.lease("end", &[]);
        assert_eq!(a.lease("run", &[]).len(), 16);
        // A record knows the epoch in which it was written.
        let sid = public(1);
        link.put(vec![connect(&sid)]).await.unwrap();
        let epoch = a
            .lease("run", &[])
            .iter()
            .find_map(|line| line.strip_prefix("0 ").map(str::to_owned));
        assert_eq!(Some(inbox(redis, "inbox:0")[0].1["o"].clone()), epoch);
    });
}

#[test]
fn a_process_that_drains_keeps_what_it_has_and_others_get_more() {
    support::on_redis(async |world| {
        let (_store, _tail, _link) = worker(&world, "w-1").await;
        let (mut a, mut b) = (Process::new(redis_of(&world)), Process::new(redis_of(&world)));
        a.lease("run", &[]);
        let drained = a.lease("drain", &[]);
        assert_eq!(drained.iter().filter(|line| line.starts_with('-')).count(), 16);
        b.lease("run", &[]);
        assert_eq!(a.lease("drain", &["3", "4"]).len(), 14);
        assert_eq!(b.lease("run", &[]).len(), 2);
    });
}

#[test]
fn a_process_that_is_silent_is_replaced_and_fenced() {
    support::on_redis(async |world| {
        let terms = LinkTerms {
            lease: Duration::from_millis(60),
            ..LinkTerms::default()
        };
        let (_store, mut tail, link) = worker_with(&world, "w-1", terms).await;
        let redis = redis_of(&world);
        let sid = public(1);
        link.put(vec![connect(&sid)]).await.unwrap();
        let mut a = Process::new(redis);
        a.lease("run", &[]);
        let id = inbox(redis, "inbox:0")[0].0.clone();
        let mut b = Process::new(redis);
        eventually("the lease runs out", || {
            let taken = b.lease("run", &[]).len();
            async move { taken == 16 }
        })
        .await;
        let emit = ["emit", "0", "1", "/", "[]", "[]", "", r#"2["late"]"#];
        assert_eq!(a.write(&[&emit, &["settle", "0", "1", &id]]), "ff");
        assert_eq!(inbox(redis, "inbox:0").len(), 1);
        let emit = ["emit", "0", "2", "/", "[]", "[]", "", r#"2["in time"]"#];
        assert_eq!(b.write(&[&emit, &["settle", "0", "2", &id]]), "oo");
        assert_eq!(
            texts(&entries(&mut tail, 1).await),
            [(EntryKind::Emit, r#"42["in time"]"#.to_owned())]
        );
        assert!(inbox(redis, "inbox:0").is_empty());
    });
}

#[test]
fn a_batch_counts_once_and_its_answer_is_told_again() {
    support::on_redis(async |world| {
        let (_store, mut tail, link) = worker(&world, "w-1").await;
        let sid = public(1);
        link.put(vec![connect(&sid)]).await.unwrap();
        let mut process = Process::new(redis_of(&world));
        process.lease("run", &[]);
        let batch: &[&[&str]] = &[
            &["admit", "0", "1", sid.as_str()],
            &["join", "", "", sid.as_str(), "r\"|\\m"],
            &[
                "emit",
                "",
                "",
                "/chat|x",
                r#"["r"]"#,
                r#"["not"]"#,
                "",
                "2/chat|x,[\"m\"]",
            ],
            &["nonsense", "", ""],
        ];
        assert_eq!(process.write(batch), "ooou");
        assert_eq!(process.write_again(batch), "ooou");
        let all = entries(&mut tail, 3).await;
        assert_eq!(texts(&all)[1], (EntryKind::Join, r#"["r\"|\\m"]"#.to_owned()));
        assert_eq!(all[0].target.rooms, [sid.as_str()]);
        assert_eq!(all[0].kind, EntryKind::Admit);
        let target = &all[2].target;
        assert_eq!(
            (target.nsp.as_str(), &target.rooms[..], &target.except[..]),
            ("/chat|x", &["r".to_owned()][..], &["not".to_owned()][..])
        );
        // An older number is one that has been replaced.
        process.batch = 1;
        process.write(&[&["join", "", "", sid.as_str(), "other"]]);
        process.batch = 1;
        let stale = process.attempt::<String>("write", &["1", &process.me.clone(), "0", "0"]);
        assert!(stale.unwrap_err().to_string().contains("STALE"));
        let rooms: Vec<String> = process.script("read", &["rooms", sid.as_str()]);
        assert_eq!(rooms.len(), 2);
        let members: Vec<String> = process.script("read", &["members", "/", "r\"|\\m"]);
        assert_eq!(members, [sid.as_str()]);
    });
}

#[test]
fn what_a_handler_does_again_appears_once() {
    support::on_redis(async |world| {
        let (_store, mut tail, link) = worker(&world, "w-1").await;
        let sid = public(1);
        link.put(vec![connect(&sid)]).await.unwrap();
        let mut process = Process::new(redis_of(&world));
        process.lease("run", &[]);
        let sid = sid.as_str();
        let emit = |id| ["emit", "0", "1", "/", "[]", "[]", id, r#"2["m"]"#];
        assert_eq!(
            process.write(&[&emit("r/1"), &emit("r/1"), &emit("r/2"), &emit(""), &emit("")]),
            "odooo"
        );
        let ack = [
            "ack",
            "0",
            "1",
            "/",
            sid,
            "r/ack",
            "461-7[{\"_placeholder\":true,\"num\":0}]",
            "bytes",
        ];
        assert_eq!(process.write(&[&ack, &ack]), "od");
        assert_eq!(
            process.write(&[&["admit", "0", "1", sid], &["admit", "0", "1", sid]]),
            "od"
        );
        let join = ["join", "0", "1", sid, "room"];
        let leave = ["leave", "0", "1", sid, "room"];
        assert_eq!(process.write(&[&join, &join, &leave, &leave]), "onon");
        let all = entries(&mut tail, 8).await;
        assert_eq!(all[4].attachments, ["bytes"]);
        assert_eq!(
            (all[4].kind, &all[4].target.rooms[..]),
            (EntryKind::Ack, &[sid.to_owned()][..])
        );
    });
}

#[test]
fn a_socket_that_is_kicked_refused_or_forgotten_leaves_nothing() {
    support::on_redis(async |world| {
        let (_store, mut tail, link) = worker(&world, "w-1").await;
        let redis = redis_of(&world);
        let (kicked, refused) = (public(1), public(2));
        link.put(vec![connect(&kicked), connect(&refused)]).await.unwrap();
        let mut process = Process::new(redis);
        process.lease("run", &[]);
        let (k, r) = (kicked.as_str(), refused.as_str());
        let admitted: &[&[&str]] = &[
            &["admit", "0", "1", k],
            &["join", "0", "1", k, "a"],
            &["join", "0", "1", k, "b"],
        ];
        assert_eq!(process.write(admitted), "ooo");
        assert_eq!(
            process.write(&[&["close", "", "", "/", "b"], &["close", "", "", "/", "b"]]),
            "on"
        );
        // Its disconnect is a record like that of a client's own, and comes once.
        assert_eq!(process.write(&[&["kick", "", "", k], &["kick", "", "", k]]), "on");
        assert_eq!(
            link.put(vec![Unit::leave(&kicked, "transport close")]).await.unwrap(),
            [Put::Nothing]
        );
        let last = inbox(redis, "inbox:0").pop().expect("a record").1;
        assert_eq!(
            (last["k"].as_str(), last["d"].as_str()),
            ("disconnect", "server disconnect")
        );
        assert_eq!(
            process.write(&[
                &["join", "", "", k, "late"],
                &["save", "", "", "missing", "session", "{}"]
            ]),
            "gg"
        );
        assert_eq!(
            process.write(&[
                &["refuse", "0", "1", r, r#"{"message":"no"}"#],
                &["forget", "0", "1", k]
            ]),
            "oo"
        );
        let all = texts(&entries(&mut tail, 6).await);
        assert_eq!(all[3], (EntryKind::Leave, r#"["b"]"#.to_owned()));
        assert_eq!(all[4], (EntryKind::Disconnect, "false".to_owned()));
        assert_eq!(all[5], (EntryKind::Refuse, r#"{"message":"no"}"#.to_owned()));
        assert_eq!(
            link.put(vec![Unit::leave(&refused, "client disconnect")])
                .await
                .unwrap(),
            [Put::Nothing]
        );
        let mut keys: Vec<String> = redis.run(&["KEYS", "socketio:{app}:*"]);
        keys.retain(|key| {
            ["sock:", "in:", "room:", "members"]
                .iter()
                .any(|part| key.contains(part))
        });
        assert_eq!(keys, Vec::<String>::new());
    });
}

#[test]
fn a_record_that_is_given_up_is_a_dead_letter() {
    support::on_redis(async |world| {
        let (_store, _tail, link) = worker(&world, "w-1").await;
        let redis = redis_of(&world);
        let sid = public(1);
        link.put(vec![said(&sid, r#"["deadly"]"#)]).await.unwrap();
        let mut process = Process::new(redis);
        process.lease("run", &[]);
        let id = inbox(redis, "inbox:0")[0].0.clone();
        let dead = ["dead", "0", "1", &id[..], "5 attempts"];
        assert_eq!(process.write(&[&dead, &dead]), "on");
        let letters = inbox(redis, "dead");
        let letter = &letters[0].1;
        assert_eq!(
            (letter["why"].as_str(), letter["d"].as_str()),
            ("5 attempts", r#"["deadly"]"#)
        );
        assert!(inbox(redis, "inbox:0").is_empty());
    });
}

#[test]
fn answers_reach_the_process_that_asked_if_it_lives() {
    support::on_redis(async |world| {
        let (_store, _tail, link) = worker(&world, "w-1").await;
        let redis = redis_of(&world);
        let mut process = Process::new(redis);
        process.lease("run", &[]);
        let number: u32 = process.me.split('-').next().unwrap().parse().unwrap();
        let sid = public(1);
        let answer = |to| Unit::answer(to, &sid, 7, "[1]".to_owned(), vec!["raw".into()]);
        let put = link.put(vec![answer(number), answer(number + 1)]).await.unwrap();
        assert_eq!(put, [Put::Done, Put::Nothing]);
        let item = inbox(redis, &format!("inbox:@{number}")).pop().expect("an answer").1;
        assert_eq!(
            (item["k"].as_str(), item["i"].as_str(), item["b0"].as_str()),
            ("ack", "7", "raw")
        );
        process.lease("end", &[]);
        assert_eq!(link.put(vec![answer(number)]).await.unwrap(), [Put::Nothing]);
    });
}

#[test]
fn sockets_are_looked_after_by_one_worker_at_a_time() {
    support::on_redis(async |world| {
        let (_store, _tail, link) = worker(&world, "w-1").await;
        let (_other, _tail2, other) = worker(&world, "w-2").await;
        let (sid, session) = (public(1), support::sid(1));
        let soon = Unit::connect(0, (&sid, None), "/n", "{}".to_owned(), None, (&session, Duration::ZERO));
        link.put(vec![soon, connect(&public(2))]).await.unwrap();
        let mut found = Vec::new();
        timeout(PATIENCE, async {
            while found.is_empty() {
                found = link.due(DUE).await.unwrap();
            }
        })
        .await
        .expect("it is due");
        assert_eq!(found.len(), 1);
        assert_eq!(
            (&found[0].sid, found[0].nsp.as_str(), found[0].session.as_ref()),
            (&sid, "/n", Some(&session))
        );
        assert_eq!(other.due(DUE).await.unwrap(), []);
        assert_eq!(
            link.put(vec![Unit::touch(&sid, DUE), Unit::touch(&public(9), DUE)])
                .await
                .unwrap(),
            [Put::Done, Put::Nothing]
        );
    });
}
