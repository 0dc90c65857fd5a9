// Screens of all sizes, and preferences of the user.

import assert from "node:assert/strict";
import { look, rows, seen, step, tab } from "../harness.mjs";

async function fits(page) {
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(overflow <= 0, `${overflow} pixels too wide: ${page.url()}`);
}

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
      await rows(other).getByText("step 400", { exact: true }).waitFor();
      await other.keyboard.press("Home");
      await seen(other, "12 tests");
      await look(other, `log-${name}`);
      for (const [view, path, words] of [
        ["run", "/run", "The same on the command line"],
        ["details", "/job/failing/details", "The command has failed: exit status 3."],
        ["network", "/job/build/network", /denied|No attempts are recorded/],
        ["files", "/job/build/files", "The job does not run"],
      ]) {
        await fits(other);
        await other.goto(`http://${t.server.address}${path}`);
        await seen(other, words);
        await look(other, `${view}-${name}`);
      }
      await fits(other);
      await other.context().close();
    });
  }
  t.page = page;
}
