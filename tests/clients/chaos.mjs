// Stock clients that keep a diary while the test breaks the server: which client published what, how it was
// answered, what each member of each room received. They do not judge; the diary is the one line of output.
//
//   node chaos.mjs --url URL --seconds S [--members 24] [--rooms 6] [--careful 3] [--careless 2]
//   node chaos.mjs --url URL --until-closed ...   until standard input is closed
//
// Each member is in two rooms, one third of them each by polling, by upgrade and by WebSocket. A careful
// publisher repeats a message under its id until it is acked, a careless one tries once. At the end a mark goes into
// every room, and members listen until they have heard it.
import { connected, options, until } from "./common.mjs";

const opts = options({
  url: "", seconds: 10, members: 24, rooms: 6, careful: 3, careless: 2, pause: 20, transports: "",
  back_off: 100, patience: 60, until_closed: false,
});
const END = "end";
const ways = opts.transports
  ? [opts.transports.split(",")]
  : [["polling"], ["polling", "websocket"], ["websocket"]];
const rooms = Array.from({ length: opts.rooms }, (_, room) => `room-${room}`);
const diary = { members: [], published: [], resumed_ms: [] };
const sleep = (ms) => new Promise((next) => setTimeout(next, ms));
let leaving = false;

const base = (number) => ({
  forceNew: true, reconnectionDelay: opts.back_off, reconnectionDelayMax: 5 * opts.back_off, timeout: 5000,
  transports: ways[number % ways.length],
});

/** A socket, however often it takes. */
async function enter(number) {
  for (let left = 50; ; left -= 1) {
    try {
      return await connected(opts.url, { ...base(number), reconnection: true });
    } catch (error) {
      if (left === 0) throw error;
      await sleep(100);
    }
  }
}

async function insist(socket, ...args) {
  for (;;) {
    try {
      if ((await socket.timeout(4000).emitWithAck(...args)) === "ok") return;
    } catch {
      // No ack in time, or the connection went: once more.
    }
  }
}

async function member(number) {
  const own = [rooms[number % rooms.length], rooms[(number * 7 + 1) % rooms.length]];
  const note = { name: `member-${number}`, way: ways[number % ways.length].join("+"), got: {}, recovered: 0, anew: 0 };
  for (const room of own) note.got[room] = [];
  const socket = await enter(number);
  let left = 0;
  socket.on("disconnect", () => (left = Date.now()));
  socket.on("connect", () => {
    note[socket.recovered ? "recovered" : "anew"] += 1;
    diary.resumed_ms.push(Date.now() - left);
  });
  socket.on("message", (message) => note.got[message?.room]?.push(message.id));
  for (const room of new Set(own)) await insist(socket, "join", room);
  diary.members.push(note);
  return { socket, note, silent: () => Object.values(note.got).some((got) => got.at(-1) !== END) };
}

async function careful(number, socket) {
  for (let count = 0; !leaving; count += 1) {
    const room = rooms[(number + count) % rooms.length];
    const note = { room, id: `careful-${number}-${count}`, acked: false };
    diary.published.push(note);
    await insist(socket, "publish", room, { room, id: note.id }, { id: note.id });
    note.acked = true;
    await sleep(opts.pause);
  }
}

async function careless(number, socket) {
  const answers = [];
  for (let count = 0; !leaving; count += 1) {
    const room = rooms[(number + count) % rooms.length];
    const note = { room, id: `careless-${number}-${count}`, acked: false };
    diary.published.push(note);
    const id = note.id;
    // A disconnected socket would keep it and send it later: then it counts as tried at that time.
    const tried = socket.timeout(10_000).emitWithAck("publish", room, { room, id });
    answers.push(tried.then((answer) => (note.acked = answer === "ok"), () => {}));
    await sleep(2 * opts.pause);
  }
  await Promise.all(answers);
}

const members = await Promise.all(Array.from({ length: opts.members }, (_, number) => member(number)));
const publishers = await Promise.all(Array.from({ length: opts.careful + opts.careless }, (_, number) => enter(number)));
console.error("ready");
const work = publishers.map((socket, number) =>
  number < opts.careful ? careful(number, socket) : careless(number, socket),
);
if (opts.until_closed) await new Promise((done) => process.stdin.resume().on("end", done));
else await sleep(1000 * opts.seconds);
leaving = true;
console.error("leaving");
await Promise.all(work);
const [socket] = publishers;
for (const room of rooms) await insist(socket, "publish", room, { room, id: END }, { id: END });
await until(() => !members.some(({ silent }) => silent()), 1000 * opts.patience);
diary.silent = members.filter(({ silent }) => silent()).map(({ socket, note }) => {
  const { readyState, transport } = socket.io.engine;
  return `${note.name} (${note.way}): ${socket.connected}, ${readyState}, ${transport?.name} ${transport?.readyState}`;
});
for (const { socket } of members) socket.disconnect();
for (const socket of publishers) socket.disconnect();
// Not before all of it is written, and then although a request may be open.
process.stdout.write(`${JSON.stringify(diary)}\n`, () => process.exit(0));
