//! Publishers to rooms. Every delivery is checked against what was published.

use crate::common::Common;
use crate::echo::connect_all;
pub(crate) use crate::fanout_run::Options;
use crate::fanout_run::{Rooms, Run};
use crate::publish::publish_loop;
use crate::sio::{Connection, Packet, parse};
use crate::stats::{Report, measure};
use crate::target::{Outcome, Target};
use serde_json::{Value, json};
use std::rc::Rc;
use tokio::task::{JoinHandle, spawn_local};

pub(crate) async fn run(options: &Options) -> Outcome<Report> {
    let common = &options.common;
    let target = common.target()?;
    let run = Run::new(options);
    let mut tasks = start_members(&run, &target, options).await;
    tasks.extend(start_publishers(&run, &target, options).await?);
    let (mut report, before) = measure(common, &run.stats, || run.published.get()).await;
    let published = run.published.get() - before;
    run.drain().await;
    let (checks, sample) = run.verdict();
    let mut put = |name: &str, value: Value| report.insert(name.to_owned(), value);
    put("published_in_window", json!(published));
    put("scenario", json!("fanout"));
    put("members", json!(run.members.borrow().len()));
    put("published_total", json!(run.published.get()));
    put("delivered_total", json!(checks.delivered));
    put("lost", json!(checks.lost));
    put("lost_sample", json!(sample));
    put("duplicated", json!(checks.duplicated));
    put("out_of_order", json!(checks.out_of_order));
    put("misrouted", json!(checks.misrouted));
    put("stalls", json!(run.stalls.get()));
    put("errors", json!(*run.stats.errors.borrow()));
    tasks.iter().for_each(JoinHandle::abort);
    Ok(report)
}

/// Connects the members, lets each join its room, and starts to read.
async fn start_members(run: &Rc<Run>, target: &Rc<Target>, options: &Options) -> Vec<JoinHandle<()>> {
    let common = &options.common;
    let connections = connect_all(target, common, common.connections, &run.stats).await;
    let mut tasks = Vec::new();
    for (number, mut connection) in connections.into_iter().enumerate() {
        let room = number % options.rooms;
        if let Err(error) = join(&mut connection, target, common, room).await {
            run.stats.error(&error);
            continue;
        }
        let (member, run) = (run.add_member(Rooms::One(room)), run.clone());
        tasks.push(spawn_local(async move {
            loop {
                match connection.socket.receive().await {
                    Ok(text) => {
                        if let Packet::Event(array) = parse(&text) {
                            run.deliver(member, array);
                        }
                    }
                    Err(error) => return run.stats.error(&error),
                }
            }
        }));
    }
    tasks
}

async fn start_publishers(run: &Rc<Run>, target: &Rc<Target>, options: &Options) -> Outcome<Vec<JoinHandle<()>>> {
    let common = &options.common;
    let mut connections = connect_all(target, common, options.publishers, &run.stats).await;
    if connections.len() < options.publishers {
        let errors = run.stats.errors.borrow();
        return Err(format!("could not connect the publishers: {errors:?}"));
    }
    let mut members = vec![None; options.publishers];
    if options.publishers_join {
        for (connection, member) in connections.iter_mut().zip(&mut members) {
            for room in 0..options.rooms {
                join(connection, target, common, room).await?;
            }
            *member = Some(run.add_member(Rooms::All));
        }
    }
    let mut tasks = Vec::new();
    for (publisher, (connection, member)) in connections.into_iter().zip(members).enumerate() {
        let (run, options) = (run.clone(), options.clone());
        tasks.push(spawn_local(async move {
            if let Err(error) = publish_loop(publisher, connection, member, &run, &options).await {
                run.stats.error(&format!("publisher: {error}"));
            }
        }));
    }
    Ok(tasks)
}

async fn join(connection: &mut Connection, target: &Target, common: &Common, room: usize) -> Outcome<()> {
    connection
        .call(target, &common.ev_join, &format!("\"room-{room}\""))
        .await
}
