import { useEffect, useState } from "preact/hooks";
import { get, jobApi, reason, Refused } from "../server";
import type { Details, Job } from "../types";

export type Known =
  | { state: "loading" }
  | { state: "known"; details: Details }
  | { state: "none"; code: string; message: string };

/** How often what a job waits for is read again. */
const WAIT_MS = 3_000;

/** Reads all that is known of a job, again after each change of it. */
export function useDetails(name: string, job: Job | undefined): [Known, () => void] {
  const [known, setKnown] = useState<Known>({ state: "loading" });
  const [round, setRound] = useState(0);
  const change = job ? `${job.startedMs} ${job.state} ${job.ended} ${job.attempt ?? ""}` : "";
  useEffect(() => {
    const abort = new AbortController();
    get<Details>(jobApi(name), abort.signal).then(
      (details) => setKnown({ state: "known", details }),
      (error: unknown) => {
        if (abort.signal.aborted) return;
        const code = error instanceof Refused ? error.code : "Failed";
        // What was known is better than nothing.
        setKnown((before) =>
          before.state === "known" && code === "Failed"
            ? before
            : { state: "none", code, message: reason(error) },
        );
      },
    );
    return () => abort.abort();
  }, [name, change, round]);
  const waits = job !== undefined && !job.ended && job.state === "waiting";
  useEffect(() => {
    if (!waits) return;
    const timer = setInterval(() => setRound((round) => round + 1), WAIT_MS);
    return () => clearInterval(timer);
  }, [name, waits]);
  return [known, () => setRound((round) => round + 1)];
}
