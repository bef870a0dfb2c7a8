// N stock clients at once: connect, join, echo, and still there after a while. One line of JSON.
//
//   node herd.mjs --url URL [--clients 200] [--transports polling,websocket] [--hold-ms 3000] [--fresh]
//   node herd.mjs --until-closed ...   instead of for so long: until standard input is closed
//
// `--fresh`: every request on a TCP connection of its own. Reconnection is off. Exit 0 if all did well.
import { clientOptions, connected, describe, options, transportOf, until } from "./common.mjs";

const opts = options({
  url: "", path: "/socket.io/", clients: 200, transports: "polling,websocket", hold_ms: 3000, fresh: false,
  until_closed: false,
});
const wanted = opts.transports.split(",").at(-1);
const result = { clients: opts.clients, connected: 0, acked: 0, carried: 0, alive: 0, errors: {} };

const fault = (text) => {
  result.errors[text] = (result.errors[text] ?? 0) + 1;
};

async function one(number) {
  let socket;
  try {
    socket = await connected(opts.url, clientOptions(opts));
    result.connected += 1;
    socket.on("disconnect", (reason, details) => {
      if (!leaving) fault(`disconnect: ${reason} ${details?.message ?? ""} ${details?.context?.status ?? ""}`.trim());
    });
    await life(socket, number);
  } catch (error) {
    fault(describe(error));
  }
  return socket;
}

async function life(socket, number) {
  const joined = await socket.timeout(10_000).emitWithAck("join", `herd-${number}`);
  if (joined !== "ok") throw new Error(`join: ${JSON.stringify(joined)}`);
  const word = `first-${number}`;
  const first = await socket.timeout(10_000).emitWithAck("echo", word);
  if (first !== word) throw new Error(`echo: ${JSON.stringify(first)}`);
  result.acked += 1;
  if (await until(() => transportOf(socket) === wanted)) result.carried += 1;
  else throw new Error(`still on ${transportOf(socket)}`);
  await (closed ?? new Promise((next) => setTimeout(next, opts.hold_ms)));
  if (!socket.connected) throw new Error("not connected any more");
  const last = await socket.timeout(10_000).emitWithAck("echo", number);
  if (last !== number) throw new Error(`last echo: ${JSON.stringify(last)}`);
  result.alive += 1;
}

const closed = opts.until_closed ? new Promise((done) => process.stdin.resume().on("end", done)) : undefined;
let leaving = false;
const sockets = await Promise.all(Array.from({ length: opts.clients }, (_, number) => one(number)));
leaving = true;
for (const socket of sockets) socket?.disconnect();
console.log(JSON.stringify(result));
process.exitCode = result.alive === opts.clients && Object.keys(result.errors).length === 0 ? 0 : 1;
