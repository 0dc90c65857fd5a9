// Why a job failed.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { look, rows, seen, step } from "../harness.mjs";

export default async function (t) {
  const { page, tool } = t;
  await step("the details say why a job failed, and can be copied", async () => {
    await page.goto(`http://${t.server.address}/job/failing/details`);
    await seen(page, "The command has failed: exit status 3.");
    await seen(page, "sh -c 'echo about to fail; exit 3'");
    await page.getByRole("button", { name: /^Copy all/ }).click();
    await seen(page, "Copied");
    const copied = await page.evaluate(() => navigator.clipboard.readText());
    assert.match(copied, /^failing: The command has failed: exit status 3\./);
    assert.match(copied, /Exit status: 3/);
    assert.doesNotMatch(copied, /Contact/, "it has none any more");
    await look(page, "details");
    await page.getByRole("link", { name: "Log", exact: true }).last().click();
    await rows(page).getByText("about to fail").waitFor();
  });

  await step("the files view of an ended job has its artifacts", async () => {
    tool.start("left", "echo kept > /file", "--artifact", `/file:${join(tool.directory, "kept")}`);
    tool.run("wait", "left");
    await page.goto(`http://${t.server.address}/job/left/files`);
    await seen(page, "The job does not run");
    const [file] = await Promise.all([
      page.waitForEvent("download"),
      page.getByRole("link", { name: "Download /file", exact: true }).click(),
    ]);
    assert.equal(readFileSync(await file.path(), "utf8"), "kept\n");
    await look(page, "files-ended");
  });

  await step("each view has an address, a key, and a way back", async () => {
    await page.goto(`http://${t.server.address}/job/build/network`);
    await seen(page, "Rules allow");
    await page.keyboard.press("6");
    await page.waitForURL("**/job/build/details");
    await seen(page, "The command runs.");
    await page.goBack();
    await page.waitForURL("**/job/build/network");
    await page.keyboard.press("?");
    await seen(page, "leave the terminal");
    await look(page, "keys");
    await page.keyboard.press("Escape");
    await page.keyboard.press("u");
    await page.waitForURL(`http://${t.server.address}/`);
    await page.goto(`http://${t.server.address}/job/none/stats`);
    await seen(page, "There is no job named none");
  });
}
