// The lines of a log that this tab has: some around those that are shown.

import { get, Refused } from "../server";
import type { Line, LogLength } from "../types";
import { type LogOf, logApi } from "./api";

/** The most lines in memory. */
const MOST = 4_000;
/** How many lines are asked for at once, and how many of them before those that are shown. */
const BLOCK = 240;
const BEFORE = 60;

export interface CachedLine extends Line {
  /** The line is no longer kept. */
  gone?: boolean;
}

interface Held {
  line: CachedLine;
  /** The length of the log when the line had no end, in bytes. Otherwise it never changes. */
  softAt?: number;
}

export class Lines {
  /** The number after that of the last line that has arrived. */
  arrived = 0;
  #held = new Map<number, Held>();
  #wanted: [number, number] = [0, 0];
  #busy = false;
  #pattern: string | undefined;
  #generation = 0;
  #length: LogLength = { first: 0, lines: 0, bytes: 0, missed: 0, state: "open" };

  constructor(
    readonly log: LogOf,
    readonly started: number,
    /** Called when there are new lines. */
    readonly changed: () => void,
    /** Called when lines cannot be read. */
    readonly failed: (error: unknown) => void,
  ) {}

  set length(length: LogLength) {
    this.#length = length;
  }

  /** Marks this in all lines. */
  set pattern(pattern: string | undefined) {
    if (pattern === this.#pattern) return;
    this.#pattern = pattern;
    this.#held.clear();
    this.#generation += 1;
  }

  at(line: number): CachedLine | undefined {
    return this.#held.get(line)?.line;
  }

  /** Makes sure that these lines are there, or will be. */
  want(from: number, to: number): void {
    this.#wanted = [from, to];
    if (!this.#busy) void this.#fill();
  }

  #missing(): number | undefined {
    const [from, to] = this.#wanted;
    const { lines, bytes } = this.#length;
    for (let line = Math.max(0, from); line < Math.min(to, lines); line += 1) {
      const held = this.#held.get(line);
      if (held === undefined || (held.softAt !== undefined && held.softAt < bytes)) return line;
    }
    return undefined;
  }

  async #fill(): Promise<void> {
    this.#busy = true;
    try {
      for (let missing = this.#missing(); missing !== undefined; missing = this.#missing()) {
        const [wanted] = this.#wanted;
        const from = missing === wanted ? Math.max(0, missing - BEFORE) : missing;
        await this.#fetch(from);
        this.#prune();
        this.changed();
      }
    } catch (error) {
      if (!(error instanceof Refused)) await new Promise((after) => setTimeout(after, 1_000));
      this.failed(error);
    } finally {
      this.#busy = false;
    }
  }

  async #fetch(from: number): Promise<void> {
    const { lines, bytes } = this.#length;
    const generation = this.#generation;
    const query = {
      started: String(this.started),
      from: String(from),
      count: String(BLOCK),
      ...(this.#pattern !== undefined && { find: this.#pattern }),
    };
    const read = await get<Line[]>(logApi(this.log, "/lines", query));
    if (generation !== this.#generation) return;
    const first = read[0]?.line ?? Math.min(from + BLOCK, lines);
    for (let line = from; line < first; line += 1) {
      this.#held.set(line, { line: { line, spans: [], gone: true } });
    }
    for (const line of read) {
      const isSoft = line.line >= lines - 1 || line === read.at(-1);
      this.#held.set(line.line, isSoft ? { line, softAt: bytes } : { line });
      this.arrived = Math.max(this.arrived, line.line + 1);
    }
  }

  #prune(): void {
    if (this.#held.size <= MOST) return;
    const [from, to] = this.#wanted;
    for (const line of this.#held.keys()) {
      if (line < from - MOST / 4 || line > to + MOST / 4) this.#held.delete(line);
    }
  }
}
