// Which page is shown.

import { signal } from "@preact/signals";

export const TABS = ["log", "terminal", "files", "stats", "network", "details"] as const;
export type Tab = (typeof TABS)[number];

export type Route =
  | { page: "jobs" | "workers" }
  | { page: "run"; query: string }
  | { page: "job"; name: string; tab: Tab; query: string };

function parse(path: string, query: string): Route {
  if (path === "/run") return { page: "run", query };
  if (path === "/workers") return { page: "workers" };
  const [, name, word = "log"] = /^\/job\/([^/]+)(?:\/([a-z]+))?$/.exec(path) ?? [];
  const tab = TABS.find((tab) => tab === word);
  try {
    if (name !== undefined && tab) return { page: "job", name: decodeURIComponent(name), tab, query };
  } catch {
    // Not a name: the list.
  }
  return { page: "jobs" };
}

export const route = signal<Route>(parse(location.pathname, location.search));

export function jobPath(name: string, tab: Tab = "log"): string {
  const path = `/job/${encodeURIComponent(name)}`;
  return tab === "log" ? path : `${path}/${tab}`;
}

/** Shows a page. `replaces`: the way back does not lead to this one. */
export function go(address: string, replaces = false): void {
  const url = new URL(address, location.origin);
  if (replaces) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  route.value = parse(url.pathname, url.search);
}

addEventListener("popstate", () => {
  const next = parse(location.pathname, location.search);
  // Another line of the same log is not another page.
  if (JSON.stringify(next) !== JSON.stringify(route.value)) route.value = next;
});
