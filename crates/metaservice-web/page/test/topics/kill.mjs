// The end of a job.

import assert from "node:assert/strict";
import { look, rows, seen, step, until } from "../harness.mjs";

export default async function (t) {
  const { tool } = t;
  let { page } = t;
  await step("a job is stopped in order after one question", async () => {
    tool.start("orderly", "trap 'echo saved its work; exit 7' TERM; echo ready; while :; do sleep 0.1; done");
    await page.goto(`http://${t.server.address}/job/orderly`);
    await rows(page).getByText("ready", { exact: true }).waitFor();
    const actions = page.locator(".head .actions");
    assert.deepEqual(await actions.locator("> button").allTextContents(), ["Stop", "Kill"]);
    assert.match(await actions.getByRole("button", { name: "Stop" }).getAttribute("title"), /TERM/);
    await actions.getByRole("button", { name: "Stop" }).click();
    await seen(page, "Stop orderly?");
    await look(page, "stop");
    await page.getByRole("button", { name: "Stop the command" }).click();
    await rows(page).getByText("saved its work", { exact: true }).waitFor();
    await page.locator(".head .state", { hasText: "failed (7)" }).waitFor();
    await page.getByRole("button", { name: "Run again" }).waitFor();
    assert.equal(await page.getByRole("button", { name: "Stop" }).count(), 0);
  });

  await step("the rules of an ended job's network are shown", async () => {
    const rules = ["--allow-net", "allowed.example.com:80", "--deny-net", "*.denied.example"];
    tool.start("ruled", "true", "--net", "open", ...rules);
    tool.run("wait", "ruled");
    await page.goto(`http://${t.server.address}/job/ruled/network`);
    await seen(page, "No attempts are recorded");
    const shown = page.locator(".policy code");
    await until(async () => String(await shown.allTextContents()), "public,allowed.example.com:80,*.denied.example");
    await look(page, "network-ended");
  });

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
