// Jobs that are started, changed and removed by the page.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { look, rows, seen, step, until } from "../harness.mjs";

const SCRIPT = 'trap \'echo "got it"\' USR1; echo "$GREETING"; while :; do sleep 0.2; done';

/** The description that the command line of the page stands for. */
function described(tool, line) {
  const dry = line.replace(/^metaservice run -d/, 'exec "$METASERVICE" run --dry-run=json');
  return JSON.parse(execFileSync("sh", ["-c", dry], { env: tool.env, encoding: "utf8" }));
}

/** Without what is the same as the default. */
function bare({ name: _name, ...spec }) {
  const { accel: _accel, kaslr: _kaslr, snapshot: _snapshot, ...machine } = spec.machine;
  return { ...spec, machine };
}

export default async function (t) {
  const { page, tool } = t;
  const more = async (item) => {
    await page.getByRole("button", { name: "More" }).click();
    await page.getByRole("menuitem", { name: item }).click();
  };

  await step("a job is run by the form, which shows the same command line", async () => {
    await page.goto(`http://${t.server.address}/`);
    await page.getByRole("link", { name: "Run a job" }).waitFor();
    await page.keyboard.press("r");
    await page.waitForURL("**/run");
    await page.getByLabel("Program and arguments").fill("echo 'it''s' \"a b\" | cat");
    await seen(page, /No shell reads this/);
    await seen(page, `metaservice run -d -- echo its 'a b' '|' cat`);
    await page.getByLabel("Program and arguments").fill("echo 'open");
    await seen(page, "Close the single quote");
    await look(page, "run-wrong");
    await page.getByRole("button", { name: "Script" }).click();
    await page.getByLabel("Script", { exact: true }).fill(SCRIPT);
    await page.getByLabel("Name", { exact: true }).fill("formed");
    await page.getByLabel("Environment").fill("GREETING=hello, it's me\nEMPTY=");
    await page.getByLabel("Memory").fill("512M");
    await page.getByLabel("Timeout").fill("10m");
    await page.getByLabel("Keep the machine on failure, for", { exact: true }).check();
    await page.getByLabel("Rules that allow").fill("example.org:443\n*.example.com");
    const line = await page.locator(".form-result code").textContent();
    await look(page, "run");
    const [request] = await Promise.all([
      page.waitForRequest((asked) => asked.url().endsWith("/api/jobs") && asked.method() === "POST"),
      page.getByRole("button", { name: "Run the job" }).click(),
    ]);
    const { spec } = request.postDataJSON();
    assert.equal(spec.name, "formed");
    assert.deepEqual(bare(described(tool, line)), bare(spec), line);
    await page.waitForURL("**/job/formed");
    await rows(page).getByText("hello, it's me", { exact: true }).waitFor();
  });

  await step("a signal is sent to a job", async () => {
    await more("Send a signal…");
    await page.getByLabel("USR1").check();
    await look(page, "signal");
    await page.getByRole("button", { name: "Send USR1" }).click();
    await rows(page).getByText("got it", { exact: true }).first().waitFor();
  });

  await step("a machine is ended by force after one question", async () => {
    await more("End the machine by force…");
    await seen(page, "End the machine of formed by force?");
    await look(page, "force");
    await page.getByRole("button", { name: "End the machine", exact: true }).click();
    await page.getByRole("button", { name: "Run again" }).waitFor();
    await page.getByRole("link", { name: "Details", exact: true }).click();
    await seen(page, "The machine was ended by force.");
  });

  await step("a job is run again, with changes or without", async () => {
    await more("Run again with changes…");
    await page.waitForURL("**/run?from=formed");
    await until(() => page.getByLabel("Script", { exact: true }).inputValue(), SCRIPT);
    // The values are not kept.
    assert.equal(await page.getByLabel("Environment").inputValue(), "EMPTY=\nGREETING=");
    await seen(page, "Write them again: EMPTY, GREETING.");
    await page.getByLabel("Environment").fill("");
    assert.equal(await page.getByLabel("Memory").inputValue(), "512M");
    assert.equal(await page.getByLabel("Rules that allow").inputValue(), "example.org:443\n*.example.com");
    await page.getByLabel("Script", { exact: true }).fill("exit 5");
    await page.getByLabel("Keep the machine on failure, for", { exact: true }).uncheck();
    await page.getByLabel("Name", { exact: true }).fill("changed");
    await page.getByRole("button", { name: "Run the job" }).click();
    await page.waitForURL("**/job/changed");
    await page.locator(".head .state", { hasText: "failed (5)" }).waitFor();
    await page.getByRole("button", { name: "Run again" }).click();
    await page.waitForURL((url) => /^\/job\/(?!changed$)/.test(url.pathname));
    await page.locator(".head .state", { hasText: "failed (5)" }).waitFor();
  });

  await step("a job that cannot be started says why", async () => {
    await page.goto(`http://${t.server.address}/run`);
    await page.getByLabel("Program and arguments").fill("true");
    await page.getByLabel("Image", { exact: true }).fill("no-such-image");
    await page.getByRole("button", { name: "Run the job" }).click();
    await seen(page, /The job was not started: .*no-such-image/);
    await look(page, "run-failed");
  });

  await step("ended jobs are removed after one question", async () => {
    await page.goto(`http://${t.server.address}/job/changed`);
    await more("Remove…");
    await seen(page, "Remove changed?");
    await page.getByRole("button", { name: "Remove the job" }).click();
    await page.waitForURL(`http://${t.server.address}/`);
    await until(() => page.getByRole("link", { name: "changed", exact: true }).count(), 0);
    await page.getByRole("link", { name: "formed", exact: true }).waitFor();
  });
}
