// A stock client that resumes, stays for longer than the recovery window, and resumes once more: its
// first recovery id must still find its session. One line of JSON.
//
//   node again.mjs --url URL [--transports polling,websocket] [--stay-ms 7000]
import { connected, once, options, until } from "./common.mjs";

const opts = options({ url: "", transports: "polling,websocket", stay_ms: 7000 });
const transports = opts.transports.split(",");
const socket = await connected(opts.url, { transports, forceNew: true, reconnectionDelay: 100 });
const result = { resumed: [], got: [] };
socket.on("connect", () => result.resumed.push(socket.recovered));
socket.on("message", (number) => result.got.push(number));

async function publish(number) {
  await socket.timeout(10_000).emitWithAck("publish", "room", number);
  await until(() => result.got.includes(number));
}

async function lose() {
  const back = once(socket, "connect");
  socket.io.engine.close();
  await back;
}

await socket.timeout(10_000).emitWithAck("join", "room");
await publish(0);
await lose();
await publish(1);
await new Promise((next) => setTimeout(next, opts.stay_ms));
await lose();
await publish(2);
console.log(JSON.stringify(result));
process.exit(0);
