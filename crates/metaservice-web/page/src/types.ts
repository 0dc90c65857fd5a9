// What the server sends. The names are those of its Rust types.

/** A job of the list. */
export interface Job {
  name: string;
  state: string;
  ended: boolean;
  status?: number;
  command: string;
  image?: string;
  startedMs: number;
  endedMs?: number;
}

export interface Listing {
  jobs: Job[];
  more: number;
  known: boolean;
}

/** How long a log is, and whether it grows. */
export interface LogLength {
  first: number;
  lines: number;
  bytes: number;
  missed: number;
  state: "open" | "complete" | "broken";
}

/** Text of one style. */
export interface Span {
  t: string;
  e?: boolean;
  s?: string;
  f?: string;
  b?: string;
}

export interface Line {
  line: number;
  ms?: number;
  spans: Span[];
  marks?: [number, number][];
  cut?: boolean;
}

export interface Matches {
  total: number;
  lines: number[];
  searched: number;
  complete: boolean;
}
