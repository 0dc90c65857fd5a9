// A description of a job as the command line that runs the same.

import type { JobSpec } from "../types";
import { quote } from "./shell";

/** Members that no option sets: such a job needs `--spec FILE`. */
const WITHOUT_OPTION = ["stdin", "terminal", "cloud"];

const text = (value: unknown): string | undefined =>
  typeof value === "string" || typeof value === "number" ? String(value) : undefined;

const texts = (value: unknown): string[] => (Array.isArray(value) ? value.map(String) : []);

const record = (value: unknown): Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value)
    ? (value as Record<string, unknown>)
    : {};

const records = (value: unknown): Record<string, unknown>[] =>
  Array.isArray(value) ? value.map(record) : [];

const path = (value: unknown): string => String(value).replaceAll(":", "\\:");

/** `A:B`, or `A` alone. */
function pair(from: unknown, to: unknown): string {
  return text(to) === undefined ? path(from) : `${path(from)}:${text(to)}`;
}

function options(spec: JobSpec, name: string | undefined): string[][] {
  const machine = record(spec.machine);
  const network = record(machine["network"]);
  const made: string[][] = [];
  const one = (option: string, value: unknown, unless?: string): void => {
    const found = text(value);
    if (found !== undefined && found !== unless) made.push([option, found]);
  };
  const all = (option: string, values: string[]): void => {
    for (const value of values) made.push([option, value]);
  };
  one("--name", name);
  one("--image", machine["image"]);
  one("--rootfs", machine["rootfs"]);
  all(
    "--volume",
    records(machine["volumes"]).map(({ host, guest, mode }) => {
      const suffix = text(mode) === undefined || mode === "ro" ? "" : `:${text(mode)}`;
      return `${path(host)}:${path(guest)}${suffix}`;
    }),
  );
  all("--show", texts(machine["show"]));
  all("--hide", texts(machine["hide"]));
  one("--cpus", machine["cpus"], "1");
  one("--memory", machine["memory"], "1G");
  one("--accel", machine["accel"], "auto");
  one("--boot-timeout", machine["bootTimeout"]);
  one("--kernel", machine["kernel"]);
  one("--initrd", machine["initrd"]);
  one("--console", machine["console"]);
  one("--pcap", machine["pcap"]);
  if (machine["kaslr"] === true) made.push(["--kaslr"]);
  if (machine["snapshot"] === false) made.push(["--no-snapshot"]);
  one("--net", network["mode"], "none");
  all("--allow-net", texts(network["allow"]));
  all("--deny-net", texts(network["deny"]));
  one("--net-policy", network["policy"]);
  one("--net-log", network["log"]);
  all("--publish", texts(network["publish"]));
  one("--workdir", spec.workdir);
  one("--user", spec.user);
  one("--hostname", spec["hostname"]);
  all(
    "--env",
    Object.entries(spec.env ?? {}).map(([name, value]) => `${name}=${value}`),
  );
  all("--secret", texts(spec["secrets"]));
  const entrypoint = spec["entrypoint"];
  if (Array.isArray(entrypoint)) made.push(["--entrypoint", String(entrypoint[0] ?? "")]);
  all(
    "--copy-in",
    records(spec["copyIn"]).map(({ from, to }) => pair(from, to)),
  );
  all(
    "--artifact",
    records(spec["artifacts"]).map(({ path: from, to }) => pair(from, to)),
  );
  one("--artifacts-on", spec["artifactsOn"], "always");
  one("--stderr", spec["stderr"]);
  one("--log", spec["log"]);
  one("--session", spec["session"], "claimed");
  one("--max-log", spec["maxLog"], "64G");
  one("--max-artifact", spec["maxArtifact"], "64G");
  all(
    "--limit",
    Object.entries(record(spec["limits"])).map(([name, value]) => `${name}=${String(value)}`),
  );
  one("--timeout", spec.timeout);
  const keep = text(spec.keepOnFailure);
  if (keep !== undefined) made.push([`--keep-on-failure=${keep}`]);
  return made;
}

/** The command line, with a backslash at the end of each line but the last. */
export function commandLine(spec: JobSpec, name: string | undefined, queue: boolean): string {
  const entrypoint = spec["entrypoint"];
  const isWhole =
    WITHOUT_OPTION.every((member) => !spec[member]) && !(Array.isArray(entrypoint) && entrypoint.length > 1);
  const start = queue ? "metaservice submit" : "metaservice run -d";
  if (!isWhole) return `${start} --spec FILE`;
  const made = options(spec, name).map(([option = "", value]) =>
    value !== undefined
      ? `${option} ${quote(value)}`
      : /=/.test(option)
        ? option.replace(/=(.*)$/s, (_, v: string) => `=${quote(v)}`)
        : option,
  );
  const command = spec.command.length > 0 ? [`-- ${spec.command.map(quote).join(" ")}`] : [];
  const parts = [start, ...made, ...command];
  const line = parts.join(" ");
  return line.length <= 60 && !line.includes("\n") ? line : parts.join(" \\\n  ");
}
