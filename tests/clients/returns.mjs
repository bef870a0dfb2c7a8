// A stock client of a given version over one transport: how many arguments its handlers get, and what it gets back after its
// TCP connection was cut. One line of JSON.
//
//   node returns.mjs --url URL [--client socket.io-client] [--transports websocket] [--own key=value]
//
// `--own` goes into the query of every request. By polling nothing is cut.
import { Buffer } from "node:buffer";
import { options, once, transportOf, until } from "./common.mjs";

const opts = options({ url: "", client: "socket.io-client", transports: "websocket", own: "" });
const { io } = await import(opts.client);
const query = Object.fromEntries(new URLSearchParams(opts.own));
const base = { forceNew: true, reconnectionDelay: 50, reconnectionDelayMax: 100, transports: opts.transports.split(",") };
const room = `returns-${process.pid}-${Date.now()}`;
const result = { arguments: [], got: [], offset: false, recovered: null };

const call = (socket, ...args) =>
  new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no ack for ${args[0]}`)), 10_000);
    socket.emit(...args, (...back) => {
      clearTimeout(timer);
      resolve(back);
    });
  });

const socket = io(opts.url, { ...base, query });
const publisher = io(opts.url, { ...base, transports: ["websocket"] });
await Promise.all([once(socket, "connect"), once(publisher, "connect")]);
await until(() => transportOf(socket) === base.transports.at(-1));
socket.on("message", (payload, ...more) => {
  result.arguments.push(1 + more.length);
  result.got.push(payload instanceof Uint8Array ? `bytes:${payload.length}` : payload);
});
await call(socket, "join", room);
await call(publisher, "publish", room, "first");
await call(publisher, "publish", room, Buffer.alloc(300));
await until(() => result.got.length === 2);
result.offset = typeof socket._lastOffset === "string";
if (transportOf(socket) === "websocket") {
  socket.io.engine.transport.ws._socket.destroy();
  await once(socket, "disconnect");
  await call(publisher, "publish", room, "missed");
  if (!socket.connected) await once(socket, "connect");
  result.recovered = socket.recovered ?? false;
  if (result.recovered) await until(() => result.got.length >= 3);
  else await call(socket, "join", room);
}
await call(publisher, "publish", room, "last");
await until(() => result.got.at(-1) === "last");
for (const each of [socket, publisher]) each.disconnect();
console.log(JSON.stringify(result));
process.exit(0);
