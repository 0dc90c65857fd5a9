// The list of jobs.

import assert from "node:assert/strict";
import { look, seen, step, until } from "../harness.mjs";

const COLOURS = [
  "printf '\\033[1;32mok\\033[0m  12 tests\\n'",
  "printf '\\033[33mwarning\\033[0m: unused \\033[38;2;200;80;160mvariable\\033[0m\\n'",
  "printf '  0%%\\r 50%%\\r100%% done\\n'",
  "echo 'error: no such file' >&2",
  "printf '<img src=x onerror=alert(1)> \\033]0;title\\007\\033]8;;http://evil.example\\033\\\\link\\n'",
  "for n in $(seq 300); do printf 'word%s ' $n; done; echo",
].join("; ");

export default async function (t) {
  const { tool } = t;
  let { page } = t;
  await step("jobs appear when they start, and show how they end", async () => {
    tool.start(
      "build",
      `${COLOURS}; for n in $(seq 400); do echo "step $n"; done; while [ ! -e /tmp/go ]; do sleep 0.2; done; echo resumed; sleep 600`,
      "--allow-net",
      "allowed.example.com:80",
    );
    await page.getByRole("link", { name: "build", exact: true }).waitFor();
    tool.start("failing", "echo about to fail; exit 3");
    await seen(page, "failed (3)");
    await until(() => page.locator("tbody tr").first().locator("th").textContent(), "failing");
    await until(
      () =>
        page
          .locator("tr", { has: page.getByRole("link", { name: "build", exact: true }) })
          .locator(".state")
          .textContent(),
      "running",
    );
    await look(page, "jobs");
  });

  await step("the list is sorted, and chosen by state", async () => {
    const names = () => page.locator("tbody th").allTextContents();
    const first = async () => (await names())[0];
    await page.getByRole("columnheader", { name: "Name" }).getByRole("button").click();
    await until(first, "build");
    assert.equal(
      await page.getByRole("columnheader", { name: "Name" }).getAttribute("aria-sort"),
      "ascending",
    );
    await page.getByRole("columnheader", { name: "Name" }).getByRole("button").click();
    await until(first, "failing");
    const states = page.getByRole("group", { name: "Show jobs by state" });
    await states.getByRole("button", { name: "Running 1" }).click();
    await until(() => names().then(String), "build");
    await states.getByRole("button", { name: "Succeeded 0" }).click();
    await seen(page, "No job is in this state");
    await page.keyboard.press("Escape");
    await page.getByRole("columnheader", { name: "Started" }).getByRole("button").click();
    await until(first, "failing");
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
  t.page = page;
}
