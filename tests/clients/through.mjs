// A stock client of a given version over one transport, through a reload of the server and a cut of the network, told of each
// by its standard input. One line of JSON for each step, the last one with what it found.
//
//   node through.mjs --url URL [--client socket.io-client] [--transports websocket] [--own key=value]
import { Buffer } from "node:buffer";
import { createInterface } from "node:readline";
import { isDeepStrictEqual } from "node:util";
import { once, options, transportOf, until } from "./common.mjs";

const opts = options({ url: "", client: "socket.io-client", transports: "websocket", own: "" });
const { io } = await import(opts.client);
const transports = opts.transports.split(",");
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const room = `through-${process.pid}-${Date.now()}`;
const found = { arguments: [], got: [], disconnects: 0, recovered: false, transports: [] };

const say = (step) => console.log(JSON.stringify(step));
const call = (socket, ...args) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no ack for ${args[0]}`)), 10_000);
    socket.emit(...args, (...back) => {
      clearTimeout(timer);
      resolve(back);
    });
  });

const socket = io(opts.url, {
  forceNew: true, query: Object.fromEntries(new URLSearchParams(opts.own)), reconnectionDelay: 50, reconnectionDelayMax: 100,
  transports,
});
socket.on("disconnect", () => (found.disconnects += 1));
socket.on("message", (payload, ...more) => {
  found.arguments.push(1 + more.length);
  found.got.push(payload instanceof Uint8Array ? `bytes:${payload.length}` : payload);
});

/** It has the transport that it wants, gets its acks, and sends and gets bytes. */
async function works() {
  if (!(await until(() => transportOf(socket) === transports.at(-1)))) throw new Error(`by ${transportOf(socket)}`);
  found.transports.push(transportOf(socket));
  const sent = ["žluť", { bytes: Buffer.alloc(300, 7) }, Buffer.alloc(3)];
  const back = await call(socket, "echo", ...sent);
  if (!isDeepStrictEqual(back, sent)) throw new Error(`echoed ${JSON.stringify(back)}`);
}

async function publish(...payloads) {
  for (const payload of payloads) {
    const length = found.got.length;
    await call(socket, "publish", room, payload);
    if (!(await until(() => found.got.length > length))) throw new Error(`no ${payload}, got ${found.got}`);
  }
}

async function enter() {
  for (const name of ["all", room]) await call(socket, "join", name);
}

await once(socket, "connect");
await works();
await enter();
await publish("first", Buffer.alloc(300));
say("in");

await lines.next();
await works();
await publish("reloaded");
const [cut, back] = [once(socket, "disconnect", { ms: 30_000 }), once(socket, "connect", { ms: 30_000 })];
say({ disconnects: found.disconnects });

await cut;
say("cut");
await back;
found.recovered = socket.recovered ?? false;
if (!found.recovered) await enter();
await works();
// All goes through one order: what came twice came before the last of these.
await publish("last", "end");
say(found);
socket.disconnect();
process.exit(0);
