// Stock clients over a Redis that throws keys away: whose session goes starts anew, joins again, and is served. One line
// of JSON.
//
//   node evicted.mjs --url URL [--clients 12] [--bytes 50000] [--rounds 400]
//
// Exit 0 if some session went, and in the end everybody hears everything again.
import { connected, options, until } from "./common.mjs";

const opts = options({ url: "", clients: 12, bytes: 50_000, rounds: 400 });
const base = { forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 200 };
const result = { anew: 0, recovered: 0, refused: 0, published: 0, heard: 0, away: [] };
const deadline = Date.now() + 100_000;

async function member(number) {
  const transports = number % 2 ? ["polling"] : ["websocket"];
  const socket = await connected(opts.url, { ...base, transports });
  const member = { number, socket, joined: false, heard: new Set() };
  const join = async () => {
    member.joined = false;
    const answer = await socket.timeout(3000).emitWithAck("join", "room").catch(() => "none");
    member.joined = answer === "ok";
    if (!member.joined && socket.connected) setTimeout(join, 100);
  };
  socket.on("connect", () => {
    result[socket.recovered ? "recovered" : "anew"] += 1;
    // A join that was on its way when its session broke may have been given up by now.
    if (!socket.recovered || !member.joined) join();
  });
  socket.on("message", (message) => member.heard.add(message));
  await join();
  return member;
}

const members = await Promise.all(Array.from({ length: opts.clients }, (_, number) => member(number)));
const publisher = await connected(opts.url, { ...base, transports: ["websocket"] });
const publish = async (room, payload) => {
  try {
    return (await publisher.timeout(5000).emitWithAck("publish", room, payload)) === "ok";
  } catch {
    return false;
  }
};
// Redis fills up with a log that no client here reads.
for (let round = 0; round < opts.rounds && result.anew < opts.clients && Date.now() < deadline; round += 1) {
  result[(await publish("elsewhere", "x".repeat(opts.bytes))) ? "published" : "refused"] += 1;
}
// From now on there is peace: everybody is there, and hears what is said.
for (let last = 0; result.heard < opts.clients && Date.now() < deadline; last += 1) {
  await until(() => members.every(({ socket, joined }) => socket.connected && joined));
  if (!(await publish("room", `last ${last}`))) continue;
  await until(() => members.every(({ heard }) => heard.has(`last ${last}`)), 2000);
  result.heard = members.filter(({ heard }) => heard.has(`last ${last}`)).length;
}
result.away = members.filter(({ socket, joined }) => !socket.connected || !joined).map(({ number }) => number);
console.log(JSON.stringify(result));
process.exit(result.anew > 0 && result.heard === opts.clients ? 0 : 1);
