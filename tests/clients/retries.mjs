// Stock clients that repeat unacked events by themselves (`retries`), while the test breaks the server: with an id
// each message arrives once. One line of JSON.
//
//   node retries.mjs --url URL [--publishers 4] [--publishes 200] [--members 8] [--transports polling,websocket]
//
// Exit 0 if every member got every message once, and each publisher's in order.
import { connected, options, until } from "./common.mjs";

const opts = options({ url: "", publishers: 4, publishes: 200, members: 8, transports: "websocket" });
// A client whose connection ends between the answer to its upgrade and the open packet notices it by this time limit only,
// which is 20 s if nothing is said.
const base = {
  forceNew: true, reconnectionDelay: 100, reconnectionDelayMax: 500, timeout: 3000, transports: opts.transports.split(","),
};
const result = { acked: 0, refused: 0, tries: 0, lost: 0, doubled: 0, reordered: 0, anew: 0 };

async function member() {
  const got = [];
  const socket = await connected(opts.url, base);
  socket.on("connect", () => socket.recovered || (result.anew += 1));
  socket.on("message", (message) => got.push(message));
  if ((await socket.timeout(10_000).emitWithAck("join", "room")) !== "ok") throw new Error("not joined");
  return { socket, got };
}

async function publisher(name) {
  const socket = await connected(opts.url, { ...base, retries: 50, ackTimeout: 1000 });
  socket.onAnyOutgoing(() => (result.tries += 1));
  // One after the other, by the client's own queue; timers of their own would not keep the order.
  const answers = [];
  for (let number = 0; number < opts.publishes; number += 1) {
    const message = `${name}-${number}`;
    answers.push(socket.emitWithAck("publish", "room", message, { id: message }));
    await new Promise((next) => setTimeout(next, 15));
  }
  for (const answer of await Promise.all(answers)) result[answer === "ok" ? "acked" : "refused"] += 1;
  socket.disconnect();
}

const members = await Promise.all(Array.from({ length: opts.members }, member));
await Promise.all(Array.from({ length: opts.publishers }, (_, name) => publisher(name)));
const all = opts.publishers * opts.publishes;
await until(() => members.every(({ got }) => new Set(got).size >= all), 15_000);
for (const { got } of members) {
  const seen = new Set(got);
  result.lost += all - seen.size;
  result.doubled += got.length - seen.size;
  const last = {};
  for (const message of got) {
    const [name, number] = message.split("-").map(Number);
    if (number < (last[name] ?? 0)) result.reordered += 1;
    last[name] = number;
  }
}
members.forEach(({ socket }) => socket.disconnect());
console.log(JSON.stringify(result));
const { refused, lost, doubled, reordered, anew } = result;
process.exit(refused + lost + doubled + reordered + anew === 0 ? 0 : 1);
