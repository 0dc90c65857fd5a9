// Which page is shown.

import { signal } from "@preact/signals";

export type Route = { page: "jobs" } | { page: "job"; name: string };

function parse(path: string): Route {
  const name = /^\/job\/([^/]+)$/.exec(path)?.[1];
  try {
    if (name !== undefined) return { page: "job", name: decodeURIComponent(name) };
  } catch {
    // Not a name: the list.
  }
  return { page: "jobs" };
}

export const route = signal<Route>(parse(location.pathname));

export function jobPath(name: string): string {
  return `/job/${encodeURIComponent(name)}`;
}

export function go(path: string): void {
  history.pushState(null, "", path);
  route.value = parse(path);
}

addEventListener("popstate", () => {
  const next = parse(location.pathname);
  const now = route.value;
  const same = next.page === now.page && (next.page === "jobs" || now.page === "jobs" || next.name === now.name);
  if (!same) route.value = next;
});
