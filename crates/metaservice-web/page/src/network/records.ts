// What a guest has tried to reach: crates/metaservice-egress/src/audit.rs.

import { useEffect, useState } from "preact/hooks";
import { Feed } from "../feed";
import { quote } from "../run/shell";
import { jobApi } from "../server";
import type { JobSpec } from "../types";

export interface Attempted {
  timeMs: number;
  verdict: "allowed" | "denied";
  rule?: string;
  name?: string;
  address?: string;
  port?: number;
  protocol: string;
  sent: number;
  received: number;
  durationMs: number;
  reason: string;
  /** The flag that would allow it, or its rule. */
  hint?: string;
  suggestion?: string;
}

export function flagOf({ hint, suggestion }: Attempted): string | undefined {
  return hint ?? (suggestion === undefined ? undefined : `--allow-net ${quote(suggestion)}`);
}

export interface Policy {
  allow: string[];
  deny: string[];
  /** A file with more rules, which is not read. */
  file?: string;
}

/** The policy of a job's description. `null`: it has none. */
export function policyOf(spec: JobSpec | undefined): Policy | null {
  const { mode, allow = [], deny = [], policy: file } = spec?.machine?.network ?? {};
  const open = mode === "open" ? ["public"] : [];
  const isFile = typeof file === "string";
  if (open.length + allow.length + deny.length === 0 && !isFile) return null;
  return { allow: [...open, ...allow], deny, ...(isFile && { file }) };
}

interface Message {
  more?: number;
  records: Attempted[];
  policy?: Policy | null;
  live?: boolean;
}

export interface Network {
  /** How many older ones are not here. */
  more: number;
  /** The newest first. */
  records: Attempted[];
  policy: Policy | null;
  live: boolean;
}

/** The most attempts in memory. */
const MOST = 5_000;

/** Follows the attempts of a guest. */
export function useNetwork(name: string, started: number | undefined): Network | "none" | undefined {
  const [network, setNetwork] = useState<Network | "none">();
  useEffect(() => {
    if (started === undefined) return;
    setNetwork(undefined);
    const received = (message: Message): void => {
      setNetwork((before) => {
        const added = [...message.records].reverse();
        // The first message of each connection has the policy, and all that is still kept.
        if (message.policy !== undefined || before === undefined || before === "none") {
          const { more = 0, policy = null, live = true } = message;
          return { more, policy, live, records: added };
        }
        const records = [...added, ...before.records];
        const over = Math.max(0, records.length - MOST);
        return {
          ...before,
          live: message.live ?? before.live,
          more: before.more + over,
          records: records.slice(0, MOST),
        };
      });
    };
    const feed = new Feed<Message>(`${jobApi(name)}/network?started=${started}`, received, {
      isLast: ({ live }) => live === false,
      refused: () => setNetwork("none"),
    });
    return () => feed.close();
  }, [name, started]);
  return network;
}

const REASONS: Record<string, string> = {
  rule: "a rule denies it",
  "no-rule": "no rule allows it",
  "not-public": "the name leads to addresses that are not allowed",
  unresolved: "the name does not resolve",
  "wrong-name": "the connection names another host, or none",
  packet: "the gateway does not carry such packets",
  limit: "a limit is reached",
  refused: "the peer refused the connection",
  unreachable: "the peer did not answer",
  policy: "the policy has changed",
  reset: "a side cut the connection",
  ended: "ended",
};

export function reasonWords({ reason, rule }: Attempted): string {
  const words = REASONS[reason] ?? reason;
  if (rule !== undefined && reason === "rule") return `the rule ${rule} denies it`;
  return words;
}

/** A target, and how often it was tried. */
export interface Row {
  key: string;
  last: Attempted;
  times: number;
  sent: number;
  received: number;
}

export function single(records: Attempted[]): Row[] {
  return records.map((last, index) => ({
    key: `${last.timeMs} ${records.length - index}`,
    last,
    times: 1,
    sent: last.sent,
    received: last.received,
  }));
}

/** Attempts with the same target and the same end as one row. */
export function grouped(records: Attempted[]): Row[] {
  const rows = new Map<string, Row>();
  for (const last of records) {
    const { verdict, name, address, port, protocol, reason } = last;
    const key = JSON.stringify([verdict, name ?? address, port, protocol, reason]);
    const row = rows.get(key);
    if (!row) rows.set(key, { key, last, times: 1, sent: last.sent, received: last.received });
    else {
      row.times += 1;
      row.sent += last.sent;
      row.received += last.received;
    }
  }
  return [...rows.values()];
}
