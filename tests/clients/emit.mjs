// Events from outside, by the emitters that people have: each reaches every client once, whatever its
// transport and worker. Prints what came, by door, and ends with one line of JSON.
import { Emitter } from "@socket.io/redis-emitter";
import { execFileSync } from "node:child_process";
import { createClient } from "redis";
import { clientOptions, connected, options, until } from "./common.mjs";

const opts = options({ url: "", redis: "", python: "python3", secret: "", clients: 12 });
const redis = await createClient({ socket: { path: opts.redis } }).connect();
const emitter = new Emitter(redis);

const ROOM = "chat";
const sockets = [];
for (let i = 0; i <= opts.clients; i++) {
  const transports = i % 2 ? "polling" : "websocket";
  const socket = await connected(opts.url, clientOptions({ transports, fresh: true, path: "/socket.io/" }));
  socket.got = [];
  socket.on("door", (...args) => socket.got.push(args));
  socket.ends = [];
  socket.on("disconnect", (reason) => socket.ends.push(reason));
  if (i < opts.clients && (await socket.emitWithAck("join", ROOM)) !== "ok") throw new Error("join");
  sockets.push(socket);
}
const members = sockets.slice(0, -1);
const outsider = sockets.at(-1);

const failed = {};
/** Sends, and checks that just `wanted` get `args` (an offset may follow), once. */
async function door(name, wanted, args, send) {
  await send();
  const same = (got) => JSON.stringify(got.slice(0, args.length)) === JSON.stringify(args);
  const counts = () => sockets.map((socket) => socket.got.filter(same).length);
  const all = await until(() => counts().every((n, i) => n >= (wanted.includes(sockets[i]) ? 1 : 0)));
  // What comes twice, or to others, comes close behind: an event to everybody follows it.
  const mark = `after ${name}`;
  emitter.emit("door", mark);
  const through = await until(() => sockets.every((socket) => socket.got.some(([first]) => first === mark)));
  const exact = counts().every((n, i) => n === (wanted.includes(sockets[i]) ? 1 : 0));
  if (!all || !through || !exact) failed[name] = counts();
}

async function post(body, token = opts.secret) {
  const headers = { authorization: `Bearer ${token}`, "content-type": "application/json" };
  return fetch(`${opts.url}/api/emit`, { method: "POST", headers, body: JSON.stringify(body) });
}

// The doors open a moment after the workers.
let probes = 0;
const heard = () => sockets.every((socket) => socket.got.length > 0);
while (!heard() && probes++ < 100) {
  emitter.emit("door", "probe");
  await until(heard, 100);
}

const bytes = Buffer.from([1, 2]);
await door("node, a room", members, ["node", 1], () => emitter.to(ROOM).emit("door", "node", 1));
await door("node, everybody", sockets, ["all"], () => emitter.emit("door", "all"));
await door("node, except", members.slice(1), ["except"], () => emitter.except(members[0].id).to(ROOM).emit("door", "except"));
await door("node, one", [outsider], ["one"], () => emitter.to(outsider.id).emit("door", "one"));
await door("node, binary", members, ["binary", bytes], () => emitter.to(ROOM).emit("door", "binary", bytes));
const python = () => execFileSync(opts.python, [new URL("emit.py", import.meta.url).pathname, `unix://${opts.redis}`, ROOM]);
await door("python", members, ["python", bytes], python);
await door("python async", members, ["python async", { n: 1 }], () => {});
const item = JSON.stringify({ event: "door", args: ["stream", [1]], room: ROOM });
await door("our stream", members, ["stream", [1]], () => redis.xAdd("socketio:ingest", "*", { event: item }));
const packet = { packet: { type: 2, data: ["door", "streams emitter"], nsp: "/" }, opts: { rooms: [ROOM], flags: {}, except: [] } };
const foreign = { uid: "emitter", nsp: "/", type: "3", data: JSON.stringify(packet) };
await door("the streams emitter's item", members, ["streams emitter"], () => redis.xAdd("socket.io", "*", foreign));
await door("http", members, ["http"], async () => {
  const event = { event: "door", args: ["http"], room: ROOM, id: "once" };
  for (const duplicate of [false, true]) {
    const answer = await post(event);
    const result = await answer.json();
    if (answer.status !== 200 || !/^\d+-\d+$/.test(result.offset) || result.duplicate !== duplicate) failed.http = result;
  }
});
await door("http, a list", members, ["b"], () => post([{ event: "door", data: "a", room: ROOM }, { event: "door", data: "b", room: ROOM }]));

emitter.in(ROOM).socketsJoin("second");
await door("joined", members, ["joined"], async () => {
  await until(() => false, 300);
  emitter.to("second").emit("door", "joined");
});
emitter.in(members[0].id).socketsLeave("second");
emitter.in(members[1].id).socketsLeave("second");
await door("left", members.slice(2), ["left"], async () => {
  await until(() => false, 300);
  emitter.to("second").emit("door", "left");
});
// What was sent to them just before arrives, and each hears of its end once, also if it polls.
const sentAway = members.slice(0, 4);
sentAway.forEach((socket, i) => {
  emitter.to(socket.id).emit("door", "farewell");
  emitter.in(socket.id).disconnectSockets(i >= 2);
});
if (!(await until(() => sentAway.every((socket) => !socket.connected)))) failed.disconnected = "still connected";
await until(() => false, 200);
for (const { ends, got, io } of sentAway) {
  if (ends.join() !== "io server disconnect") failed[`end of ${io.opts.transports}`] = ends;
  if (got.at(-1)?.[0] !== "farewell") failed[`farewell of ${io.opts.transports}`] = got.at(-1);
}
if (outsider.connected === false) failed.disconnected = "too many";

const refusals = [
  [await post({ event: "door" }, "wrong"), 401],
  [await post({ event: "connect" }), 400],
  [await post([]), 400],
  [await post({ event: "door", data: "x".repeat(2_000_000) }), 413],
  [await post({ event: "door", data: "x".repeat(33_000_000) }), 413],
  [await fetch(`${opts.url}/api/emit`), 405],
];
refusals.forEach(([answer, status]) => {
  if (answer.status !== status) failed[`http ${status}`] = answer.status;
});
console.log(JSON.stringify({ failed, left: await redis.xLen("socketio:ingest") }));
sockets.forEach((socket) => socket.disconnect());
await redis.quit();
process.exit(0);
