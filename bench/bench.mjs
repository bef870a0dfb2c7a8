// A small benchmark with the stock JavaScript client, loopback only: starts target/release/anyworker with a
// private Redis in a temporary directory, loads it, prints a table, and stops it again.
//
//   bench/run.sh [--seconds 3] [--workers 4] [--only echo,fanout,rooms,connect,polling]
//
// What an operation is:
//   echo     one ack: 100 WebSockets, each with one `echo` of 64 bytes in flight
//   fanout   one delivery: 200 members of one room on all workers, one publisher, 4 publishes in flight
//   rooms    one delivery: 20 rooms of 10 members, one publisher for each, 1 publish in flight per publisher
//   connect  one session: WebSocket opened, CONNECT answered, closed; 16 at a time
//   polling  one session by HTTP alone: handshake, CONNECT, 2 echoes, closed; 16 at a time, and each request
//            on a TCP connection of its own, so that any worker gets it
// Latency is seen by the client. CPU is utime + stime of /proc: "server" is the supervisor and its workers, "redis"
// the Redis that the supervisor started. The client is one process with one thread and usually the bottleneck:
// then operations per second and latency are the client's, CPU per operation is still the server's.
import { spawn, execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import http from "node:http";
import { createRequire } from "node:module";
import { availableParallelism, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const { io } = createRequire(join(root, "tests/clients/package.json"))("socket.io-client");

const opts = { seconds: 3, workers: 4, only: "echo,fanout,rooms,connect,polling" };
for (let args = process.argv.slice(2); args.length > 0; ) {
  const name = args.shift().replace(/^--/, "");
  if (!(name in opts)) fail(`unknown option ${name}; there are: ${Object.keys(opts).join(", ")}`);
  opts[name] = name === "only" ? args.shift() : Number(args.shift());
}
// Bounded, whatever was asked for.
opts.seconds = Math.min(Math.max(opts.seconds, 1), 60);

const TICK_US = 1e6 / Number(execFileSync("getconf", ["CLK_TCK"]));
const WARMUP_MS = 500;
const PATIENCE_MS = 10_000;

function fail(text) {
  console.error(`bench: ${text}`);
  process.exit(1);
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** `promise`, or an error that says what did not come. */
function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no ${what} in ${PATIENCE_MS} ms`)), PATIENCE_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** Starts anyworker with defaults but for the number of workers; resolves once it serves. */
async function startServer() {
  const binary = join(root, "target/release/anyworker");
  if (!existsSync(binary)) fail(`${binary} is missing; run: make bench`);
  const directory = mkdtempSync(join(tmpdir(), "anyworker-bench-"));
  const config = join(directory, "supervisor.toml");
  writeFileSync(config, `[listen]\naddress = "127.0.0.1:0"\n[workers]\ncount = ${opts.workers}\ngrace_ms = 2000\n` +
    `[runtime]\ndirectory = ${JSON.stringify(join(directory, "run"))}\n[logging]\nformat = "json"\n`);
  // No variable of the caller's is to change what is measured.
  const ours = ([name]) => !/^(ANYWORKER_|REDIS_)/.test(name);
  const env = Object.fromEntries(Object.entries(process.env).filter(ours));
  const child = spawn(binary, ["run", "--config", config], { cwd: directory, env, stdio: ["ignore", "ignore", "pipe"] });
  const ended = new Promise((done) => child.once("exit", done));
  let log = "";
  const serving = new Promise((done, reject) => {
    child.stderr.setEncoding("utf8").on("data", (text) => {
      log = (log + text).slice(-20_000);
      const line = log.split("\n").find((l) => l.includes('"message":"serving"') && l.endsWith("}"));
      if (line) done(JSON.parse(line));
    });
    ended.then((code) => reject(new Error(`anyworker ended with ${code}:\n${log}`)));
  });
  serving.catch(() => {});
  const stop = async () => {
    if (child.exitCode === null) child.kill("SIGTERM");
    await ended;
    rmSync(directory, { recursive: true, force: true });
  };
  try {
    const { urls, version } = await within(serving, "sign of a serving fleet");
    return { pid: child.pid, url: new URL(urls.split(" ")[0]).origin, version, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Ticks of the tree below `pid`, Redis apart. */
function cpu(pid) {
  const sum = { server: 0, redis: 0 };
  const visit = (pid) => {
    let stat, children;
    try {
      stat = readFileSync(`/proc/${pid}/stat`, "utf8");
      children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8");
    } catch {
      return; // It has just ended.
    }
    const name = stat.slice(stat.indexOf("(") + 1, stat.lastIndexOf(")"));
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    sum[/redis|valkey/.test(name) ? "redis" : "server"] += Number(fields[11]) + Number(fields[12]);
    children.split(" ").filter(Boolean).forEach(visit);
  };
  visit(pid);
  return sum;
}

function connect(url, options) {
  const socket = io(url, { forceNew: true, reconnection: false, timeout: PATIENCE_MS, ...options });
  const up = new Promise((done, reject) => socket.once("connect", () => done(socket)).once("connect_error", reject));
  return within(up, "connection");
}

const webSocket = (url) => connect(url, { transports: ["websocket"] });
const ask = (socket, ...event) => socket.timeout(PATIENCE_MS).emitWithAck(...event);

async function joined(url, room, onMessage) {
  const socket = await webSocket(url);
  socket.on("message", onMessage);
  if ((await ask(socket, "join", room)) !== "ok") throw new Error("room not joined");
  return socket;
}

/** Runs `make(i)` for i in 0..n, 32 at a time. */
async function many(n, make) {
  const made = [];
  for (let i = 0; i < n; i += 32) {
    const some = Array.from({ length: Math.min(32, n - i) }, (_, k) => make(i + k));
    made.push(...(await Promise.all(some)));
  }
  return made;
}

/** Each prepares, and returns steps that are repeated until time is up and call `state.done` for each operation. */
const scenarios = {
  async echo(url, state) {
    const sockets = await many(100, () => webSocket(url));
    const text = "x".repeat(64);
    state.close = () => sockets.forEach((socket) => socket.disconnect());
    return sockets.map((socket) => async () => {
      const begun = performance.now();
      await ask(socket, "echo", text);
      state.done(performance.now() - begun);
    });
  },

  fanout: (url, state) => publishing(url, state, { rooms: 1, members: 200, inFlight: 4 }),
  rooms: (url, state) => publishing(url, state, { rooms: 20, members: 10, inFlight: 1 }),

  async connect(url, state) {
    return Array.from({ length: 16 }, () => async () => {
      const begun = performance.now();
      const socket = await webSocket(url);
      state.done(performance.now() - begun);
      socket.disconnect();
    });
  },

  async polling(url, state) {
    return Array.from({ length: 16 }, () => async () => {
      const begun = performance.now();
      const agent = new http.Agent({ keepAlive: false });
      const socket = await connect(url, { transports: ["polling"], agent });
      await ask(socket, "echo", "a");
      await ask(socket, "echo", "b");
      state.done(performance.now() - begun);
      socket.disconnect();
    });
  },
};

async function publishing(url, state, { rooms, members, inFlight }) {
  // The room's waiting publish: how many have it, and who is to be told when all have.
  const waiting = new Map();
  const onMessage = ([id, begun]) => {
    state.done(performance.now() - begun);
    const publish = waiting.get(id);
    if (publish && --publish.left === 0) publish.all();
  };
  const sockets = await many(rooms * members, (i) => joined(url, `room-${i % rooms}`, onMessage));
  const publishers = await many(rooms, () => webSocket(url));
  state.close = () => [...sockets, ...publishers].forEach((socket) => socket.disconnect());
  let next = 0;
  const loop = (publisher, room) => async () => {
    const id = next++;
    const all = new Promise((done) => waiting.set(id, { left: members, all: done }));
    const ack = ask(publisher, "publish", room, [id, performance.now()]);
    try {
      await Promise.all([within(all, "delivery to every member"), ack]);
    } finally {
      waiting.delete(id);
    }
  };
  return publishers.flatMap((p, room) => Array.from({ length: inFlight }, () => loop(p, `room-${room}`)));
}

const round = (n, digits = 1) => Number(n.toFixed(digits));

async function measure(name, server) {
  const state = { over: false, counting: false, latencies: [], failed: 0, errors: {}, close() {} };
  state.done = (ms) => state.counting && state.latencies.push(ms);
  const steps = await scenarios[name](server.url, state);
  const running = steps.map(async (step) => {
    while (!state.over) {
      try {
        await step();
      } catch (error) {
        state.failed += 1;
        const text = error?.message ?? String(error);
        state.errors[text] = (state.errors[text] ?? 0) + 1;
        await sleep(100);
      }
    }
  });
  await sleep(WARMUP_MS);
  const [before, own, begun] = [cpu(server.pid), process.cpuUsage(), performance.now()];
  state.counting = true;
  await sleep(opts.seconds * 1000);
  state.counting = false;
  const [after, used, ms] = [cpu(server.pid), process.cpuUsage(own), performance.now() - begun];
  state.over = true;
  await Promise.all(running);
  state.close();
  await sleep(300);
  const sorted = state.latencies.sort((a, b) => a - b);
  const part = (p) => (sorted.length ? round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))], 2) : NaN);
  const perOp = (kind) => round(((after[kind] - before[kind]) * TICK_US) / sorted.length);
  return {
    scenario: name, ops: sorted.length, "ops/s": Math.round((sorted.length * 1000) / ms), "p50 ms": part(0.5),
    "p99 ms": part(0.99), "server µs/op": perOp("server"), "redis µs/op": perOp("redis"), failed: state.failed,
    "client CPU %": Math.round((used.user + used.system) / ms / 10), errors: state.errors,
  };
}

const wanted = opts.only.split(",");
const unknown = wanted.find((name) => !(name in scenarios));
if (unknown !== undefined) fail(`unknown scenario ${unknown}; there are: ${Object.keys(scenarios).join(", ")}`);

const server = await startServer().catch((error) => fail(error.message));
for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => server.stop().then(() => process.exit(1)));
const rows = [];
try {
  console.log(`anyworker ${server.version}, ${opts.workers} workers and a private Redis; ${availableParallelism()} cores, ` +
    `shared with the client (socket.io-client on Node ${process.version}); ${opts.seconds} s each`);
  for (const name of wanted) rows.push(await measure(name, server));
} finally {
  await server.stop();
}
const columns = Object.keys(rows[0]).filter((column) => column !== "errors");
const cell = (row, column) => String(row[column]).padStart(Math.max(column.length, 8));
console.log(["", ...columns.map((c) => c.padStart(Math.max(c.length, 8)))].join("  "));
for (const row of rows) console.log(["", ...columns.map((column) => cell(row, column))].join("  "));
console.log("An op: echo, an ack; fanout and rooms, a delivery; connect and polling, a session. CPU is that of the");
console.log("supervisor and its workers, and of Redis, per op. A client near 100 % is what limits ops/s and latency.");
for (const row of rows) for (const [text, n] of Object.entries(row.errors)) console.log(`${row.scenario}: ${n} × ${text}`);
process.exit(rows.some((row) => row.failed > 0) ? 1 : 0);
