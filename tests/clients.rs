//! Stock clients against four workers: `socket.io-client` on Node and `python-socketio`. In every
//! transport, with a fresh TCP connection per request, so that each request may meet any worker.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

extern crate harness;

use harness::{NetworkFault, Plan, Program, Proxy, Request, Server, Talk, ask, node, python, python_5_0};
use serde_json::{Value, json};

const CLIENTS: u64 = 200;

/// Of `POST /api/emit`.
const SECRET: &str = "a secret that is long enough";

async fn server() -> Server {
    Plan::new()
        .with("socket = { namespaces = ['/', '/custom'] }")
        .start()
        .await
}

/// All clients get their first ack, ride the transport they want, and are still there 3 s later.
async fn herd(program: Program, transports: &str) {
    let server = server().await;
    let program = program
        .arg("--url", &server.url())
        .arg("--clients", &CLIENTS.to_string())
        .arg("--transports", transports)
        .flag("--fresh");
    let (found, content) = program.run().await;
    let all = json!({
        "clients": CLIENTS, "connected": CLIENTS, "acked": CLIENTS,
        "carried": CLIENTS, "alive": CLIENTS, "errors": {},
    });
    assert_eq!(found, all);
    assert!(content);
}

/// Every check of a flow program passes, over fresh connections and over kept ones.
async fn flow(program: impl Fn() -> Program, transports: &str) {
    let server = server().await;
    for flags in [&["--fresh"][..], &[]] {
        let mut program = program()
            .arg("--url", &server.url())
            .arg("--transports", transports)
            .arg("--namespace", "/custom");
        for flag in flags {
            program = program.flag(flag);
        }
        let (found, content) = program.run().await;
        assert_eq!(found["failed"], json!({}), "with {flags:?}");
        assert!(content, "with {flags:?}: {found}");
    }
}

#[tokio::test]
async fn node_herd_polling() {
    herd(node("herd.mjs"), "polling").await;
}

#[tokio::test]
async fn node_herd_upgrade() {
    herd(node("herd.mjs"), "polling,websocket").await;
}

#[tokio::test]
async fn node_herd_websocket() {
    herd(node("herd.mjs"), "websocket").await;
}

#[tokio::test]
async fn node_flow_polling() {
    flow(|| node("flow.mjs"), "polling").await;
}

#[tokio::test]
async fn node_flow_upgrade() {
    flow(|| node("flow.mjs"), "polling,websocket").await;
}

#[tokio::test]
async fn node_flow_websocket() {
    flow(|| node("flow.mjs"), "websocket").await;
}

#[tokio::test]
async fn python_herd_polling() {
    herd(python("herd.py"), "polling").await;
}

#[tokio::test]
async fn python_herd_upgrade() {
    herd(python("herd.py"), "polling,websocket").await;
}

#[tokio::test]
async fn python_herd_websocket() {
    herd(python("herd.py"), "websocket").await;
}

#[tokio::test]
async fn python_flow_polling() {
    flow(|| python("flow.py"), "polling").await;
}

#[tokio::test]
async fn python_flow_upgrade() {
    flow(|| python("flow.py"), "polling,websocket").await;
}

#[tokio::test]
async fn python_flow_websocket() {
    flow(|| python("flow.py"), "websocket").await;
}

#[tokio::test]
async fn emitters_of_others() {
    let server = Plan::new()
        .with(&format!("emit = {{ secret = '{SECRET}' }}"))
        .start()
        .await;
    let socket = server.redis().url();
    let python = python("emit.py");
    let program = node("emit.mjs")
        .arg("--url", &server.url())
        .arg("--redis", socket.strip_prefix("unix://").unwrap())
        .arg("--python", python.interpreter())
        .arg("--secret", SECRET);
    let (found, content) = program.run().await;
    assert_eq!(found, json!({ "failed": {}, "left": 0 }));
    assert!(content);
}

/// What `returns.mjs` finds of a client: version, transport, what its application has in the query.
async fn returns(client: &str, transports: &str, own: &str, server: &Server) -> Value {
    let program = node("returns.mjs")
        .arg("--url", &server.url())
        .arg("--client", client)
        .arg("--transports", transports)
        .arg("--own", own);
    let (found, content) = program.run().await;
    assert!(content, "{client} {transports} {own}: {found}");
    found
}

#[tokio::test]
async fn a_stock_client_recovers_whatever_its_application_has_in_the_query() {
    let server = server().await;
    for own in ["", "token=abc", "a=1&user=EIO%3D4", "recovery=1"] {
        for transports in ["websocket", "polling,websocket"] {
            let found = returns("socket.io-client", transports, own, &server).await;
            let all = json!({
                "arguments": [2, 2, 2, 2], "got": ["first", "bytes:300", "missed", "last"],
                "offset": true, "recovered": true,
            });
            assert_eq!(found, all, "{transports} {own}");
        }
        let polling = returns("socket.io-client", "polling", own, &server).await;
        let all = json!({
            "arguments": [2, 2, 2], "got": ["first", "bytes:300", "last"], "offset": true, "recovered": null,
        });
        assert_eq!(polling, all, "polling {own}");
    }
}

/// Versions before 4.6 cannot be told from later ones, so they say what they want.
#[tokio::test]
async fn a_client_that_wants_no_offsets_gets_no_argument_more() {
    let server = server().await;
    for client in ["socket.io-client", "socket.io-client-4-4"] {
        for transports in ["websocket", "polling,websocket"] {
            let found = returns(client, transports, "recovery=0", &server).await;
            let all = json!({
                "arguments": [1, 1, 1], "got": ["first", "bytes:300", "last"], "offset": false, "recovered": false,
            });
            assert_eq!(found, all, "{client} {transports}");
        }
    }
}

/// A stock client of some version.
struct Stock {
    name: &'static str,
    program: fn() -> Program,
    /// Of a handler whose event has one.
    arguments: u64,
    /// Those that do not come back anew.
    recovers: bool,
}

const STOCK: [Stock; 5] = [
    Stock {
        name: "JavaScript, newest",
        program: || node("through.mjs"),
        arguments: 2,
        recovers: true,
    },
    // Not to be told from a version that knows offsets.
    Stock {
        name: "JavaScript 4.4",
        program: || node("through.mjs").arg("--client", "socket.io-client-4-4"),
        arguments: 2,
        recovers: false,
    },
    Stock {
        name: "JavaScript 4.4, recovery=0",
        program: || {
            let program = node("through.mjs").arg("--client", "socket.io-client-4-4");
            program.arg("--own", "recovery=0")
        },
        arguments: 1,
        recovers: false,
    },
    Stock {
        name: "Python, newest",
        program: || python("through.py"),
        arguments: 1,
        recovers: false,
    },
    Stock {
        name: "Python 5.0",
        program: || python_5_0("through.py"),
        arguments: 1,
        recovers: false,
    },
];

impl Stock {
    /// What it finds over this transport: one disconnect, by the cut and not by the reload, and nothing twice.
    fn finds(&self, transport: &str) -> Value {
        let missed = self.recovers.then_some("missed");
        let got: Vec<&str> = ["first", "bytes:300", "reloaded"]
            .into_iter()
            .chain(missed)
            .chain(["last", "end"])
            .collect();
        json!({
            "arguments": vec![self.arguments; got.len()], "got": got, "disconnects": 1,
            "recovered": self.recovers, "transports": vec![transport; 3],
        })
    }
}

/// Each of [`STOCK`] through a reload and a cut, all at once.
async fn through(transports: &str) {
    let server = Plan::new()
        .with(&format!("emit = {{ secret = '{SECRET}' }}"))
        .start()
        .await;
    let proxy = Proxy::start(server.addr).await;
    let start = |stock: &Stock| {
        let program = (stock.program)().arg("--url", &proxy.url());
        program.arg("--transports", transports).talk()
    };
    let mut talks: Vec<Talk> = STOCK.iter().map(start).collect();
    all_say(&mut talks, &json!("in")).await;
    let output = server.cli("reload", &["--wait"]).await;
    assert!(output.status.success(), "{output:?}");
    for talk in &mut talks {
        talk.tell("reloaded").await;
    }
    all_say(&mut talks, &json!({ "disconnects": 0 })).await;
    proxy.set(NetworkFault::Cut);
    all_say(&mut talks, &json!("cut")).await;
    let event = json!({ "event": "message", "args": ["missed"], "room": "all" }).to_string();
    let request = Request::post("/api/emit", event).header("Authorization", &format!("Bearer {SECRET}"));
    assert_eq!(ask(server.addr, request).await.unwrap().status, 200);
    proxy.set(NetworkFault::None);
    let transport = transports.split(',').next_back().unwrap();
    for (stock, talk) in STOCK.iter().zip(&mut talks) {
        assert_eq!(talk.hear().await, stock.finds(transport), "{}", stock.name);
    }
}

async fn all_say(talks: &mut [Talk], step: &Value) {
    for (stock, talk) in STOCK.iter().zip(talks) {
        assert_eq!(&talk.hear().await, step, "{}", stock.name);
    }
}

#[tokio::test]
async fn every_client_through_reload_and_cut_by_polling() {
    through("polling").await;
}

#[tokio::test]
async fn every_client_through_reload_and_cut_by_upgrade() {
    through("polling,websocket").await;
}

#[tokio::test]
async fn every_client_through_reload_and_cut_by_websocket() {
    through("websocket").await;
}
