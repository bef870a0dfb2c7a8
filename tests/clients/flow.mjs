// What an application relies on, seen through stock clients: each check by name. One line of JSON.
//
//   node flow.mjs --url URL [--transports polling,websocket] [--namespace /custom] [--fresh] [--only NAME]
//
// `--namespace` is one that the server has besides `/`. Exit 0 if every check passed.
import { Buffer } from "node:buffer";
import { clientOptions, connected, describe, once, options, transportOf, until } from "./common.mjs";

const opts = options({
  url: "", path: "/socket.io/", transports: "polling,websocket", namespace: "", fresh: false, only: "",
});
const base = clientOptions(opts);
const wanted = opts.transports.split(",").at(-1);
const run = `${process.pid}-${Date.now().toString(36)}`;
let sockets = [];
let rooms = 0;

const room = () => `room-${run}-${rooms++}`;

async function client(nsp = "/", more = {}) {
  const socket = await connected(opts.url + (nsp === "/" ? "" : nsp), { ...base, ...more });
  sockets.push(socket);
  return socket;
}

function same(found, expected) {
  const show = (value) => JSON.stringify(value, (_, v) => (v?.type === "Buffer" ? `bytes:${v.data.length}` : v));
  if (!equal(found, expected)) throw new Error(`got ${show(found)}, expected ${show(expected)}`);
}

function equal(a, b) {
  const bytes = (v) => v instanceof Uint8Array || v instanceof ArrayBuffer;
  if (bytes(a) || bytes(b)) return bytes(a) && bytes(b) && Buffer.from(a).equals(Buffer.from(b));
  if (typeof a !== "object" || typeof b !== "object" || !a || !b) return Object.is(a, b);
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => key in b && equal(a[key], b[key]));
}

const call = (socket, ...args) => socket.timeout(10_000).emitWithAck(...args);
const callAll = (socket, event, ...args) =>
  new Promise((resolve, reject) => {
    socket.timeout(10_000).emit(event, ...args, (error, ...back) => (error ? reject(error) : resolve(back)));
  });

/** Collects the `message` events of a socket, less the offset that a recoverable one gets as last argument. */
function inbox(socket) {
  const got = [];
  socket.on("message", (...args) => {
    if (socket._pid && args.length > 1 && typeof args.at(-1) === "string") args.pop();
    got.push(args);
  });
  return got;
}

const join = async (socket, name) => same(await call(socket, "join", name), "ok");
const publish = async (socket, name, payload) => same(await call(socket, "publish", name, payload), "ok");
const arrive = async (got, n) => {
  if (!(await until(() => got.length >= n))) throw new Error(`${got.length} of ${n} messages came`);
};

/**
 * Proves without waiting that nothing else came: everything goes through one order, so a socket
 * that has its own later message has all that went before.
 */
async function nothingElse(socket, got, expected) {
  const fence = room();
  await join(socket, fence);
  await publish(socket, fence, "fence");
  await until(() => got.some(([payload]) => payload === "fence"));
  same(got, [...expected, ["fence"]]);
}

const noise = (n) => Buffer.from(Array.from({ length: n }, (_, i) => (i * 31 + (i >> 8)) & 255));

const checks = {
  async "connects on the wanted transport"() {
    const socket = await client();
    if (!(await until(() => transportOf(socket) === wanted))) throw new Error(`on ${transportOf(socket)}`);
    if (!socket.id || socket.id === socket.io.engine.id) throw new Error("the Engine.IO id is public");
  },
  async "ack carries every argument"() {
    const socket = await client();
    same(await callAll(socket, "echo", 1, "two", { three: [true, null, 1.5] }), [1, "two", { three: [true, null, 1.5] }]);
    same(await callAll(socket, "echo"), []);
  },
  async "text of all kinds survives"() {
    const socket = await client();
    for (const text of ["", "\u001e", "a\u001eb4", "žluť 🐎 \u2028", "\u0000\"\\", "42[\"x\"]", "b64", "x".repeat(200_000)]) {
      same(await call(socket, "echo", text), text);
    }
  },
  async "binary both ways"() {
    const socket = await client();
    const args = [noise(3), { deep: [{ bytes: new Uint8Array(noise(70_000)) }, "x", noise(1)] }, noise(0)];
    same(await callAll(socket, "echo", ...args), args);
  },
  async "a hundred acks at once"() {
    const socket = await client();
    const numbers = Array.from({ length: 100 }, (_, i) => i);
    same(await Promise.all(numbers.map((i) => call(socket, "echo", i))), numbers);
  },
  async "a room gets what is published, others nothing"() {
    const [a, b, c] = await Promise.all([client(), client(), client()]);
    const [gotA, gotB, gotC] = [a, b, c].map(inbox);
    const name = room();
    await Promise.all([join(a, name), join(b, name)]);
    await publish(c, name, { hello: "room" });
    await Promise.all([arrive(gotA, 1), arrive(gotB, 1)]);
    await publish(a, name, "own");
    await Promise.all([nothingElse(a, gotA, [[{ hello: "room" }], ["own"]]), nothingElse(b, gotB, [[{ hello: "room" }], ["own"]])]);
    await nothingElse(c, gotC, []);
  },
  async "messages keep their order"() {
    const [a, b] = await Promise.all([client(), client()]);
    const got = inbox(b);
    const name = room();
    await join(b, name);
    const sent = Array.from({ length: 100 }, (_, i) => i);
    await Promise.all(sent.map((i) => publish(a, name, i)));
    await arrive(got, sent.length);
    same(got, sent.map((i) => [i]));
  },
  async "binary goes to a room"() {
    const [a, b] = await Promise.all([client(), client()]);
    const got = inbox(b);
    const name = room();
    await join(b, name);
    await publish(a, name, { file: noise(5000), tags: [noise(2)] });
    await publish(a, name, noise(4));
    await arrive(got, 2);
    same(got, [[{ file: noise(5000), tags: [noise(2)] }], [noise(4)]]);
  },
  async "who left a room gets nothing more"() {
    const [a, b] = await Promise.all([client(), client()]);
    const got = inbox(b);
    const name = room();
    await join(b, name);
    await publish(a, name, "before");
    await arrive(got, 1);
    same(await call(b, "leave", name), "ok");
    await publish(a, name, "after");
    await nothingElse(b, got, [["before"]]);
  },
  async "a client that left the server gets nothing and disturbs no other"() {
    const [a, b, c] = await Promise.all([client(), client(), client()]);
    const got = inbox(c);
    const name = room();
    await Promise.all([join(b, name), join(c, name)]);
    const gone = once(b, "disconnect");
    b.disconnect();
    same((await gone)[0], "io client disconnect");
    await publish(a, name, "still");
    await arrive(got, 1);
    same(got, [["still"]]);
  },
  async "a second namespace over the same connection"() {
    if (!opts.namespace) return;
    const main = await client();
    const other = main.io.socket(opts.namespace);
    sockets.push(other);
    await once(other, "connect", { failure: "connect_error" });
    if (other.id === main.id) throw new Error("one id in two namespaces");
    const [gotMain, gotOther] = [inbox(main), inbox(other)];
    const name = room();
    await Promise.all([join(main, name), join(other, name)]);
    same(await callAll(other, "echo", noise(9), 1), [noise(9), 1]);
    await publish(main, name, "main");
    await publish(other, name, "other");
    await Promise.all([nothingElse(main, gotMain, [["main"]]), nothingElse(other, gotOther, [["other"]])]);
    other.disconnect();
    same(await call(main, "echo", "still here"), "still here");
  },
  async "an unknown namespace is refused, the connection stays"() {
    const main = await client();
    const other = main.io.socket("/no-such-namespace");
    sockets.push(other);
    same((await once(other, "connect_error"))[0].message, "Invalid namespace");
    same(await call(main, "echo", 1), 1);
  },
  async "CONNECT may carry auth"() {
    const socket = await client("/", { auth: { token: "123", deep: { a: [1] } } });
    same(await call(socket, "echo", 1), 1);
  },
  async "an unknown event is acked with an error object"() {
    const socket = await client();
    const answer = await call(socket, "no-such-event", 1);
    if (typeof answer !== "object" || !answer) throw new Error(`got ${JSON.stringify(answer)}`);
    socket.emit("no-such-event", 2);
    same(await call(socket, "echo", 1), 1);
  },
  async "volatile and compressed events arrive on an idle connection"() {
    const socket = await client();
    await until(() => transportOf(socket) === wanted);
    same(await new Promise((resolve) => socket.compress(true).emit("echo", "packed", resolve)), "packed");
    await until(() => socket.io.engine.transport.writable);
    same(await new Promise((resolve) => socket.volatile.emit("echo", "light", resolve)), "light");
  },
  async "gets what it missed after the connection broke"() {
    if (wanted !== "websocket") return; // a poll that fails is no broken connection to the server
    const socket = await client("/", { reconnection: true, reconnectionDelay: 200, reconnectionDelayMax: 500 });
    const [peer, got] = [await client(), inbox(socket)];
    const [name, first] = [room(), socket.id];
    if (!(await until(() => transportOf(socket) === "websocket"))) throw new Error("no upgrade");
    await join(socket, name);
    await publish(peer, name, "before");
    await arrive(got, 1);
    const [closed, back] = [once(socket, "disconnect"), once(socket, "connect")];
    socket.io.engine.transport.ws.terminate();
    await closed;
    for (const payload of ["missed 1", { missed: noise(3) }]) await publish(peer, name, payload);
    await back;
    same([socket.recovered, socket.id], [true, first]);
    await publish(peer, name, "after");
    await arrive(got, 4);
    await nothingElse(socket, got, [["before"], ["missed 1"], [{ missed: noise(3) }], ["after"]]);
  },
  async "comes back by itself after the server closed"() {
    const socket = await client("/", { reconnection: true, reconnectionDelay: 10, reconnectionDelayMax: 100 });
    const got = inbox(socket);
    const [name, first] = [room(), socket.id];
    await join(socket, name);
    const [closed, back] = [once(socket, "disconnect"), once(socket, "connect")];
    socket.io.engine.write("7"); // no such Socket.IO packet type: the server must close
    const [reason] = await closed;
    if (!["transport close", "transport error"].includes(reason)) throw new Error(`reason ${reason}`);
    await back;
    if (Boolean(socket.recovered) !== (socket.id === first)) throw new Error("recovered, but under another id");
    if (!socket.recovered) await join(socket, name);
    await publish(socket, name, "again");
    await arrive(got, 1);
    same(got.map(([payload]) => payload), ["again"]);
  },
};

const result = { passed: [], failed: {} };
for (const [name, check] of Object.entries(checks)) {
  if (opts.only && !name.includes(opts.only)) continue;
  try {
    await check();
    result.passed.push(name);
  } catch (error) {
    result.failed[name] = describe(error);
  }
  for (const socket of sockets) socket.disconnect();
  sockets = [];
}
console.log(JSON.stringify(result));
process.exitCode = Object.keys(result.failed).length === 0 && result.passed.length > 0 ? 0 : 1;
