// The list of jobs, live.

import { signal } from "@preact/signals";
import { Feed } from "./feed";
import type { Job, Listing } from "./types";

export const listing = signal<Listing>({ jobs: [], more: 0, known: false });
export const filter = signal("");

/** The time, for ages. */
export const now = signal(Date.now());

export function follow(): () => void {
  const feed = new Feed<Listing>("/api/jobs", (value) => {
    listing.value = value;
  });
  const timer = setInterval(() => {
    now.value = Date.now();
  }, 1000);
  return () => {
    feed.close();
    clearInterval(timer);
  };
}

export function find(name: string): Job | undefined {
  return listing.value.jobs.find((job) => job.name === name);
}

export type Tone = "live" | "good" | "bad" | "odd" | "calm";

/** How a state looks, and its word. */
export function tone(job: Pick<Job, "state" | "status">): [Tone, string] {
  switch (job.state) {
    case "running":
      return ["live", "running"];
    case "waiting":
      return ["calm", "waiting"];
    case "succeeded":
      return ["good", "succeeded"];
    case "failed":
      return ["bad", job.status === undefined ? "failed" : `failed (${job.status})`];
    case "kept":
      return ["bad", job.status === undefined ? "failed, kept" : `failed (${job.status}), kept`];
    case "exception":
      return ["bad", "no result"];
    case "silent":
      return ["odd", "does not answer"];
    case "other":
      return ["odd", "unknown"];
    default:
      return ["odd", job.state];
  }
}
