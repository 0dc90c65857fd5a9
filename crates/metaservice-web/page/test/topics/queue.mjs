// The page of a queue.

import assert from "node:assert/strict";
import { look, rows, seen, step, tab, until } from "../harness.mjs";

const SCRIPT = "echo begun; echo bad >&2; until test -e /go; do sleep 0.1; done; echo over";

export default async function (t) {
  const { tool } = t;
  // A worker that ends gives its job back.
  const options = ["--drain-timeout", "1ms"];
  let worker = await tool.worker("first", ...options);
  let server = await tool.web("127.0.0.1:0", "--queue", "local");
  let page = await tab();
  const address = (path) => `http://${server.address}${path}`;

  /** Runs a script by the form. Returns the id of its job. */
  const submit = async (script) => {
    await page.goto(address("/run"));
    await page.getByRole("button", { name: "Script" }).click();
    await page.getByLabel("Script", { exact: true }).fill(script);
    await page.getByRole("button", { name: "Run the job" }).click();
    await page.waitForURL("**/job/*");
    return decodeURIComponent(new URL(page.url()).pathname.split("/")[2]);
  };

  let id;
  await step("a job of a queue is submitted and followed", async () => {
    await page.goto(await server.link());
    await seen(page, "No jobs yet");
    id = await submit(SCRIPT);
    await rows(page).getByText("begun", { exact: true }).waitFor();
    await page.locator(".head .state", { hasText: "running" }).waitFor();
    assert.equal(await page.getByLabel("Attempt").count(), 0, "there is one attempt");
  });

  await step("a job that waits says why, and is cancelled", async () => {
    const waiting = await submit("echo never");
    await page.locator(".head .state", { hasText: "waiting" }).waitFor();
    await until(async () => /^The job waits\. \S.*\bslots?\b.*\.$/.test(await page.locator(".why").textContent()), true);
    await look(page, "queue-waiting");
    await page.getByRole("link", { name: "Details", exact: true }).click();
    await page.locator(".verdict", { hasText: "The job waits." }).waitFor();
    const actions = page.locator(".head .actions");
    assert.deepEqual(await actions.locator("> button").allTextContents(), ["Cancel"]);
    await actions.getByRole("button", { name: "Cancel" }).click();
    await seen(page, `Cancel ${waiting}?`);
    await page.getByRole("button", { name: "Cancel the job" }).click();
    await page.locator(".head .state", { hasText: "cancelled" }).waitFor();
    await until(() => page.locator(".why").textContent(), "");
  });

  await step("the list of a queue has workers and tenants", async () => {
    await page.goto(address("/"));
    await until(() => page.locator("tbody tr").count(), 2);
    const running = page.locator("tbody tr", { has: page.locator(".state.live") });
    assert.equal(await running.locator(".c-worker").textContent(), "first");
    assert.equal(await running.locator(".c-tenant").textContent(), "default");
    await look(page, "queue");
    await page.getByRole("link", { name: "Workers" }).click();
    await page.waitForURL("**/workers");
    await until(async () => /first.*ready.*1 of 1/.test(await page.locator(".workers-table tbody").textContent()), true);
    await until(() => page.locator(".fleet-tenants tbody").textContent(), "default10");
    await look(page, "workers");
  });

  await step("each attempt of a job has its log", async () => {
    await page.context().close();
    await server.end();
    await worker.end();
    worker = await tool.worker("second", ...options);
    server = await tool.web("127.0.0.1:0", "--queue", "local");
    page = await tab();
    await page.goto(await server.link());
    await page.goto(address(`/job/${id}`));
    const choice = page.getByLabel("Attempt");
    await until(() => choice.inputValue(), "2");
    await rows(page).getByText("begun", { exact: true }).waitFor();
    await seen(page, "The job writes its log");
    await choice.selectOption("1");
    await page.waitForURL((url) => url.searchParams.get("attempt") === "1");
    await seen(page, "Attempt 1 has ended");
    await rows(page).getByText("begun", { exact: true }).waitFor();
    await page.locator(".row.err .text", { hasText: "bad" }).waitFor();
    await look(page, "attempt");
    const downloaded = page.waitForEvent("download");
    await page.getByRole("link", { name: "Download" }).click();
    assert.match((await downloaded).url(), /attempt=1/);
    await choice.selectOption("2");
    await page.waitForURL((url) => url.search === "");
    const own = page;
    page = await tab({}, own.context());
    await submit("echo 'its turn'");
    await seen(page, "Its log begins when a worker takes the job.");
    const next = page;
    page = own;
    tool.run("exec", "--queue", "local", id, "--", "touch", "/go");
    await rows(page).getByText("over", { exact: true }).waitFor();
    await page.locator(".head .state", { hasText: "succeeded" }).waitFor();
    // The log of the job that has waited appears by itself.
    await rows(next).getByText("its turn", { exact: true }).waitFor();
    await next.close();
    await page.getByRole("link", { name: "Details", exact: true }).click();
    await seen(page, "2 attempts");
    const attempts = page.locator(".columns-5 li");
    await until(() => attempts.count(), 2);
    assert.match(await attempts.nth(0).textContent(), /^1first.*gave it back/);
    assert.match(await attempts.nth(1).textContent(), /^2second.*succeeded/);
    await look(page, "attempts");
    await page.getByRole("link", { name: "Log of attempt 1" }).click();
    await seen(page, "Attempt 1 has ended");
    await rows(page).getByText("begun", { exact: true }).waitFor();
    assert.equal(await rows(page).getByText("over", { exact: true }).count(), 0);
  });
  await page.context().close();
  await server.end();
  await worker.end();
}
