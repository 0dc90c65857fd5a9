// What a user does with the page, in a real browser, with jobs in real machines. It prints each
// step, and writes pictures.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { browser, Tool } from "./tool.mjs";

const shots = process.env.SHOTS ?? "shots";
mkdirSync(shots, { recursive: true });
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

const tool = new Tool();
const chromium = await browser();
const problems = [];

async function tab(options = {}, context = undefined) {
  const made = context ?? (await chromium.newContext({ viewport: { width: 1280, height: 800 }, ...options }));
  const page = await made.newPage();
  page.setDefaultTimeout(30_000);
  page.on("pageerror", (error) => problems.push(`error in the page: ${error}`));
  page.on("dialog", (dialog) => problems.push(`a dialog: ${dialog.message()}`));
  page.on("console", (message) => {
    // A refused request is one of the tests.
    const text = message.text();
    const isExpected = /the server responded with a status of|WebSocket connection to|ERR_CONNECTION/.test(text);
    if (message.type() === "error" && !isExpected) problems.push(`console: ${text}`);
  });
  return page;
}

/** Takes a picture, and looks for what a screen reader or a keyboard cannot use. */
async function look(page, name) {
  // The tool itself is not what the page's policy is for.
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  const found = violations.flatMap(({ id, impact, nodes }) =>
    nodes.map((node) => `${impact} ${id}: ${node.html} ${node.failureSummary}`),
  );
  assert.deepEqual(found, [], `axe: ${name}`);
  await page.screenshot({ path: join(shots, `${name}.png`) });
}

async function step(name, act) {
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

const seen = (page, text) => page.getByText(text).first().waitFor();
const rows = (page) => page.locator(".row .text");

/** Waits until the page shows this. */
async function until(read, expected) {
  const end = Date.now() + 20_000;
  let value = await read();
  for (; value !== expected && Date.now() < end; value = await read()) {
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  assert.equal(value, expected);
}

const COLOURS = [
  "printf '\\033[1;32mok\\033[0m  12 tests\\n'",
  "printf '\\033[33mwarning\\033[0m: unused \\033[38;2;200;80;160mvariable\\033[0m\\n'",
  "printf '  0%%\\r 50%%\\r100%% done\\n'",
  "echo 'error: no such file' >&2",
  "printf '<img src=x onerror=alert(1)> \\033]0;title\\007\\033]8;;http://evil.example\\033\\\\link\\n'",
].join("; ");

try {
  let server = await tool.web();
  let page;
  await step("without a session, the page says how to get one", async () => {
    page = await tab();
    await page.goto(`http://${server.address}/`);
    await seen(page, "Open the link from the terminal");
    await look(page, "no-session");
    await page.goto(`http://${server.address}/#token=${"0".repeat(64)}`);
    await page.reload();
    await seen(page, "Open the link from the terminal");
  });

  const link = await server.link();
  await step("a link lets a browser in, once", async () => {
    await page.goto(link);
    await seen(page, "No jobs yet");
    assert.equal(page.url(), `http://${server.address}/`, "the token is out of the address");
    await look(page, "empty");
    const other = await tab();
    await other.goto(link);
    await seen(other, "This link was used already");
    await look(other, "used-link");
    await other.goto(await server.link());
    await seen(other, "No jobs yet");
    await other.context().close();
  });

  await step("jobs appear when they start, and show how they end", async () => {
    tool.start("build", `${COLOURS}; for n in $(seq 400); do echo "step $n"; done; while [ ! -e /tmp/go ]; do sleep 0.2; done; echo resumed; sleep 600`);
    await page.getByRole("link", { name: "build", exact: true }).waitFor();
    tool.start("failing", "echo about to fail; exit 3");
    await seen(page, "failed (3)");
    await until(() => page.locator("tbody tr").first().locator("th").textContent(), "failing");
    await until(() => page.locator("tr", { has: page.getByRole("link", { name: "build", exact: true }) }).locator(".state").textContent(), "running");
    await look(page, "jobs");
  });

  await step("the list is filtered and used by the keyboard alone", async () => {
    await page.keyboard.press("/");
    await page.keyboard.type("nothing like it");
    await seen(page, "No job matches");
    await look(page, "no-match");
    await page.keyboard.press("Escape");
    await page.keyboard.type("running");
    await until(() => page.locator("tbody tr").count(), 1);
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
    await page.waitForURL("**/job/build");
  });

  await step("a log shows what a terminal would, and nothing acts", async () => {
    await seen(page, "step 400");
    await page.keyboard.press("Home");
    await seen(page, "12 tests");
    const texts = await rows(page).allTextContents();
    assert.equal(texts[0], "ok  12 tests");
    assert.equal(texts[2], "100% done");
    assert.ok(texts.includes("<img src=x onerror=alert(1)> link"), texts.slice(0, 6).join("\n"));
    assert.equal(await page.locator(".log img, .log a:not(.no)").count(), 0);
    assert.equal(await page.locator(".row.err .text").first().textContent(), "error: no such file");
    assert.equal(await page.locator(".text .bold.f2").first().textContent(), "ok");
    await page.getByRole("button", { name: "Times" }).click();
    await page.locator(".time", { hasText: /^\d\d:\d\d:\d\d\.\d{3}$/ }).first().waitFor();
    await look(page, "log");
  });

  await step("the whole log is searched", async () => {
    await page.keyboard.press("/");
    await page.keyboard.type("step 3[0-9]9$");
    await page.keyboard.press("Enter");
    await seen(page, "1 of 10");
    assert.equal(await page.locator(".row.current mark").textContent(), "step 309");
    await page.getByRole("button", { name: "Next match" }).click();
    await seen(page, "2 of 10");
    assert.equal(await page.locator(".row.current mark").textContent(), "step 319");
    await look(page, "search");
    await page.getByRole("searchbox").fill("a(");
    await page.keyboard.press("Enter");
    await seen(page, "unclosed group");
    await page.keyboard.press("Escape");
  });

  await step("a line has an address", async () => {
    await page.locator(".no", { hasText: /^319$/ }).click();
    const address = page.url();
    assert.ok(address.endsWith("/job/build#L319"), address);
    const other = await tab({}, page.context());
    await other.goto(address);
    await until(() => other.locator(".row.target .no").textContent(), "319");
    await other.close();
  });

  await step("a download is the log, byte for byte", async () => {
    const downloaded = page.waitForEvent("download");
    await page.getByRole("link", { name: "Download" }).click();
    const file = await downloaded;
    assert.equal(file.suggestedFilename(), "build.log");
    const log = tool.run("logs", "--merged", "build");
    assert.ok(readFileSync(await file.path()).equals(log));
  });

  await step("when the server is gone the page says so, and finds it again", async () => {
    await page.getByRole("button", { name: "Follow" }).click();
    const { address } = server;
    await server.end();
    await seen(page, "Connection lost");
    await look(page, "lost");
    server = await tool.web(address);
    // The new server does not know the session.
    await page.getByRole("button", { name: "Try now" }).click().catch(() => {});
    await page.waitForTimeout(500);
    await page.goto(await server.link());
    await page.getByRole("link", { name: "build", exact: true }).click();
    await seen(page, "step 400");
    tool.run("exec", "build", "touch", "/tmp/go");
    await rows(page).getByText("resumed", { exact: true }).waitFor();
    const shown = await rows(page).allTextContents();
    assert.deepEqual(shown.slice(-3), ["step 399", "step 400", "resumed"], "no gap and no repeat");
  });

  await step("a job is killed after one question", async () => {
    await page.getByRole("button", { name: "Kill" }).click();
    await seen(page, "Kill build?");
    await look(page, "kill");
    await page.getByRole("button", { name: "Cancel" }).click();
    await page.getByRole("button", { name: "Kill" }).click();
    await page.getByRole("button", { name: "Kill the command" }).click();
    await seen(page, /The job has ended/);
    await page.locator(".head .state.bad, .head .state.odd").waitFor();
    await look(page, "ended");
  });

  await step("a flood is followed by skipping, and all of it can be read", async () => {
    tool.start("flood", "seq 1000000; echo the end >&2");
    await page.goto(`http://${server.address}/job/flood`);
    await seen(page, "passed too fast to show");
    await page.screenshot({ path: join(shots, "flood.png") });
    await page.locator(".foot .complete").waitFor({ timeout: 120_000 });
    await seen(page, "1,000,001 lines");
    await until(() => rows(page).last().textContent(), "the end");
    await page.locator(".log").focus();
    await page.keyboard.press("Home");
    await until(() => rows(page).first().textContent(), "1");
    await page.mouse.move(600, 400);
    await page.mouse.wheel(0, 2_000);
    await until(async () => Number(await rows(page).first().textContent()) > 50, true);
    await page.keyboard.press("/");
    await page.keyboard.type("^(7654321|765432)$");
    await page.keyboard.press("Enter");
    await seen(page, "1 of 1");
    await until(() => page.locator(".row.current .no").textContent(), "765,432");
    const nodes = await page.locator(".row").count();
    assert.ok(nodes < 80, `${nodes} rows are in the page`);
    await look(page, "long");
  });

  await step("what is not there is said", async () => {
    await page.goto(`http://${server.address}/job/none`);
    await seen(page, "There is no job named none");
    await look(page, "no-job");
  });

  const { cookies } = await page.context().storageState();
  for (const [name, options] of [
    ["phone", { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true }],
    ["dark", { colorScheme: "dark" }],
    ["wide", { viewport: { width: 3840, height: 2160 } }],
    ["still", { reducedMotion: "reduce" }],
  ]) {
    await step(`the page fits: ${name}`, async () => {
      const other = await tab({ ...options, storageState: { cookies, origins: [] } });
      await other.goto(`http://${server.address}/`);
      await other.getByRole("link", { name: "build", exact: true }).waitFor();
      await look(other, `jobs-${name}`);
      await other.getByRole("link", { name: "build", exact: true }).click();
      await rows(other).getByText("resumed", { exact: true }).waitFor();
      await other.keyboard.press("Home");
      await seen(other, "12 tests");
      const overflow = await other.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      assert.ok(overflow <= 0, `${overflow} pixels too wide`);
      await look(other, `log-${name}`);
      await other.context().close();
    });
  }
  await server.end();
  console.log(`pictures are in ${shots}`);
} finally {
  await chromium.close();
  tool.end();
}
