// Which jobs are shown, and in which order.

import { computed, signal } from "@preact/signals";
import { filter, listing, tone } from "../jobs";
import type { Job } from "../types";
import { usageOf } from "./usage";

export type SortKey =
  | "state"
  | "name"
  | "command"
  | "cpu"
  | "memory"
  | "image"
  | "tenant"
  | "attempt"
  | "worker"
  | "started"
  | "took";

/** The server's order is that of the start, the youngest first. */
export const order = signal<{ key: SortKey; down: boolean }>({ key: "started", down: true });

/** The groups of states that can be chosen. */
export const GROUPS = {
  all: "All",
  running: "Running",
  waiting: "Waiting",
  failed: "Failed",
  succeeded: "Succeeded",
  other: "Other",
} as const;
export type Group = keyof typeof GROUPS;

export const group = signal<Group>("all");

export function groupOf(job: Job): Group {
  const [look] = tone(job);
  if (look === "live") return "running";
  if (job.state === "waiting") return "waiting";
  if (look === "bad") return "failed";
  return look === "good" ? "succeeded" : "other";
}

/** How many jobs each group has. */
export const counts = computed<Record<Group, number>>(() => {
  const made = { all: 0, running: 0, waiting: 0, failed: 0, succeeded: 0, other: 0 };
  for (const job of listing.value.jobs) {
    made.all += 1;
    made[groupOf(job)] += 1;
  }
  return made;
});

function matches(job: Job, words: string[]): boolean {
  const { name, label, state, command, image, status, tenant, worker } = job;
  const parts = [name, label, state, command, image, status, tenant, worker];
  const text = parts
    .filter((part) => part !== undefined)
    .join(" ")
    .toLowerCase();
  return words.every((word) => text.includes(word));
}

export const title = (job: Job): string => job.label ?? job.name;

export function took(job: Job, now: number): number | undefined {
  if (job.startedMs <= 0 || job.state === "waiting" || (job.ended && job.endedMs === undefined))
    return undefined;
  return Math.max(0, (job.endedMs ?? now) - job.startedMs);
}

function value(job: Job, key: SortKey): string | number {
  switch (key) {
    case "state":
      return tone(job)[1];
    case "name":
      return title(job);
    case "command":
      return job.command;
    case "image":
      return job.image ?? "";
    case "tenant":
      return job.tenant ?? "";
    case "worker":
      return job.worker ?? "";
    case "attempt":
      return job.attempt ?? 0;
    case "cpu":
      return usageOf(job)?.cpu.at(-1) ?? -1;
    case "memory":
      return usageOf(job)?.memory.at(-1) ?? -1;
    case "started":
      return job.startedMs || job.queuedMs || 0;
    case "took":
      return took(job, Date.now()) ?? -1;
  }
}

const collator = new Intl.Collator("en", { numeric: true });

function compare(a: string | number, b: string | number): number {
  return typeof a === "number" && typeof b === "number" ? a - b : collator.compare(String(a), String(b));
}

/** The jobs that are shown. */
export const shown = computed<Job[]>(() => {
  const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
  const { key, down } = order.value;
  const chosen = listing.value.jobs.filter(
    (job) => (group.value === "all" || groupOf(job) === group.value) && matches(job, words),
  );
  if (key === "started" && down) return chosen;
  return chosen
    .map((job) => ({ job, by: value(job, key) }))
    .sort((a, b) => compare(a.by, b.by) * (down ? -1 : 1))
    .map(({ job }) => job);
});

/** Sorts by a column; a second time, the other way round. */
export function sortBy(key: SortKey): void {
  const before = order.value;
  const isNumber = ["cpu", "memory", "started", "took", "attempt"].includes(key);
  order.value = { key, down: before.key === key ? !before.down : isNumber };
}
