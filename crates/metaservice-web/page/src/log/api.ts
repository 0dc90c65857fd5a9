// The log of a job, or of one of its attempts: where the server has it, and where the page shows it.

import { jobPath } from "../route";
import { jobApi } from "../server";

export interface LogOf {
  name: string;
  /** Without a number, it is the last attempt. */
  attempt: number | undefined;
}

type Part = "" | "/length" | "/lines" | "/search" | "/download";

export function logApi({ name, attempt }: LogOf, part: Part, more: Record<string, string> = {}): string {
  const query = new URLSearchParams(more);
  // An open log is known by its start: each attempt has its own.
  if (attempt !== undefined && more["started"] === undefined) query.set("attempt", String(attempt));
  return `${jobApi(name)}/log${part}${query.size > 0 ? `?${query}` : ""}`;
}

export function logAddress({ name, attempt }: LogOf): string {
  return attempt === undefined ? jobPath(name) : `${jobPath(name)}?attempt=${attempt}`;
}

/** The attempt that an address names. */
export function attemptOf(query: string): number | undefined {
  const number = /^[1-9]\d{0,8}$/.exec(new URLSearchParams(query).get("attempt") ?? "")?.[0];
  return number === undefined ? undefined : Number(number);
}
