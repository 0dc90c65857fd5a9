// The end of a job.

import assert from "node:assert/strict";
import { look, seen, step } from "../harness.mjs";

export default async function (t) {
  const { tool } = t;
  let { page } = t;
  await step("a job is killed after one question", async () => {
    await page.goto(`http://${t.server.address}/job/build`);
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
  t.page = page;
}
