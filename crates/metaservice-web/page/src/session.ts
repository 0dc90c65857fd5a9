// Who uses the page, and what the server lets them do.

import { signal } from "@preact/signals";
import { access, ask, post, Refused, remove, wantsSignIn } from "./server";

export type Role = "watch" | "operate" | "admin";

export interface Session {
  user: string | null;
  role: Role;
  /** Whose jobs these are: those of a host, or those of a queue. */
  source: "host" | "queue";
  place: string;
  can: { run: boolean; remove: boolean; signOut: boolean };
}

/** A server that says nothing allows what the user of the host may do. */
const OWNER: Session = {
  user: null,
  role: "admin",
  source: "host",
  place: "",
  can: { run: true, remove: true, signOut: true },
};

export const session = signal<Session>(OWNER);

const RANK: Record<Role, number> = { watch: 0, operate: 1, admin: 2 };

/** Whether the role of the user is at least this one. */
export function may(role: Role): boolean {
  return RANK[session.value.role] >= RANK[role];
}

export function isQueue(): boolean {
  return session.value.source === "queue";
}

async function open(): Promise<void> {
  const response = await ask();
  session.value = response.status === 204 ? OWNER : ((await response.json()) as Session);
  access.value = "open";
}

/** Exchanges the token of the address for a session, and takes it out of the address. */
export async function enter(): Promise<void> {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token !== null) {
    history.replaceState(null, "", location.pathname);
    try {
      await post("/session", { token });
      return await open();
    } catch (error) {
      if (error instanceof Refused && error.code === "TooMany") {
        access.value = "slow";
        return;
      }
    }
  }
  try {
    await open();
  } catch (error) {
    // A server that does not answer is not one that refuses.
    if (!(error instanceof Refused)) access.value = "open";
    else if (await wantsSignIn()) access.value = "signIn";
    else access.value = token === null ? "none" : "used";
  }
}

/** Exchanges the token of a user for a session. */
export async function signIn(token: string): Promise<void> {
  await post("/session", { token });
  await open();
}

export async function signOut(): Promise<void> {
  await remove("/api/session");
  access.value = (await wantsSignIn()) ? "signIn" : "none";
}
