// Requests to the server, and whether it lets this browser in.

import { signal } from "@preact/signals";
import { plainLine } from "./format";

/** Whether the server lets this browser in. */
export type Access = "unknown" | "open" | "none" | "used" | "slow" | "signIn";

export const access = signal<Access>("unknown");

/** An error that the server has answered. */
export class Refused extends Error {
  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

async function answer(response: Response): Promise<Response> {
  if (response.ok) return response;
  const problem: unknown = await response.json().catch(() => null);
  const { code = "Failed", message = `status ${response.status}` } = (problem ?? {}) as {
    code?: string;
    message?: string;
  };
  if (code === "NoSession" && access.value === "open") void closed();
  throw new Refused(code, message);
}

/** Reads JSON. */
export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  const response = await answer(await fetch(path, signal ? { signal } : {}));
  return (await response.json()) as T;
}

/** Asks whether there is a session. */
export async function ask(): Promise<Response> {
  return answer(await fetch("/api/session"));
}

/** Asks for something to be done. */
export async function post(path: string, body: unknown): Promise<Response> {
  const headers = { "content-type": "application/json" };
  return answer(await fetch(path, { method: "POST", headers, body: JSON.stringify(body) }));
}

/** Sends bytes. */
export async function put<T>(path: string, body: Blob, signal: AbortSignal): Promise<T> {
  const headers = { "content-type": "application/octet-stream" };
  const response = await answer(await fetch(path, { method: "PUT", headers, body, signal }));
  return (await response.json()) as T;
}

export async function remove(path: string): Promise<void> {
  await answer(await fetch(path, { method: "DELETE" }));
}

/** What the page shows when there is no session: how to get one. */
async function closed(): Promise<void> {
  access.value = (await wantsSignIn()) ? "signIn" : "none";
}

export async function wantsSignIn(): Promise<boolean> {
  try {
    return (await get<{ signIn?: boolean }>("/session")).signIn === true;
  } catch {
    return false;
  }
}

/** The text of an error, for people. */
export function reason(error: unknown): string {
  if (error instanceof TypeError) return "the server does not answer";
  return plainLine(error instanceof Error ? error.message : String(error));
}

/** The path of a job's part of the API. */
export function jobApi(name: string): string {
  return `/api/jobs/${encodeURIComponent(name)}`;
}
