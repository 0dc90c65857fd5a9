// A shell of a job over a websocket.

import { socketAddress } from "../feed";
import { jobApi } from "../server";

/** Why there is no shell any more. */
export type Over =
  | { kind: "ended"; status: number }
  | { kind: "failed"; message: string }
  /** The connection was cut, or was never made. */
  | { kind: "cut"; opened: boolean };

export interface ShellOptions {
  name: string;
  started: number;
  columns: number;
  rows: number;
  /** Without one: the default shell of the guest. */
  command: string[] | undefined;
  output: (bytes: Uint8Array) => void;
  over: (why: Over) => void;
}

/** How many bytes are processed before the server hears of them. It pauses after 256 KiB. */
const TOOK_STEP = 32 * 1024;

/** The most bytes of a message to the server, which takes 64 KiB. */
const MAX_TYPED = 16 * 1024;

export class ShellConnection {
  #socket: WebSocket;
  #encoder = new TextEncoder();
  #took = 0;
  #isOver = false;
  /** Columns and rows, which can change before there is a connection. */
  #size: [number, number];

  constructor(options: ShellOptions) {
    const { name, started, columns, rows, command } = options;
    this.#size = [columns, rows];
    const query = new URLSearchParams({
      started: String(started),
      columns: String(columns),
      rows: String(rows),
    });
    if (command) query.set("command", JSON.stringify(command));
    const socket = new WebSocket(socketAddress(`${jobApi(name)}/terminal?${query}`));
    socket.binaryType = "arraybuffer";
    let opened = false;
    const end = (why: Over): void => {
      if (this.#isOver) return;
      this.#isOver = true;
      options.over(why);
    };
    socket.onopen = () => {
      opened = true;
      const [width, height] = this.#size;
      if (width !== columns || height !== rows) this.resize(width, height);
    };
    socket.onmessage = ({ data }: MessageEvent<ArrayBuffer | string>) => {
      if (typeof data !== "string") return options.output(new Uint8Array(data));
      const said = JSON.parse(data) as { ended?: { status: number }; failed?: string };
      if (said.ended) end({ kind: "ended", status: said.ended.status });
      else if (said.failed !== undefined) end({ kind: "failed", message: said.failed });
    };
    socket.onclose = () => end({ kind: "cut", opened });
    this.#socket = socket;
  }

  /** A text that was pasted can be long: it is sent in parts. */
  type(text: string): void {
    const bytes = this.#encoder.encode(text);
    for (let at = 0; at < bytes.length; at += MAX_TYPED) this.#send(bytes.subarray(at, at + MAX_TYPED));
  }

  /** Sends bytes, each as a character. */
  typeBytes(bytes: string): void {
    this.#send(Uint8Array.from(bytes, (byte) => byte.charCodeAt(0) & 255));
  }

  resize(columns: number, rows: number): void {
    this.#size = [columns, rows];
    this.#send(JSON.stringify({ resize: [columns, rows] }));
  }

  /** The terminal has processed so many bytes of output. */
  took(bytes: number): void {
    this.#took += bytes;
    if (this.#took < TOOK_STEP) return;
    this.#send(JSON.stringify({ took: this.#took }));
    this.#took = 0;
  }

  close(): void {
    this.#isOver = true;
    this.#socket.close();
  }

  #send(data: string | Uint8Array<ArrayBuffer>): void {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(data);
  }
}
