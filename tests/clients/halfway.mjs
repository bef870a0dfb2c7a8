// A stock client whose connection breaks in the middle of what it missed. One line of JSON.
//
//   node halfway.mjs --url URL [--messages 60] [--bytes 20000] [--breaks 1000,300000]
//
// `--breaks` are the bytes after which its next connections end, one after the other. Exit 0 if everything came once, in
// order, in the session that it had.
import net from "node:net";
import { connected, options, until } from "./common.mjs";

const opts = options({ url: "", messages: 60, bytes: 20_000, breaks: "1000,300000" });
const breaks = String(opts.breaks).split(",").filter(Boolean).map(Number);
const target = new URL(opts.url);
const links = new Set();
let closed = false;
let planned = [];

/** A network that lets so many bytes of the server pass. */
const proxy = net.createServer((client) => {
  if (closed) return client.resetAndDestroy();
  const server = net.connect(Number(target.port), target.hostname);
  const end = () => [client, server].forEach((socket) => socket.destroy());
  const link = { end };
  links.add(link);
  let left = planned.shift() ?? Infinity;
  client.on("data", (bytes) => server.write(bytes));
  server.on("data", (bytes) => {
    const part = bytes.subarray(0, left);
    left -= part.length;
    // What is through arrives before the end does.
    client.write(part, () => left === 0 && end());
  });
  for (const socket of [client, server]) socket.on("close", () => (links.delete(link), end())).on("error", end);
});
await new Promise((done) => proxy.listen(0, "127.0.0.1", done));

const base = { forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 100, transports: ["websocket"] };
const socket = await connected(`http://127.0.0.1:${proxy.address().port}`, base);
const peer = await connected(opts.url, base);
const result = { got: 0, recovered: 0, anew: 0, lost: 0, doubled: 0, reordered: 0 };
const got = [];
socket.on("message", ({ number }) => got.push(number));
socket.on("connect", () => (result[socket.recovered ? "recovered" : "anew"] += 1));
const publish = async (number) => {
  const answer = await peer.timeout(10_000).emitWithAck("publish", "room", { number, text: "x".repeat(opts.bytes) });
  if (answer !== "ok") throw new Error(JSON.stringify(answer));
};

if ((await socket.emitWithAck("join", "room")) !== "ok") throw new Error("not joined");
await publish(0);
await until(() => got.length === 1);
closed = true;
links.forEach((link) => link.end());
for (let number = 1; number <= opts.messages; number += 1) await publish(number);
planned = breaks;
closed = false;
await until(() => new Set(got).size > opts.messages, 30_000);
await publish(opts.messages + 1);
await until(() => got.at(-1) === opts.messages + 1);
const seen = new Set(got);
result.got = got.length;
result.lost = opts.messages + 2 - seen.size;
result.doubled = got.length - seen.size;
result.reordered = got.filter((number, at) => at > 0 && number < got[at - 1]).length;
console.log(JSON.stringify(result));
process.exit(planned.length + result.anew + result.lost + result.doubled + result.reordered === 0 ? 0 : 1);
