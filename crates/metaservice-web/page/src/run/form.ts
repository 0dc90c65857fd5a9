// What the form for a job has in its fields, and the description that it stands for.

import type { JobSpec } from "../types";
import { quote, split } from "./shell";

export interface Fields {
  mode: "words" | "script";
  command: string;
  script: string;
  image: string;
  name: string;
  env: string;
  cpus: string;
  memory: string;
  network: "none" | "open";
  allow: string;
  timeout: string;
  keep: boolean;
  keepFor: string;
  workdir: string;
}

export const BLANK: Fields = {
  mode: "words",
  command: "",
  script: "",
  image: "",
  name: "",
  env: "",
  cpus: "1",
  memory: "1G",
  network: "none",
  allow: "",
  timeout: "",
  keep: false,
  keepFor: "30m",
  workdir: "",
};

/** Members of the description that the form sets. The others are kept from the job before. */
const OWN = ["version", "name", "command", "env", "timeout", "keepOnFailure", "workdir", "machine"];
const OWN_MACHINE = ["image", "cpus", "memory", "network"];

/** What is kept of the description of another job. */
export type Rest = JobSpec;

export type Errors = Partial<Record<keyof Fields, string>>;

const lines = (text: string): string[] =>
  text
    .split("\n")
    .map((line) => line.trim())
    .filter(Boolean);

const DURATION = /^(\d+(ms|[smhd]|min)?\s*)+$/;

/** The description for the fields, and what is wrong with them. */
export function describe(fields: Fields, rest: Rest | undefined): { spec: JobSpec; errors: Errors } {
  const errors: Errors = {};
  let command: string[] = [];
  if (fields.mode === "script") {
    if (fields.script.trim() === "") errors.script = "Write what the shell of the guest runs.";
    command = ["sh", "-c", fields.script];
  } else {
    const read = split(fields.command);
    if ("error" in read) errors.command = read.error;
    else command = read.words;
    if (command.length === 0 && !errors.command) errors.command = "Write a command, such as make test.";
  }
  const env: Record<string, string> = {};
  for (const line of fields.env.split("\n")) {
    if (line.trim() === "") continue;
    const at = line.indexOf("=");
    if (at < 1) errors.env = `Write “${line.trim()}” as NAME=VALUE, or remove the line.`;
    else env[line.slice(0, at).trim()] = line.slice(at + 1);
  }
  if (!/^[1-9]\d{0,2}$/.test(fields.cpus)) errors.cpus = "Write a whole number from 1 to 999.";
  if (!/^\d+(\.\d+)?[KMGT]?$/i.test(fields.memory)) errors.memory = "Write a size, such as 512M or 1.5G.";
  if (fields.timeout !== "" && !DURATION.test(fields.timeout)) errors.timeout = "Write a time, such as 90s or 1h 30m, or nothing.";
  if (fields.keep && !DURATION.test(fields.keepFor)) errors.keepFor = "Write a time, such as 30m.";
  if (fields.workdir !== "" && !fields.workdir.startsWith("/"))
    errors.workdir = "Write an absolute path of the guest, such as /srv.";
  const kept = without(rest, OWN);
  const machine = without(rest?.machine, OWN_MACHINE);
  const network = without(rest?.machine?.network, ["mode", "allow"]);
  const allow = lines(fields.allow);
  if (fields.network === "open") network["mode"] = "open";
  if (allow.length > 0) network["allow"] = allow;
  // The values of more than one line do not fit into the field.
  for (const [name, value] of Object.entries(rest?.env ?? {})) if (value.includes("\n")) env[name] = value;
  const spec: JobSpec = {
    version: rest?.version ?? 1,
    command,
    ...kept,
    ...(Object.keys(env).length > 0 && { env }),
    ...(fields.workdir !== "" && { workdir: fields.workdir }),
    ...(fields.timeout !== "" && { timeout: fields.timeout }),
    ...(fields.keep && { keepOnFailure: fields.keepFor }),
    machine: {
      ...machine,
      ...(fields.image.trim() !== "" && { image: fields.image.trim() }),
      cpus: Number(fields.cpus) || 1,
      memory: fields.memory,
      ...(Object.keys(network).length > 0 && { network }),
    },
  };
  return { spec, errors };
}

function without(value: object | undefined, members: string[]): Record<string, unknown> {
  return Object.fromEntries(Object.entries(value ?? {}).filter(([name]) => !members.includes(name)));
}

/** The fields for a job like this one. */
export function fieldsOf(spec: JobSpec): Fields {
  const { command, machine } = spec;
  const isScript = command.length === 3 && command[0] === "sh" && command[1] === "-c";
  const env = Object.entries(spec.env ?? {}).filter(([, value]) => !value.includes("\n"));
  return {
    mode: isScript ? "script" : "words",
    command: isScript ? "" : command.map(quote).join(" "),
    script: isScript ? (command[2] ?? "") : "",
    image: machine?.image ?? "",
    name: "",
    env: env.map(([name, value]) => `${name}=${value}`).join("\n"),
    cpus: String(machine?.cpus ?? 1),
    memory: machine?.memory ?? "1G",
    network: machine?.network?.mode === "open" ? "open" : "none",
    allow: (machine?.network?.allow ?? []).join("\n"),
    timeout: spec.timeout ?? "",
    keep: typeof spec.keepOnFailure === "string",
    keepFor: spec.keepOnFailure ?? "30m",
    workdir: spec.workdir ?? "",
  };
}

/** What the job keeps of the other one, by name. */
export function restNames(rest: Rest | undefined): string[] {
  const network = Object.keys(without(rest?.machine?.network, ["mode", "allow"]));
  const machine = Object.entries(without(rest?.machine, OWN_MACHINE))
    .filter(([name, value]) => !(name === "accel" && value === "auto") && value !== false && value !== true)
    .map(([name]) => name);
  return [...Object.keys(without(rest, OWN)), ...machine, ...network];
}
