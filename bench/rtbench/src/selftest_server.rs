//! A Socket.IO server in this process that makes known mistakes, and counts them.

use crate::common::Common;
use crate::stats::bump;
use crate::target::Outcome;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::spawn_local;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::Message;

/// Packets on their way to one client. Many more than a selftest sends: a packet beyond would be a loss of its own.
const OUTBOX: usize = 65_536;
/// Of the polling request that is read (bytes): the tool's requests are short.
const REQUEST_BYTES_MAX: usize = 4096;
const OPEN: &str = r#"0{"sid":"x","upgrades":[],"pingInterval":200,"pingTimeout":200}"#;

/// What the server does wrong; every n-th time, 0 for never.
#[derive(Default, Clone)]
pub(crate) struct Faults {
    pub(crate) drop_every: u64,
    pub(crate) duplicate_every: u64,
    pub(crate) swap_every: u64,
    pub(crate) wrong_room_every: u64,
    pub(crate) wrong_echo_every: u64,
    /// Answers polling requests that carry a session id with 'Session ID unknown'.
    pub(crate) unknown_sid_every: u64,
    /// Cuts every member's connection once, after so long, and serves no new one for some time.
    pub(crate) cut_after: Option<Duration>,
    pub(crate) down_for: Duration,
    /// After the cut even sessions come back with what they missed; odd ones are forgotten.
    pub(crate) recover_even: bool,
}

/// How often it really did.
#[derive(Default)]
pub(crate) struct Mistakes {
    pub(crate) dropped: Cell<u64>,
    pub(crate) duplicated: Cell<u64>,
    pub(crate) swapped: Cell<u64>,
    pub(crate) misrouted: Cell<u64>,
    pub(crate) wrong_echo: Cell<u64>,
    pub(crate) unknown_sid: Cell<u64>,
    /// WebSocket handshakes without what tells that the client knows offsets.
    pub(crate) unlike_official: Cell<u64>,
}

/// Packets to a client; `None` cuts its connection.
type Outbox = mpsc::Sender<Option<String>>;

struct Session {
    outbox: Option<Outbox>,
    rooms: HashSet<String>,
    /// What was published to its rooms: number and event.
    log: Vec<(u64, String)>,
    /// Held back to be sent after the next one.
    held: Option<String>,
}

pub(crate) struct Server {
    faults: Faults,
    pub(crate) mistakes: Mistakes,
    /// Of whatever may go wrong.
    count: Cell<u64>,
    next_session: Cell<u64>,
    is_down: Cell<bool>,
    sessions: RefCell<HashMap<u64, Session>>,
}

impl Server {
    /// Starts it, and says how to reach it.
    pub(crate) async fn start(faults: Faults) -> Outcome<(Rc<Self>, Common)> {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .map_err(|error| error.to_string())?;
        let addr = listener.local_addr().map_err(|error| error.to_string())?;
        let server = Rc::new(Self {
            faults,
            mistakes: Mistakes::default(),
            count: Cell::new(0),
            next_session: Cell::new(0),
            is_down: Cell::new(false),
            sessions: RefCell::default(),
        });
        spawn_local(server.clone().accept(listener));
        if let Some(after) = server.faults.cut_after {
            spawn_local(server.clone().cut(after));
        }
        let common = Common {
            url: format!("http://{addr}"),
            path: "/socket.io/".into(),
            connections: 10,
            duration: 1.0,
            warmup: 0.2,
            server_pid: vec![],
            redis_pid: vec![],
            json: false,
            auth: None,
            src_addrs: 4,
            timeout: 5.0,
            ev_echo: "echo".into(),
            ev_join: "join".into(),
            ev_publish: "publish".into(),
            ev_message: "message".into(),
        };
        Ok((server, common))
    }

    /// Events that are held back for good: nothing came after them.
    pub(crate) fn held(&self) -> usize {
        let sessions = self.sessions.borrow();
        sessions.values().filter(|session| session.held.is_some()).count()
    }

    async fn accept(self: Rc<Self>, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            if !self.is_down.get() {
                spawn_local(self.clone().serve(stream));
            }
        }
    }

    async fn cut(self: Rc<Self>, after: Duration) {
        sleep(after).await;
        self.is_down.set(true);
        // Members only: the publishers go on, so that a forgotten member misses something.
        for session in self.sessions.borrow_mut().values_mut() {
            if !session.rooms.is_empty()
                && let Some(outbox) = session.outbox.take()
            {
                outbox.try_send(None).ok();
            }
        }
        sleep(self.faults.down_for).await;
        self.is_down.set(false);
    }

    async fn serve(self: Rc<Self>, mut stream: TcpStream) {
        let mut head = [0u8; REQUEST_BYTES_MAX];
        let count = stream.peek(&mut head).await.unwrap_or(0);
        let head = String::from_utf8_lossy(&head[..count]).into_owned();
        if head.contains("transport=polling") {
            return self.poll(&mut stream).await;
        }
        if !head.contains("/?EIO=4&transport=websocket") || !head.to_lowercase().contains("\norigin: http://127.") {
            bump(&self.mistakes.unlike_official);
        }
        let Ok(websocket) = tokio_tungstenite::accept_async(stream).await else {
            return;
        };
        let (mut writer, mut reader) = websocket.split();
        let (outbox, mut packets) = mpsc::channel::<Option<String>>(OUTBOX);
        outbox.try_send(Some(OPEN.to_owned())).ok();
        let mut session = 0;
        loop {
            tokio::select! {
                packet = packets.recv() => match packet.flatten() {
                    Some(text) => if writer.send(Message::text(text)).await.is_err() { return },
                    None => return,
                },
                message = reader.next() => match message {
                    Some(Ok(Message::Text(text))) => self.packet(&text, &mut session, &outbox),
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => {}
                },
            }
        }
    }

    fn packet(&self, text: &str, session: &mut u64, outbox: &Outbox) {
        if let Some(auth) = text.strip_prefix("40") {
            *session = self.connect(auth, outbox);
            return;
        }
        let send = |packet: String| outbox.try_send(Some(packet)).ok();
        let Some(rest) = text.strip_prefix("42") else { return };
        let Some((id, array)) = rest.find('[').and_then(|at| rest.split_at_checked(at)) else {
            return;
        };
        let arguments: Vec<Value> = serde_json::from_str(array).unwrap_or_default();
        match arguments.first().and_then(Value::as_str) {
            Some("echo") => {
                bump(&self.count);
                let is_wrong = hit(self.count.get(), self.faults.wrong_echo_every);
                if is_wrong {
                    bump(&self.mistakes.wrong_echo);
                }
                let echoed = if is_wrong { json!(["no"]) } else { json!(arguments[1..]) };
                send(format!("43{id}{echoed}"));
            }
            Some("join") => {
                let room = arguments[1].as_str().unwrap_or_default().to_owned();
                if let Some(session) = self.sessions.borrow_mut().get_mut(session) {
                    session.rooms.insert(room);
                }
                send(format!("43{id}[\"ok\"]"));
            }
            Some("publish") => {
                self.publish(arguments[1].as_str().unwrap_or_default(), &arguments[2]);
                send(format!("43{id}[\"ok\"]"));
            }
            _ => {}
        }
    }

    /// Answers CONNECT, and returns the number of the session.
    fn connect(&self, auth: &str, outbox: &Outbox) -> u64 {
        let send = |packet: String| outbox.try_send(Some(packet)).ok();
        let auth: Value = serde_json::from_str(auth).unwrap_or_default();
        let pid = auth["pid"].as_str().and_then(|pid| pid.strip_prefix("pid-"));
        let known = pid.and_then(|pid| pid.parse::<u64>().ok());
        let mut sessions = self.sessions.borrow_mut();
        if let Some(number) = known.filter(|number| self.faults.recover_even && number % 2 == 0)
            && let Some(session) = sessions.get_mut(&number)
        {
            let offset: u64 = auth["offset"]
                .as_str()
                .and_then(|offset| offset.parse().ok())
                .unwrap_or(0);
            // What was missed comes before the answer, as from the official server.
            for (_, event) in session.log.iter().filter(|(at, _)| *at > offset) {
                send(event.clone());
            }
            send(format!(r#"40{{"sid":"sid-{number}","pid":"pid-{number}"}}"#));
            session.outbox = Some(outbox.clone());
            return number;
        }
        let number = self.next_session.get();
        bump(&self.next_session);
        let session = Session {
            outbox: Some(outbox.clone()),
            rooms: HashSet::new(),
            log: vec![],
            held: None,
        };
        sessions.insert(number, session);
        send(format!(r#"40{{"sid":"sid-{number}","pid":"pid-{number}"}}"#));
        send("2".to_owned());
        number
    }

    fn publish(&self, room: &str, payload: &Value) {
        for session in self.sessions.borrow_mut().values_mut() {
            if session.rooms.contains(room) {
                self.deliver(session, payload);
            }
        }
    }

    fn deliver(&self, session: &mut Session, payload: &Value) {
        bump(&self.count);
        let number = self.count.get();
        let event = format!("42{}", json!(["message", payload, number.to_string()]));
        session.log.push((number, event.clone()));
        let Some(outbox) = &session.outbox else { return };
        let send = |packet: String| outbox.try_send(Some(packet)).ok();
        if hit(number, self.faults.drop_every) {
            return bump(&self.mistakes.dropped);
        }
        if hit(number, self.faults.wrong_room_every) {
            // To a member of this room, but marked for another: as if it had been misrouted.
            bump(&self.mistakes.misrouted);
            let mut fields: Vec<&str> = payload.as_str().unwrap_or_default().split('|').collect();
            fields[2] = "999";
            send(format!("42{}", json!(["message", fields.join("|")])));
        }
        if hit(number, self.faults.swap_every) && session.held.is_none() {
            session.held = Some(event);
            return;
        }
        send(event.clone());
        if hit(number, self.faults.duplicate_every) {
            bump(&self.mistakes.duplicated);
            send(event);
        }
        if let Some(held) = session.held.take() {
            bump(&self.mistakes.swapped);
            send(held);
        }
    }

    async fn poll(&self, stream: &mut TcpStream) {
        let mut request = vec![0u8; REQUEST_BYTES_MAX];
        let count = stream.read(&mut request).await.unwrap_or(0);
        let request = String::from_utf8_lossy(&request[..count]).into_owned();
        bump(&self.count);
        let (status, body) = if !request.contains("&sid=") {
            ("200 OK", OPEN)
        } else if hit(self.count.get(), self.faults.unknown_sid_every) {
            bump(&self.mistakes.unknown_sid);
            ("400 Bad Request", r#"{"code":1,"message":"Session ID unknown"}"#)
        } else {
            ("200 OK", "ok")
        };
        let length = body.len();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        stream.write_all(answer.as_bytes()).await.ok();
    }
}

fn hit(number: u64, every: u64) -> bool {
    every > 0 && number.is_multiple_of(every)
}
