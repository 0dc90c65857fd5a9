// Uploads: in slices, one file after the other, and on after a cut connection.

import { type ReadonlySignal, signal } from "@preact/signals";
import { get, jobApi, post, put, reason, Refused, remove } from "../server";
import type { Place } from "./api";

/** The largest slice that the server takes. */
const SLICE = 1024 * 1024;
const FIRST_PAUSE = 1_000;
const MAX_PAUSE = 8_000;

export type UploadState = "waits" | "sends" | "retries" | "done" | "failed";

/** A file or a directory that is sent. */
export interface Sending {
  readonly place: Place;
  readonly path: string;
  /** In bytes, as what is sent of it. */
  readonly size: number;
  readonly sent: ReadonlySignal<number>;
  readonly state: ReadonlySignal<UploadState>;
  readonly error: ReadonlySignal<string>;
  /** How many files of a directory were sent. */
  readonly count?: ReadonlySignal<string>;
  run(): Promise<void>;
  cancel(): void;
  /** Lets it wait for another try. */
  again(): void;
}

export class Upload implements Sending {
  readonly state = signal<UploadState>("waits");
  readonly sent = signal(0);
  readonly error = signal("");
  #id: string | undefined;
  #abort = new AbortController();

  constructor(
    readonly place: Place,
    readonly path: string,
    readonly file: File,
    readonly done: () => void,
    /** The path of the file below `path`, if it is in a directory. */
    readonly member?: string,
  ) {}

  get size(): number {
    return this.file.size;
  }

  again(): void {
    this.state.value = "waits";
  }

  /** Sends the file. Whether it did is in the state. */
  async run(): Promise<void> {
    if (this.#abort.signal.aborted) return;
    this.error.value = "";
    this.state.value = "sends";
    try {
      await this.#begin();
      await this.#send();
      this.state.value = "done";
      this.done();
    } catch (error) {
      if (this.#abort.signal.aborted) return;
      this.state.value = "failed";
      this.error.value = reason(error);
      // The server forgets an upload that failed: the next try begins at the start.
      this.#forget();
    }
  }

  /** Ends it, and deletes what the guest has of it. */
  cancel(): void {
    this.#abort.abort();
    this.#forget();
  }

  #forget(): void {
    const id = this.#id;
    this.#id = undefined;
    if (id !== undefined) remove(uploadApi(id)).catch(() => {});
  }

  async #begin(): Promise<void> {
    const { place, path, size, member } = this;
    const body = { startedMs: place.started, path, size, ...(member !== undefined && { member }) };
    const response = await this.#persist(() => post(`${jobApi(place.name)}/uploads`, body));
    const { id } = (await response.json()) as { id: string };
    this.#id = id;
    this.sent.value = 0;
    // It was cancelled meanwhile.
    if (this.#abort.signal.aborted) this.#forget();
  }

  async #send(): Promise<void> {
    const id = this.#id;
    if (id === undefined) throw new DOMException("cancelled", "AbortError");
    for (let isDone = false; !isDone;) {
      const at = this.sent.value;
      const slice = this.file.slice(at, at + SLICE);
      try {
        const path = `${uploadApi(id)}?offset=${at}`;
        const next = await put<{ offset: number; done: boolean }>(path, slice, this.#abort.signal);
        this.sent.value = next.offset;
        isDone = next.done;
        this.state.value = "sends";
      } catch (error) {
        const isOffset = error instanceof Refused && error.code === "Refused";
        if (this.#abort.signal.aborted || (error instanceof Refused && !isOffset)) throw error;
        isDone = await this.#ask(id, at, error);
      }
    }
  }

  /** Asks how much of it has arrived. Whether it was all. */
  async #ask(id: string, at: number, error: unknown): Promise<boolean> {
    if (!(error instanceof Refused)) await this.#pause(FIRST_PAUSE);
    const known = await this.#persist(() => get<{ offset: number; done: boolean }>(uploadApi(id)));
    // A server that refuses what it asks for will do so again.
    if (error instanceof Refused && known.offset === at && !known.done) throw error;
    this.sent.value = known.offset;
    return known.done;
  }

  /** Tries again as long as the server does not answer. */
  async #persist<T>(act: () => Promise<T>): Promise<T> {
    for (let pause = FIRST_PAUSE; ; pause = Math.min(pause * 2, MAX_PAUSE)) {
      try {
        return await act();
      } catch (error) {
        if (this.#abort.signal.aborted || error instanceof Refused) throw error;
        await this.#pause(pause);
      }
    }
  }

  async #pause(ms: number): Promise<void> {
    this.state.value = "retries";
    await new Promise((after) => setTimeout(after, ms));
    this.#abort.signal.throwIfAborted();
  }
}

function uploadApi(id: string): string {
  return `/api/uploads/${encodeURIComponent(id)}`;
}

/** All uploads of this tab. They continue while other views are shown. */
export const uploads = signal<Sending[]>([]);

let isSending = false;

/** Sends these files after those that are being sent. */
export function add(added: Sending[]): void {
  uploads.value = [...uploads.value, ...added];
  void sendAll();
}

export function again(upload: Sending): void {
  upload.again();
  void sendAll();
}

export function drop(upload: Sending): void {
  if (upload.state.value !== "done") upload.cancel();
  uploads.value = uploads.value.filter((each) => each !== upload);
}

export function dropDone(): void {
  uploads.value = uploads.value.filter((upload) => upload.state.value !== "done");
}

async function sendAll(): Promise<void> {
  if (isSending) return;
  isSending = true;
  for (;;) {
    const next = uploads.value.find((upload) => upload.state.value === "waits");
    if (!next) break;
    await next.run();
  }
  isSending = false;
}

addEventListener("beforeunload", (event) => {
  if (uploads.value.some(({ state }) => state.value !== "done" && state.value !== "failed"))
    event.preventDefault();
});
