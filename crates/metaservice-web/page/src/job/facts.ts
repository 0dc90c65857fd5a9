// What is known of a job, as names and texts.

import { bytes, dateTime, duration, plain } from "../format";
import type { Details } from "../types";
import { isKnownEnd, signalName } from "./words";

export type Fact = [name: string, value: string];

export interface Section {
  title: string;
  facts: Fact[];
}

type Value = string | number | boolean | null | undefined;

/** The facts that are known. */
function known(facts: [string, Value][]): Fact[] {
  return facts.flatMap(([name, value]) =>
    value === undefined || value === null || value === "" ? [] : [[name, plain(String(value))] as Fact],
  );
}

const CONTACTS: Record<string, string> = {
  awaited: "has sent nothing yet",
  present: "answers",
  silent: "does not answer now",
  dead: "has sent nothing for too long",
  "no-guest": "no guest has sent anything",
  "no-session": "refused: it has no session",
  claimed: "refused: another agent has claimed the job",
};

const time = (ms: number | undefined): string | undefined => (ms ? dateTime(ms) : undefined);
const span = (ms: number | undefined): string | undefined =>
  ms === undefined ? undefined : duration(ms, true);

function text(value: unknown): Value {
  return typeof value === "string" || typeof value === "number" || typeof value === "boolean"
    ? value
    : undefined;
}

function size(value: unknown): Value {
  return typeof value === "number" ? bytes(value) : text(value);
}

function list(value: unknown): Value {
  return Array.isArray(value) && value.length > 0 ? value.map(String).join(", ") : undefined;
}

export function sections({ job, ended, endedMs, end, spec }: Details): Section[] {
  const { ending, agent, machine = {} } = job;
  const attempts = (machine["attempts"] ?? {}) as Record<string, unknown>;
  const network = spec?.machine?.network;
  const cpuMs = (ending?.cpuUserMs ?? 0) + (ending?.cpuSystemMs ?? 0);
  return [
    {
      title: "Result",
      facts: known([
        ["State", job.state],
        ["End", end === "result" || end === job.state || isKnownEnd(end) ? undefined : end],
        ["Exit status", job.status],
        ["Signal", ending?.signal === undefined ? undefined : signalName(ending.signal)],
        ["Ran for", span(ending?.wallMs)],
        ["Processor time", cpuMs > 0 ? span(cpuMs) : undefined],
        ["Peak memory", size(ending?.peakMemory)],
        ["Killed for lack of memory", ending?.oomKills],
        ["Failure", ending?.failure?.message || ending?.failure?.code],
      ]),
    },
    {
      title: "Times",
      facts: known([
        ["Started", time(job.startedMs)],
        ["Ended", time(endedMs)],
        ["Took", ended && endedMs && job.startedMs ? span(endedMs - job.startedMs) : undefined],
        ["Timeout", text(spec?.timeout)],
        ["Keep on failure", text(spec?.keepOnFailure)],
      ]),
    },
    {
      title: "Machine",
      facts: known([
        ["Image", text(machine["image"]) ?? text(spec?.machine?.image)],
        ["Digest", text(machine["digest"])],
        ["Kernel", text(machine["kernel"])],
        ["Processors", text(machine["cpus"]) ?? text(spec?.machine?.cpus)],
        ["Memory", size(machine["memory"] ?? spec?.machine?.memory)],
        ["Accelerator", text(machine["accelerator"])],
        [
          "From a snapshot",
          typeof machine["snapshot"] === "boolean" ? (machine["snapshot"] ? "yes" : "no") : undefined,
        ],
        ["Host process", job.pid ? job.pid : undefined],
      ]),
    },
    {
      title: "Guest",
      facts: known([
        ["Agent", agent?.version],
        ["System", agent ? `${agent.os}, ${agent.arch}` : undefined],
        ["Kernel", agent?.kernel],
        ["Contact", ended || job.contact === undefined ? undefined : (CONTACTS[job.contact] ?? job.contact)],
        ["Working directory", text(spec?.workdir)],
        ["User", text(spec?.user)],
        ["Terminal", job.tty ? "yes" : "no"],
        ["Standard input", job.stdin ? "open to clients" : "none"],
      ]),
    },
    {
      title: "Network",
      facts: known([
        ["Mode", text(machine["network"])],
        ["Allowed by rules", list(network?.allow)],
        ["Denied by rules", list(network?.deny)],
        ["Published ports", list(machine["published"])],
        ["Attempts allowed", text(attempts["allowed"])],
        ["Attempts denied", text(attempts["denied"])],
      ]),
    },
  ].filter(({ facts }) => facts.length > 0);
}

/** All of it as plain text. */
export function asText(details: Details, says: string, command: string): string {
  const lines = [`${details.job.name}: ${says}`];
  if (details.error !== undefined) lines.push(details.error);
  lines.push("", "Command", `  ${command}`);
  for (const { title, facts } of sections(details)) {
    lines.push("", title, ...facts.map(([name, value]) => `  ${name}: ${value}`));
  }
  const { env = [] } = details.job;
  if (env.length > 0) lines.push("", "Environment", ...env.map((name) => `  ${name}`));
  if (details.artifacts.length > 0) {
    lines.push("", "Artifacts");
    for (const { path, to, bytes: length, error } of details.artifacts) {
      lines.push(
        `  ${path}${to ? ` -> ${to}` : ""}: ${error ?? (length === undefined ? "fetched" : bytes(length))}`,
      );
    }
  }
  if (details.console?.length) lines.push("", "Console", ...details.console.map((line) => `  ${line}`));
  return `${lines.join("\n")}\n`;
}
