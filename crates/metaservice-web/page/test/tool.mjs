// The real tool with directories of its own, and a browser.

import { spawn, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const tool = process.env.METASERVICE;

export class Tool {
  /** The processes that run. */
  #children = new Set();

  constructor() {
    this.directory = mkdtempSync(join(tmpdir(), "metaservice-page-"));
    for (const name of ["tmp", "state"]) mkdirSync(join(this.directory, name));
    this.env = {
      ...process.env,
      TMPDIR: join(this.directory, "tmp"),
      XDG_STATE_HOME: join(this.directory, "state"),
      METASERVICE_CONFIG: "",
    };
  }

  /** Runs the tool to its end. Returns what it wrote to stdout. */
  run(...args) {
    const options = { env: this.env, maxBuffer: 1 << 28, encoding: "buffer" };
    const { status, stdout, stderr } = spawnSync(tool, args, options);
    if (status !== 0) throw new Error(`${args.join(" ")}: ${status}: ${stderr}`);
    return stdout;
  }

  /** Starts a job in a machine, in the background. */
  start(name, script, ...options) {
    this.run("run", "-d", "--name", name, ...options, "--", "sh", "-c", script);
  }

  /** Starts a process, which `end` ends if it still runs. */
  #spawn(...args) {
    const child = spawn(tool, args, { env: this.env });
    const exit = new Promise((resolve) => child.once("exit", resolve));
    const running = { child, lines: createInterface({ input: child.stderr }), end: undefined };
    running.end = async () => {
      child.kill("SIGTERM");
      await exit;
      this.#children.delete(running);
    };
    this.#children.add(running);
    return running;
  }

  /** Starts a worker of this host's queue, and waits until it is ready. */
  async worker(name, ...options) {
    const { lines, end } = this.#spawn("worker", "--slots", "1", "--name", name, ...options);
    const said = [];
    for await (const line of lines) {
      said.push(line);
      if (line.includes("metaservice: ready")) {
        lines.on("line", () => {});
        return { end };
      }
    }
    throw new Error(`the worker has ended: ${said.join("\n")}`);
  }

  /** Starts the server of the page. */
  async web(listen = "127.0.0.1:0", ...options) {
    const { lines, end } = this.#spawn("web", "--json", "--no-open", "--listen", listen, ...options);
    const links = [];
    let waiting = () => {};
    let address;
    lines.on("line", (line) => {
      const event = JSON.parse(line);
      address ??= event.address;
      links.push(event.link);
      waiting();
    });
    const link = async () => {
      while (links.length === 0) await new Promise((resolve) => (waiting = resolve));
      return links.shift();
    };
    const first = await link();
    links.unshift(first);
    return { link, address, end };
  }

  async end() {
    await Promise.all([...this.#children].map(({ end }) => end()));
    const jobs = JSON.parse(this.run("ps", "--json").toString());
    for (const job of jobs) {
      spawnSync(tool, ["rm", "--force", job.name], { env: this.env });
    }
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** Debian's Chromium. Without these options it looks for its maker's hosts. */
export function browser() {
  return chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}
