// Stock clients in one room while the test breaks the server: what each of them got of what was acked
// to the publisher. Jepsen's question, asked by the client. One line of JSON.
//
//   node resume.mjs --url URL [--clients 30] [--transports polling,websocket] [--publishes 400]
//
// Exit 0 if every acked message came exactly once and in order, and every client resumed its session.
import { connected, options, until } from "./common.mjs";

const opts = options({ url: "", clients: 30, transports: "polling,websocket", publishes: 400 });
const base = {
  forceNew: true, reconnectionDelay: 100, reconnectionDelayMax: 500, transports: opts.transports.split(","),
};
const result = { acked: 0, disconnects: 0, recovered: 0, anew: 0, lost: 0, doubled: 0, reordered: 0, strange: 0, why: [] };

let leaving = false;

/** A socket, although workers die while it connects. */
async function enter(more = {}) {
  for (;;) {
    try {
      return await connected(opts.url, { ...base, ...more });
    } catch {
      // Once more.
    }
  }
}

async function member() {
  const got = [];
  const socket = await enter();
  // The client says `disconnect` once more if a connection ends before CONNECT was answered on it.
  let away = false;
  socket.on("connect", () => {
    away = false;
    result[socket.recovered ? "recovered" : "anew"] += 1;
  });
  socket.on("disconnect", (reason, details) => {
    if (!away && !leaving) {
      result.disconnects += 1;
      // The error of a request is in the text of the polyfill's XMLHttpRequest.
      const error = details?.context?.responseText ?? "";
      if (result.why.length < 5) result.why.push(`${reason}: ${details?.message} ${error.slice(0, 200)}`);
    }
    away = true;
  });
  socket.on("message", (number) => (Number.isInteger(number) ? got.push(number) : (result.strange += 1)));
  await insist(socket, "join", "room");
  return { socket, got };
}

/** Emits until it is acked: joining again does no harm, and publishing again under the same id. */
async function insist(socket, ...args) {
  for (;;) {
    try {
      if ((await socket.timeout(3000).emitWithAck(...args)) === "ok") return;
    } catch {
      // No ack in time, or the connection went: once more.
    }
  }
}

const members = await Promise.all(Array.from({ length: opts.clients }, member));
const publisher = await enter({ transports: ["websocket"] });
for (let number = 0; number < opts.publishes; number += 1) {
  await insist(publisher, "publish", "room", number, { id: `resume-${process.pid}-${number}` });
  result.acked += 1;
  await new Promise((next) => setTimeout(next, 10));
}
await until(() => members.every(({ socket, got }) => socket.connected && new Set(got).size >= opts.publishes), 30_000);
for (const { got } of members) {
  const seen = new Set(got);
  result.lost += opts.publishes - seen.size;
  result.doubled += got.length - seen.size;
  result.reordered += got.filter((number, at) => at > 0 && number < got[at - 1]).length;
}
leaving = true;
for (const { socket } of [...members, { socket: publisher }]) socket.disconnect();
console.log(JSON.stringify(result));
const { anew, lost, doubled, reordered, strange } = result;
process.exit(anew + lost + doubled + reordered + strange === 0 ? 0 : 1);
