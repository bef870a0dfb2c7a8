// Shared by the Node client programs: options of the command line, sockets, waiting.
import http from "node:http";
import { io } from "socket.io-client";

/** `--name value` and `--flag` pairs of the command line over `defaults`; numbers stay numbers. */
export function options(defaults) {
  const found = { ...defaults };
  const args = process.argv.slice(2);
  while (args.length > 0) {
    const name = args.shift().replace(/^--/, "").replaceAll("-", "_");
    if (!(name in defaults)) throw new Error(`unknown option ${name}`);
    const kind = typeof defaults[name];
    if (kind === "boolean") found[name] = true;
    else found[name] = kind === "number" ? Number(args.shift()) : args.shift();
  }
  return found;
}

/** Client options for `--transports a,b` and `--fresh` (a new TCP connection per request). */
export function clientOptions({ transports, fresh, path }) {
  const keepAlive = !fresh;
  return {
    agent: new http.Agent({ keepAlive }),
    forceNew: true,
    path,
    reconnection: false,
    timeout: 10_000,
    transports: transports.split(","),
  };
}

/** A socket that is connected; rejects with the reason of its connect_error. */
export function connected(url, opts) {
  const socket = io(url, opts);
  return once(socket, "connect", { failure: "connect_error" }).then(
    () => socket,
    (error) => {
      socket.disconnect();
      throw error;
    },
  );
}

/** The first `event` of an emitter as its argument list; `failure` is an event that rejects. */
export function once(emitter, event, { failure, ms = 10_000 } = {}) {
  return new Promise((resolve, reject) => {
    const done = (act) => {
      clearTimeout(timer);
      emitter.off(event, onEvent);
      if (failure) emitter.off(failure, onFailure);
      act();
    };
    const onEvent = (...args) => done(() => resolve(args));
    const onFailure = (error) => done(() => reject(error instanceof Error ? error : new Error(String(error))));
    const timer = setTimeout(() => done(() => reject(new Error(`no ${event} in ${ms} ms`))), ms);
    emitter.on(event, onEvent);
    if (failure) emitter.on(failure, onFailure);
  });
}

/** A connect_error in words: its text and, where there is one, the HTTP status below it. */
export function describe(error) {
  const status = error?.context?.status ?? error?.description?.status ?? error?.description;
  const detail = typeof status === "number" ? ` (${status})` : "";
  return `${error?.message ?? error}${detail}`;
}

/** The name of the transport that carries a socket right now. */
export const transportOf = (socket) => socket.io.engine?.transport?.name;

/** Waits for `ready()`, polling; false when it did not come about in time. */
export async function until(ready, ms = 10_000) {
  const deadline = Date.now() + ms;
  while (!ready()) {
    if (Date.now() > deadline) return false;
    await new Promise((next) => setTimeout(next, 5));
  }
  return true;
}
