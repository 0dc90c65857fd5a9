// A browser, and what all steps use. Each step is printed, and writes pictures.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { browser } from "./tool.mjs";

export const shots = process.env.SHOTS ?? "shots";
mkdirSync(shots, { recursive: true });
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

export const chromium = await browser();
const problems = [];

export async function tab(options = {}, context = undefined) {
  const made = context ?? (await chromium.newContext({ viewport: { width: 1280, height: 800 }, ...options }));
  await made.grantPermissions(["clipboard-read", "clipboard-write"]);
  const page = await made.newPage();
  page.setDefaultTimeout(30_000);
  page.on("pageerror", (error) => problems.push(`error in the page: ${error}`));
  page.on("dialog", (dialog) => problems.push(`a dialog: ${dialog.message()}`));
  page.on("console", (message) => {
    // A refused request is one of the tests.
    const text = message.text();
    const isExpected = /the server responded with a status of|WebSocket connection to|ERR_CONNECTION/.test(
      text,
    );
    if (message.type() === "error" && !isExpected) problems.push(`console: ${text}`);
  });
  return page;
}

/** Takes a picture, and looks for what a screen reader or a keyboard cannot use. */
export async function look(page, name) {
  // The tool itself is not what the page's policy is for.
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  const found = violations.flatMap(({ id, impact, nodes }) =>
    nodes.map((node) => `${impact} ${id}: ${node.html} ${node.failureSummary}`),
  );
  assert.deepEqual(found, [], `axe: ${name}`);
  const isLost = (await page.locator(".lost").count()) > 0;
  assert.equal(isLost, ["lost", "terminal-cut"].includes(name), `the connection: ${name}`);
  await page.screenshot({ path: join(shots, `${name}.png`) });
}

export async function step(name, act) {
  const start = Date.now();
  try {
    await act();
  } catch (error) {
    const pages = chromium.contexts().flatMap((context) => context.pages());
    for (const [number, page] of pages.entries()) {
      await page.screenshot({ path: join(shots, `failed-${number}.png`) }).catch(() => {});
    }
    console.log(`failed: ${name}: ${problems.join("; ")}`);
    throw error;
  }
  assert.deepEqual(problems, [], name);
  console.log(`ok ${name} (${Date.now() - start} ms)`);
}

export const seen = (page, text) => page.getByText(text).first().waitFor();
export const rows = (page) => page.locator(".row .text");

/** Waits until the page shows this. */
export async function until(read, expected, ms = 20_000) {
  const end = Date.now() + ms;
  let value = await read();
  for (; value !== expected && Date.now() < end; value = await read()) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.equal(value, expected);
}
