// How much of its machine each running job uses, live.

import { signal } from "@preact/signals";
import { Feed } from "../feed";
import type { Job } from "../types";

/** What a job used in the last minutes, oldest first. */
export interface Usage {
  startedMs: number;
  cpus: number;
  /** Percent of all processors of the machine. */
  cpu: number[];
  /** Bytes. */
  memory: number[];
  memoryTotal: number;
}

const usage = signal<Record<string, Usage>>({});

export function followUsage(): () => void {
  const feed = new Feed<{ jobs: Record<string, Usage> }>(
    "/api/usage",
    (value) => {
      usage.value = value.jobs;
    },
    // The list is of use without it.
    { refused: () => {} },
  );
  return () => feed.close();
}

export function usageOf(job: Job): Usage | undefined {
  const found = Object.hasOwn(usage.value, job.name) ? usage.value[job.name] : undefined;
  return found && !job.ended && found.startedMs === job.startedMs ? found : undefined;
}
