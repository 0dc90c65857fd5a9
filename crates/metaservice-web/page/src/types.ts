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
  /** Of a job of a queue. */
  label?: string;
  tenant?: string;
  priority?: "high" | "normal" | "low";
  attempt?: number;
  worker?: string;
  queuedMs?: number;
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

/** What the control API says of a job. */
export interface JobFacts {
  name: string;
  command: string[];
  stdin?: boolean;
  tty?: boolean;
  env?: string[];
  state: string;
  status?: number;
  ending?: Ending;
  agent?: { version: string; os: string; arch: string; kernel: string };
  contact?: string;
  startedMs: number;
  pid?: number;
  machine?: Record<string, unknown>;
}

export interface Ending {
  reason: string;
  exitCode?: number;
  signal?: number;
  wallMs?: number;
  cpuUserMs?: number;
  cpuSystemMs?: number;
  peakMemory?: number;
  oomKills?: number;
  failure?: { code: string; message?: string };
}

export interface Artifact {
  path: string;
  to?: string;
  bytes?: number;
  error?: string;
  /** Its name, if the server has it. */
  name?: string;
}

export interface Attempt {
  number: number;
  worker?: string;
  startedMs?: number;
  endedMs?: number;
  outcome?: string;
}

/** All that is known of one job. */
export interface Details {
  job: JobFacts;
  ended: boolean;
  endedMs?: number;
  /** How it ended, as a word: `result`, `killed`, `machine-gone`. */
  end?: string;
  error?: string;
  /** Why a job waits: a sentence. */
  why?: string;
  console?: string[];
  artifacts: Artifact[];
  spec?: JobSpec;
  attempts?: Attempt[];
  network?: boolean;
}

/** The description of a job: docs/reference/job.schema.json. */
export interface JobSpec {
  version: number;
  command: string[];
  name?: string | null;
  env?: Record<string, string>;
  timeout?: string | null;
  keepOnFailure?: string | null;
  workdir?: string | null;
  user?: string | null;
  machine?: Hardware;
  [member: string]: unknown;
}

export interface Hardware {
  image?: string | null;
  cpus?: number;
  memory?: string;
  network?: { mode?: string | null; allow?: string[]; deny?: string[]; [member: string]: unknown };
  [member: string]: unknown;
}
