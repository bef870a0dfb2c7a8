// Clients of guide_app.py that talk to each other in a room until standard input is closed: what was acked must reach each
// other client once and in order. One line of JSON.
//
//   node guide_load.mjs --url URL --clients 6
import { io } from "socket.io-client";
import { options } from "./common.mjs";

const opts = options({ url: "", clients: 6, pause_ms: 20 });
const result = { acked: 0, unknown: 0, missing: 0, doubled: 0, disordered: 0, disconnects: 0, not_recovered: 0, slowest_ms: 0 };
const ACK_PATIENCE_MS = 30000;
let ending = false;
process.stdin.resume().on("end", () => (ending = true));

const acked = Array.from({ length: opts.clients }, () => new Set());
const heard = Array.from({ length: opts.clients }, () => []);

async function client(number) {
  // A third of them polls.
  const transports = number % 3 === 0 ? ["polling"] : ["websocket"];
  const socket = io(opts.url, {
    transports, forceNew: true, auth: { token: `user ${number}` }, reconnectionDelay: 50, reconnectionDelayMax: 200,
  });
  socket.on("said", ({ text }) => heard[number].push(text));
  let connected = false;
  socket.on("connect", () => {
    if (connected && !socket.recovered) result.not_recovered += 1;
    connected = true;
  });
  socket.on("disconnect", () => (ending ? undefined : (result.disconnects += 1)));
  await new Promise((resolve) => socket.once("connect", resolve));
  await socket.emitWithAck("join", "room");
  return socket;
}

async function talk(socket, number) {
  for (let count = 0; !ending; count += 1) {
    const text = `${number}:${count}`;
    const began = Date.now();
    try {
      await socket.timeout(ACK_PATIENCE_MS).emitWithAck("say", "room", text);
      acked[number].add(text);
      result.acked += 1;
      result.slowest_ms = Math.max(result.slowest_ms, Date.now() - began);
    } catch {
      // The connection ended before the ack: it may have been handled or not.
      result.unknown += 1;
    }
    await new Promise((resolve) => setTimeout(resolve, opts.pause_ms));
  }
}

const sockets = await Promise.all(Array.from({ length: opts.clients }, (_, number) => client(number)));
process.stderr.write("all are connected\n");
await Promise.all(sockets.map(talk));
// Until what was acked has come, or for so long.
const count = (list) => list.reduce((sum, part) => sum + part, 0);
const missing = () =>
  count(heard.map((texts, to) => {
    const has = new Set(texts);
    return count(acked.map((all, from) => (from === to ? 0 : [...all].filter((text) => !has.has(text)).length)));
  }));
for (let tries = 0; tries < 100 && missing() > 0; tries += 1) await new Promise((resolve) => setTimeout(resolve, 100));
result.missing = missing();
for (const texts of heard) {
  result.doubled += texts.length - new Set(texts).size;
  const latest = {};
  for (const text of texts) {
    const [from, number] = text.split(":").map(Number);
    if (number < (latest[from] ?? -1)) result.disordered += 1;
    latest[from] = number;
  }
}
console.log(JSON.stringify(result));
process.exit(0);
