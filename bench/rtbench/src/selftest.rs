//! Proves that the counters can fail: scenarios run against a server with known faults, and must report exactly these.

use crate::common::Common;
use crate::selftest_server::{Faults, Server};
use crate::sequence::{Checks, Seen};
use crate::stats::Report;
use crate::target::Outcome;
use crate::{chaos, connect, echo, fanout, polling};
use serde_json::{Value, json};
use std::time::Duration;

/// What was compared, by name.
#[derive(Default)]
struct Findings {
    report: Report,
    failed: usize,
}

impl Findings {
    fn equal(&mut self, name: &str, got: &Value, want: Value) {
        let verdict = if *got == want {
            format!("ok ({got})")
        } else {
            self.failed += 1;
            format!("FAILED: got {got}, want {want}")
        };
        self.report.insert(name.to_owned(), json!(verdict));
    }

    fn holds(&mut self, name: &str, condition: bool) {
        self.equal(name, &json!(condition), json!(true));
    }
}

pub(crate) async fn run() -> Outcome<Report> {
    let mut findings = Findings::default();
    bookkeeping(&mut findings);
    a_clean_server_is_clean(&mut findings).await?;
    fanout_counts_exactly(&mut findings).await?;
    wrong_echoes_are_errors(&mut findings).await?;
    unknown_sessions_fail_polling(&mut findings).await?;
    chaos_sees_a_cut(&mut findings).await?;
    chaos_counts_exactly(&mut findings).await?;
    if findings.failed > 0 {
        crate::stats::print(false, &findings.report);
        return Err(format!("selftest: {} failed", findings.failed));
    }
    let passed = findings.report.len();
    findings
        .report
        .insert("selftest".into(), json!(format!("{passed} passed, 0 failed")));
    Ok(findings.report)
}

fn bookkeeping(findings: &mut Findings) {
    let (mut seen, mut checks) = (Seen::default(), Checks::default());
    for sequence in [0, 1, 3, 2, 2, 5, 7] {
        seen.note(sequence, &mut checks);
    }
    findings.equal("seen: delivered", &json!(checks.delivered), json!(6));
    findings.equal("seen: out of order", &json!(checks.out_of_order), json!(1));
    findings.equal("seen: duplicated", &json!(checks.duplicated), json!(1));
    findings.equal("seen: lost of 9", &json!(seen.lost(9)), json!(3));
}

fn fanout_options(common: &Common) -> fanout::Options {
    fanout::Options {
        common: common.clone(),
        rooms: 2,
        publishers: 2,
        publishers_join: false,
        rate: Some(200.0),
        inflight: 4,
        payload: 64,
    }
}

fn closed_loop(common: &Common) -> fanout::Options {
    fanout::Options {
        rate: None,
        ..fanout_options(common)
    }
}

fn echo_options(common: &Common) -> echo::Options {
    echo::Options {
        common: common.clone(),
        inflight: 4,
        payload: 64,
    }
}

async fn a_clean_server_is_clean(findings: &mut Findings) -> Outcome<()> {
    let (server, common) = Server::start(Faults::default()).await?;
    let report = fanout::run(&fanout_options(&common)).await?;
    let per_room = 5;
    let expected = report["published_total"].as_u64().unwrap_or_default() * per_room;
    findings.equal("clean fanout: lost", &report["lost"], json!(0));
    findings.equal("clean fanout: duplicated", &report["duplicated"], json!(0));
    findings.equal("clean fanout: out of order", &report["out_of_order"], json!(0));
    findings.equal("clean fanout: deliveries", &report["delivered_total"], json!(expected));
    findings.holds("clean fanout: some deliveries", expected > 100);
    let options = fanout::Options {
        publishers_join: true,
        ..closed_loop(&common)
    };
    let report = fanout::run(&options).await?;
    findings.equal("clean closed loop: lost", &report["lost"], json!(0));
    findings.equal("clean closed loop: stalls", &report["stalls"], json!(0));
    let report = echo::run(&echo_options(&common)).await?;
    findings.equal("clean echo: errors", &report["errors"], json!({}));
    findings.holds("clean echo: some ops", report["ops"].as_u64() > Some(100));
    let options = connect::Options {
        common,
        inflight: 4,
        max_sessions: 200,
    };
    let report = connect::run(&options).await?;
    findings.equal("clean connect: errors", &report["errors"], json!({}));
    let unlike = server.mistakes.unlike_official.get();
    findings.equal("handshakes are those of the official client", &json!(unlike), json!(0));
    Ok(())
}

async fn fanout_counts_exactly(findings: &mut Findings) -> Outcome<()> {
    let faults = Faults {
        drop_every: 17,
        ..Faults::default()
    };
    let (server, common) = Server::start(faults).await?;
    let report = fanout::run(&fanout_options(&common)).await?;
    let dropped = server.mistakes.dropped.get();
    findings.equal("fanout: lost", &report["lost"], json!(dropped));
    findings.holds("fanout: some lost", dropped > 10);
    let report = fanout::run(&closed_loop(&common)).await?;
    findings.holds("closed loop with losses goes on", report["lost"].as_u64() > Some(0));

    let faults = Faults {
        duplicate_every: 13,
        ..Faults::default()
    };
    let (server, common) = Server::start(faults).await?;
    let report = fanout::run(&fanout_options(&common)).await?;
    let duplicated = server.mistakes.duplicated.get();
    findings.equal("fanout: duplicated", &report["duplicated"], json!(duplicated));
    findings.holds("fanout: some duplicated", duplicated > 10);

    let faults = Faults {
        swap_every: 11,
        ..Faults::default()
    };
    let (server, common) = Server::start(faults).await?;
    // One publisher: a swap of two publishers' messages would be no fault.
    let options = fanout::Options {
        publishers: 1,
        ..fanout_options(&common)
    };
    let report = fanout::run(&options).await?;
    let swapped = server.mistakes.swapped.get();
    findings.equal("fanout: out of order", &report["out_of_order"], json!(swapped));
    findings.equal("fanout: held back is lost", &report["lost"], json!(server.held()));
    findings.holds("fanout: some out of order", swapped > 10);

    let faults = Faults {
        wrong_room_every: 19,
        ..Faults::default()
    };
    let (server, common) = Server::start(faults).await?;
    let report = fanout::run(&fanout_options(&common)).await?;
    let misrouted = server.mistakes.misrouted.get();
    findings.equal("fanout: misrouted", &report["misrouted"], json!(misrouted));
    findings.holds("fanout: some misrouted", misrouted > 10);
    Ok(())
}

async fn wrong_echoes_are_errors(findings: &mut Findings) -> Outcome<()> {
    let faults = Faults {
        wrong_echo_every: 1000,
        ..Faults::default()
    };
    let (server, common) = Server::start(faults).await?;
    let report = echo::run(&echo_options(&common)).await?;
    let counted = report["errors"]["wrong echo"].as_u64().unwrap_or_default();
    let made = server.mistakes.wrong_echo.get();
    // The run ends with requests under way: the server may have answered one more wrongly.
    findings.holds("echo: some wrong ones", counted > 0);
    findings.holds(
        "echo: wrong ones counted",
        (made.saturating_sub(1)..=made).contains(&counted),
    );
    Ok(())
}

async fn unknown_sessions_fail_polling(findings: &mut Findings) -> Outcome<()> {
    let faults = Faults {
        unknown_sid_every: 1,
        ..Faults::default()
    };
    let (server, mut common) = Server::start(faults).await?;
    common.connections = 3;
    let options = polling::Options {
        common,
        echoes: 1,
        upgrade: false,
        max_sessions: 30,
    };
    let report = polling::run(&options).await?;
    let unknown = server.mistakes.unknown_sid.get();
    findings.equal("polling: completed", &report["sessions_completed"], json!(0));
    findings.equal("polling: all counted", &json!(unknown), json!(30));
    let errors = &report["errors"]["http 400: Session ID unknown"];
    findings.equal("polling: unknown sid", errors, json!(unknown));
    Ok(())
}

fn chaos_options(common: &Common) -> chaos::Options {
    chaos::Options {
        common: Common {
            duration: 4.0,
            ..common.clone()
        },
        rooms: 2,
        publishers: 2,
        rate: 100.0,
        payload: 64,
        fault_cmd: Some("exit $((FAULT_NO - 1))".into()),
        every: 1.0,
        max_faults: 2,
        ack_timeout: 0.5,
        drain: 1.0,
        backoff_ms: 50,
        backoff_max_ms: 200,
    }
}

/// Five of ten sessions recover with everything, five are forgotten and miss messages.
async fn chaos_sees_a_cut(findings: &mut Findings) -> Outcome<()> {
    let faults = Faults {
        cut_after: Some(Duration::from_millis(1500)),
        down_for: Duration::from_millis(700),
        recover_even: true,
        ..Faults::default()
    };
    let (_, common) = Server::start(faults).await?;
    let report = chaos::run(&chaos_options(&common)).await?;
    findings.equal("chaos: disconnects", &report["client_disconnects"], json!(10));
    findings.equal("chaos: recovered", &report["sessions_recovered"], json!(5));
    findings.equal("chaos: lost sessions", &report["sessions_lost"], json!(5));
    findings.equal("chaos: clients with loss", &report["clients_with_loss"], json!(5));
    findings.holds("chaos: messages lost", report["messages_lost"].as_u64() > Some(0));
    findings.holds("chaos: failed attempts", report["failed_attempts"].as_u64() > Some(0));
    let gap = report["longest_gap_ms"]["max"].as_u64();
    findings.holds("chaos: gap", gap >= Some(700));
    let failed = &report["faults_failed"];
    findings.equal("chaos: fault command's exits", failed, json!(["exit status: 1"]));
    Ok(())
}

async fn chaos_counts_exactly(findings: &mut Findings) -> Outcome<()> {
    let (_, common) = Server::start(Faults::default()).await?;
    let report = chaos::run(&chaos_options(&common)).await?;
    let names = [
        "client_disconnects",
        "sessions_recovered",
        "sessions_lost",
        "messages_lost",
        "duplicated",
        "out_of_order",
    ];
    for name in names {
        findings.equal(&format!("calm chaos: {name}"), &report[name], json!(0));
    }
    let faults = Faults {
        drop_every: 23,
        duplicate_every: 29,
        ..Faults::default()
    };
    let (server, common) = Server::start(faults).await?;
    let report = chaos::run(&chaos_options(&common)).await?;
    let (dropped, duplicated) = (server.mistakes.dropped.get(), server.mistakes.duplicated.get());
    findings.equal("faulty chaos: lost", &report["messages_lost"], json!(dropped));
    findings.equal("faulty chaos: duplicated", &report["duplicated"], json!(duplicated));
    Ok(())
}
