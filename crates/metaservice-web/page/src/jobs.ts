// The list of jobs, live.

import { computed, signal } from "@preact/signals";
import { Feed } from "./server";
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

function matches(job: Job, words: string[]): boolean {
  const text = `${job.name} ${job.state} ${job.command} ${job.image ?? ""} ${job.status ?? ""}`.toLowerCase();
  return words.every((word) => text.includes(word));
}

/** The jobs that have all words of the filter. */
export const shown = computed<Job[]>(() => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  return words.length === 0 ? listing.value.jobs : listing.value.jobs.filter((job) => matches(job, words));
});

export function find(name: string): Job | undefined {
  return listing.value.jobs.find((job) => job.name === name);
}

export type Tone = "live" | "good" | "bad" | "odd" | "calm";

/** How a state looks, and its word. */
export function tone(job: Job): [Tone, string] {
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
    case "lost":
      return ["odd", "lost"];
    default:
      return ["odd", job.state];
  }
}
