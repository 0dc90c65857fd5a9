// Files of a guest. Their names are text of the guest, and are sent back as they came.

import { go, jobPath } from "../route";
import { jobApi } from "../server";

export interface Entry {
  name: string;
  kind: "file" | "directory" | "link" | "other";
  size: number;
  mode: number;
  modifiedMs: number;
  /** Where a link leads. */
  target?: string;
}

export interface Directory {
  path: string;
  entries: Entry[];
  /** Whether there are entries that are not listed. */
  more: boolean;
}

export type Look =
  { kind: "text"; text: string; size: number; cut: boolean } | { kind: "picture" | "binary"; size: number };

/** A running job and its files. */
export interface Place {
  name: string;
  started: number;
}

type Part = "files" | "look" | "picture" | "file";

export function fileApi(place: Place, part: Part, path: string, more: Record<string, string> = {}): string {
  const query = new URLSearchParams({ started: String(place.started), path, ...more });
  return `${jobApi(place.name)}/${part}?${query}`;
}

export function join(directory: string, name: string): string {
  return directory.endsWith("/") ? directory + name : `${directory}/${name}`;
}

export function parent(path: string): string {
  const cut = path.replace(/\/+$/, "");
  return cut.slice(0, cut.lastIndexOf("/")) || "/";
}

/** The directories down to this one: the path of each, and its name. */
export function steps(path: string): [path: string, name: string][] {
  const made: [string, string][] = [["/", "/"]];
  let at = "";
  for (const name of path.split("/").filter(Boolean)) {
    at += `/${name}`;
    made.push([at, name]);
  }
  return made;
}

/** The address of a directory, or of a file that is looked at. */
export function filesAddress(name: string, path: string, file?: string): string {
  const query = new URLSearchParams(file === undefined ? { path } : { path, file });
  return `${jobPath(name, "files")}?${query}`;
}

export function show(name: string, path: string, file?: string): void {
  go(filesAddress(name, path, file));
}

/** A mode as `ls` writes it: rwxr-xr-x. */
export function modeText(mode: number): string {
  return Array.from({ length: 9 }, (_, bit) => ((mode >> (8 - bit)) & 1 ? "rwx"[bit % 3] : "-")).join("");
}
