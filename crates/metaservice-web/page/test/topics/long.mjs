// A log of a million lines.

import assert from "node:assert/strict";
import { join } from "node:path";
import { look, rows, seen, shots, step, until } from "../harness.mjs";

export default async function (t) {
  const { tool } = t;
  let { page } = t;
  await step("a flood is followed by skipping, and all of it can be read", async () => {
    tool.start("flood", "seq 1000000; echo the end >&2");
    await page.goto(`http://${t.server.address}/job/flood`);
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
  t.page = page;
}
