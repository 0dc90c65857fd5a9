// Users with roles.

import assert from "node:assert/strict";
import { join } from "node:path";
import { look, seen, step, tab } from "../harness.mjs";

export default async function (t) {
  const { tool } = t;
  await step("a user signs in by a token, and sees what the role allows", async () => {
    const file = join(tool.directory, "users");
    const token = tool.run("web", "--auth", file, "--add-user", "ada:watch").toString().trim();
    const server = await tool.web("127.0.0.1:0", "--auth", file);
    const page = await tab();
    await page.goto(`http://${server.address}/`);
    await page.getByLabel("Your token").fill("wrong");
    await page.keyboard.press("Enter");
    await seen(page, "This token is wrong");
    await look(page, "sign-in");
    await page.getByLabel("Your token").fill(token);
    await page.keyboard.press("Enter");
    await seen(page, "ada (watch)");
    assert.equal(await page.getByRole("link", { name: "Run a job" }).count(), 0);
    await page.getByRole("link", { name: "build", exact: true }).click();
    await page.locator(".foot .open").waitFor();
    assert.equal(await page.getByRole("button", { name: "Kill" }).count(), 0);
    for (const [view, words] of [
      ["Terminal", "You cannot open a terminal"],
      ["Files", "You cannot look at files"],
    ]) {
      await page.getByRole("link", { name: view, exact: true }).click();
      await seen(page, words);
    }
    await page.getByRole("link", { name: "All jobs" }).click();
    await page.getByRole("button", { name: "More" }).click();
    await page.getByRole("menuitem", { name: "Sign out" }).click();
    await page.getByLabel("Your token").waitFor();
    await page.context().close();
    await server.end();
  });
}
