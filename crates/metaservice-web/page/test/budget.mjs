// The budget of the page: its size, and what a log of 1 GiB and 10 million lines costs a browser
// (`BUDGET_LINES`: another number of lines). It prints each figure with its ratio to a limit. It
// fails on sizes, and never on times.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { gzipSync } from "node:zlib";
import { browser, Tool } from "./tool.mjs";

const MIB = 1 << 20;
const ASSETS = new URL("../../assets/", import.meta.url);

/** All lines together are by default a little more than 1 GiB. */
const LINES = Number(process.env.BUDGET_LINES ?? 10_000_000);
const TEXT = "x".repeat(107);
const LOG = `${Math.round((LINES * (TEXT.length + 1)) / MIB)} MiB in ${LINES} lines`;

let failed = false;

/** Prints a size and compares it with its limit. */
function size(what, bytes, limit) {
  const ratio = bytes / limit;
  failed ||= ratio > 1;
  console.log(`${what}: ${(bytes / MIB).toFixed(2)} MiB, ${ratio.toFixed(2)} of ${(limit / MIB).toFixed(2)} MiB`);
}

/** Prints a time, and its ratio to another one. */
function time(what, ms, other, otherMs) {
  console.log(`${what}: ${Math.round(ms)} ms, ${(ms / otherMs).toFixed(2)} of ${other} (${Math.round(otherMs)} ms)`);
}

const files = readdirSync(ASSETS).map((name) => [name, readFileSync(new URL(name, ASSETS))]);
const compressed = files.map(([, content]) => gzipSync(content, { level: 9 }).length);
const html = files.find(([name]) => name === "index.html")[1].toString();
const isFirst = (name) => name === "index.html" || html.includes(name);
const first = files.reduce((sum, [name], at) => sum + (isFirst(name) ? compressed[at] : 0), 0);
size("all assets, compressed", compressed.reduce((sum, bytes) => sum + bytes), 1_000_000);
size("assets of the first page, compressed", first, 100_000);

const tool = new Tool();
const chromium = await browser();
try {
  const make = `yes ${TEXT} | head -c ${LINES * (TEXT.length + 1)}; echo the last line`;
  const begin = performance.now();
  tool.start("big", make);
  tool.run("wait", "big");
  const made = performance.now() - begin;
  console.log(`a log of ${LINES + 1} lines was made in ${Math.round(made)} ms`);
  tool.start("talker", "sleep 3600");
  const server = await tool.web();
  const context = await chromium.newContext({ viewport: { width: 1280, height: 800 } });
  const page = await context.newPage();
  page.setDefaultTimeout(120_000);
  await page.goto(await server.link());
  await page.getByText("big").first().waitFor();
  await heap(page, "the list");
  await bigLog(page, server);
  await terminal(page, server);
  await server.end();
} finally {
  await chromium.close();
  await tool.end();
}
assert.ok(!failed, "a size is over its limit");

/** The memory of the page's own objects, after a collection. */
async function heap(page, what, limit = 32 * MIB) {
  const session = await page.context().newCDPSession(page);
  await session.send("HeapProfiler.collectGarbage");
  const { usedSize } = await session.send("Runtime.getHeapUsage");
  await session.detach();
  size(`memory of the tab with ${what}`, usedSize, limit);
}

/** Opens the log at its end, at a line in the middle, and searches all of it. */
async function bigLog(page, server) {
  const empty = await page.context().newPage();
  let start = performance.now();
  await empty.goto(`http://${server.address}/job/talker`);
  await empty.getByText("Nothing yet").waitFor();
  const small = performance.now() - start;
  await empty.close();
  start = performance.now();
  await page.goto(`http://${server.address}/job/big`);
  await page.locator(".row .text").first().waitFor();
  time(`the first lines of ${LOG}`, performance.now() - start, "an empty log", small);
  await page.getByText("the last line", { exact: true }).waitFor();
  time(`the last line of ${LOG}`, performance.now() - start, "an empty log", small);
  await heap(page, LOG);
  for (let at = 0; at < 200; at++) await page.keyboard.press("PageUp");
  await heap(page, "the same after 200 pages");
}

/** How fast a command can write to a terminal of the page, and to one of the command line. The terminal of
 * the guest is the same. */
async function terminal(page, server) {
  const bytes = 5 * MIB;
  const command = `head -c ${bytes} /dev/zero | tr '\\0' x | fold -w 79; echo; echo its-end`;
  const start = performance.now();
  const exec = `"$METASERVICE" exec -t talker -- sh -c "${command}"`;
  const direct = spawn("script", ["-qefc", exec, "/dev/null"], {
    env: tool.env,
    stdio: ["ignore", "pipe", "ignore"],
  });
  for await (const line of createInterface({ input: direct.stdout })) if (line === "its-end") break;
  const plain = performance.now() - start;
  await page.goto(`http://${server.address}/job/talker/terminal`);
  await page.locator(".xterm-rows").first().waitFor();
  await page.keyboard.type("stty -echo; clear\n");
  await page.waitForTimeout(1000);
  const begin = performance.now();
  await page.keyboard.type(`${command}\n`);
  await page.waitForFunction(
    () => document.querySelector(".xterm-rows")?.textContent?.includes("its-end"),
    undefined,
    { timeout: 300_000, polling: 100 },
  );
  time(`${bytes / MIB} MiB in a terminal of the page`, performance.now() - begin, "exec -t", plain);
  await heap(page, `a terminal that has had ${bytes / MIB} MiB`);
}
