// Values over websockets, and the state of the connections.

import { signal } from "@preact/signals";
import { ask, Refused } from "./server";

/** How many websockets are without a connection, and when the next try is, in ms since 1970. */
export const lost = signal<{ count: number; nextMs: number }>({ count: 0, nextMs: 0 });

const FIRST_PAUSE = 500;
const MAX_PAUSE = 8_000;

/** The address of a websocket of the server. */
export function socketAddress(path: string): string {
  return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path}`;
}

export interface FeedOptions<T> {
  /** Called before each try after the first; `false` gives up. */
  retry?: () => Promise<boolean>;
  /** Whether nothing follows this value. */
  isLast?: (value: T) => boolean;
  /** Called if a server that answers has never accepted the connection. Without it, the feed tries again. */
  refused?: () => void;
}

/** Receives values over a websocket, which is made again when it breaks. */
export class Feed<T> {
  #socket: WebSocket | undefined;
  #timer: number | undefined;
  #pause = FIRST_PAUSE;
  #waits = false;
  #isLost = false;
  #isOver = false;
  #wasOpen = false;

  constructor(
    readonly path: string,
    readonly received: (value: T) => void,
    readonly options: FeedOptions<T> = {},
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
    if (this.#waits && !this.#isOver) void this.#try();
  };

  async #try(): Promise<void> {
    this.#waits = false;
    clearTimeout(this.#timer);
    try {
      await ask();
    } catch (error) {
      if (error instanceof Refused) return;
      return this.#wait();
    }
    if (this.#isOver) return;
    if (!this.#wasOpen && this.options.refused) {
      this.close();
      this.options.refused();
      return;
    }
    const { retry } = this.options;
    if (!retry || (await retry().catch(() => true))) this.#connect();
  }

  #connect(): void {
    if (this.#isOver) return;
    this.#socket?.close();
    const socket = new WebSocket(socketAddress(this.path));
    this.#socket = socket;
    socket.onmessage = (message) => {
      const value = JSON.parse(String(message.data)) as T;
      this.#pause = FIRST_PAUSE;
      this.#wasOpen = true;
      this.#setLost(false);
      if (this.options.isLast?.(value)) this.close();
      this.received(value);
    };
    socket.onclose = () => {
      if (socket === this.#socket && !this.#isOver) this.#wait();
    };
  }

  #wait(): void {
    this.#waits = true;
    // What the server may refuse is not lost before it was there.
    if (this.#wasOpen || !this.options.refused) this.#setLost(true);
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
