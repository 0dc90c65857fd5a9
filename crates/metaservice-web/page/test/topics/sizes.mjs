// Screens of all sizes, and preferences of the user.

import assert from "node:assert/strict";
import { look, rows, seen, step, tab } from "../harness.mjs";

export default async function (t) {
  const { tool } = t;
  let { page } = t;
  await step("what is not there is said", async () => {
    await page.goto(`http://${t.server.address}/job/none`);
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
      await other.goto(`http://${t.server.address}/`);
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
  t.page = page;
}
