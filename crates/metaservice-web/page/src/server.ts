// Requests to the server, and the state of the connection.

import { signal } from "@preact/signals";

/** Whether the server lets this browser in. */
export type Access = "unknown" | "open" | "none" | "used" | "slow";

export const access = signal<Access>("unknown");

/** How many websockets are without a connection, and when the next try is, in ms since 1970. */
export const lost = signal<{ count: number; nextMs: number }>({ count: 0, nextMs: 0 });

/** An error that the server has answered. */
export class Refused extends Error {
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

async function answer(response: Response): Promise<Response> {
  if (response.ok) return response;
  const problem: unknown = await response.json().catch(() => null);
  const { code = "Failed", message = `status ${response.status}` } = (problem ?? {}) as {
    code?: string;
    message?: string;
  };
  if (code === "NoSession" && access.value === "open") access.value = "none";
  throw new Refused(code, message);
}

/** Reads JSON. */
export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await answer(await fetch(path, signal ? { signal } : {}));
  return (await response.json()) as T;
}

/** Asks for something to be done. */
export async function post(path: string, body: unknown): Promise<Response> {
  const headers = { "content-type": "application/json" };
  return answer(await fetch(path, { method: "POST", headers, body: JSON.stringify(body) }));
}

/** Exchanges the token of the address for a session, and takes it out of the address. */
export async function enter(): Promise<void> {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token !== null) {
    history.replaceState(null, "", location.pathname);
    try {
      await post("/session", { token });
      access.value = "open";
      return;
    } catch (error) {
      if (error instanceof Refused && error.code === "TooMany") {
        access.value = "slow";
        return;
      }
    }
  }
  try {
    await answer(await fetch("/api/session"));
    access.value = "open";
  } catch (error) {
    // A server that does not answer is not one that refuses.
    if (!(error instanceof Refused)) access.value = "open";
    else access.value = token === null ? "none" : "used";
  }
}

const MAX_PAUSE = 8_000;

/** Receives values over a websocket, which is made again when it breaks. */
export class Feed<T> {
  #socket: WebSocket | undefined;
  #timer: number | undefined;
  #pause = 500;
  #isLost = false;
  #isOver = false;

  constructor(
    readonly path: string,
    readonly received: (value: T) => void,
    /** Called before each try after the first; `false` gives up. */
    readonly retry: () => Promise<boolean> = async () => true,
  ) {
    this.#connect();
    addEventListener("online", this.#again);
    feeds.add(this.#again);
  }

  close(): void {
    this.#isOver = true;
    removeEventListener("online", this.#again);
    feeds.delete(this.#again);
    clearTimeout(this.#timer);
    this.#setLost(false);
    this.#socket?.close();
  }

  #again = (): void => {
    if (this.#isLost && !this.#isOver) void this.#try();
  };

  async #try(): Promise<void> {
    clearTimeout(this.#timer);
    try {
      await answer(await fetch("/api/session"));
    } catch (error) {
      if (error instanceof Refused) return;
      return this.#wait();
    }
    if (this.#isOver) return;
    if (await this.retry().catch(() => true)) this.#connect();
  }

  #connect(): void {
    if (this.#isOver) return;
    this.#socket?.close();
    const socket = new WebSocket(`ws://${location.host}${this.path}`);
    this.#socket = socket;
    socket.onmessage = (message) => {
      this.#pause = 500;
      this.#setLost(false);
      this.received(JSON.parse(String(message.data)) as T);
    };
    socket.onclose = () => {
      if (socket === this.#socket && !this.#isOver) this.#wait();
    };
  }

  #wait(): void {
    this.#setLost(true);
    const pause = this.#pause * (0.75 + Math.random() / 2);
    this.#pause = Math.min(this.#pause * 2, MAX_PAUSE);
    lost.value = { ...lost.value, nextMs: Date.now() + pause };
    clearTimeout(this.#timer);
    this.#timer = setTimeout(this.#again, pause);
  }

  #setLost(isLost: boolean): void {
    if (isLost === this.#isLost) return;
    this.#isLost = isLost;
    lost.value = { ...lost.value, count: lost.value.count + (isLost ? 1 : -1) };
  }
}

const feeds = new Set<() => void>();

/** Tries all broken connections now. */
export function tryNow(): void {
  for (const again of feeds) again();
}
