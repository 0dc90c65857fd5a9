// The log of a job.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { look, rows, seen, step, tab, until } from "../harness.mjs";

export default async function (t) {
  const { tool } = t;
  let { page } = t;
  await step("a log shows what a terminal would, and nothing acts", async () => {
    await page.goto(`http://${t.server.address}/job/build`);
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
    await page
      .locator(".time", { hasText: /^\d\d:\d\d:\d\d\.\d{3}$/ })
      .first()
      .waitFor();
    await look(page, "log");
  });

  await step("long lines are wrapped", async () => {
    const log = page.locator(".log");
    const long = page.locator(".row", { hasText: "word300" });
    const height = () => long.evaluate((row) => row.getBoundingClientRect().height);
    assert.equal(await height(), 20);
    await page.getByRole("button", { name: "Wrap" }).click();
    await until(async () => (await height()) >= 40, true);
    assert.ok(await log.evaluate((box) => box.scrollWidth <= box.clientWidth));
    await look(page, "wrap");
    await log.focus();
    await page.keyboard.press("End");
    await until(() => page.getByRole("button", { name: "Follow" }).getAttribute("aria-pressed"), "true");
    const room = async () => {
      const last = await rows(page).getByText("step 400", { exact: true }).boundingBox();
      const box = await log.boundingBox();
      return box.y + box.height - last.y - last.height;
    };
    await until(async () => Math.abs(await room()) < 5, true);
    await page.keyboard.press("PageUp");
    await until(() => page.getByRole("button", { name: "Follow" }).getAttribute("aria-pressed"), "false");
    await page.mouse.move(600, 400);
    for (let turn = 0; turn < 40; turn += 1) await page.mouse.wheel(0, -400);
    await until(() => rows(page).first().textContent(), "ok  12 tests");
    for (let turn = 0; turn < 60; turn += 1) await page.mouse.wheel(0, 400);
    await until(() => page.getByRole("button", { name: "Follow" }).getAttribute("aria-pressed"), "true");
    await page.keyboard.press("Home");
    await until(() => rows(page).first().textContent(), "ok  12 tests");
    await page.getByRole("button", { name: "Wrap" }).click();
    await log.focus();
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
    const { address } = t.server;
    await t.server.end();
    await seen(page, "Connection lost");
    await look(page, "lost");
    t.server = await tool.web(address);
    // The new server does not know the session.
    await page
      .getByRole("button", { name: "Try now" })
      .click()
      .catch(() => {});
    await page.waitForTimeout(500);
    await page.goto(await t.server.link());
    await page.getByRole("link", { name: "build", exact: true }).click();
    await seen(page, "step 400");
    tool.run("exec", "build", "touch", "/tmp/go");
    await rows(page).getByText("resumed", { exact: true }).waitFor();
    const shown = await rows(page).allTextContents();
    assert.deepEqual(shown.slice(-3), ["step 399", "step 400", "resumed"], "no gap and no repeat");
  });
  t.page = page;
}
