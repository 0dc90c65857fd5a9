// The attempts to run a job of a queue.

import type { Attempt, Details, Job } from "../types";

/** All attempts. Of those that the server does not describe, the number alone is known. */
export function attemptsOf(job: Job | undefined, details: Details | undefined): Attempt[] {
  const described = details?.attempts ?? [];
  const last = Math.max(job?.attempt ?? 0, ...described.map(({ number }) => number));
  return Array.from({ length: last }, (_, index) => {
    const number = index + 1;
    const found = described.find((attempt) => attempt.number === number);
    if (found) return found;
    const runs = job !== undefined && !job.ended && job.state !== "waiting";
    if (number < last || !runs) return { number };
    return { number, startedMs: job.startedMs, ...(job.worker !== undefined && { worker: job.worker }) };
  });
}
