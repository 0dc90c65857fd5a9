// What a machine uses, and what its guest connects to.

import assert from "node:assert/strict";
import { look, seen, step, until } from "../harness.mjs";

export default async function (t) {
  const { page, tool } = t;
  await step("the list has curves of running jobs", async () => {
    await page.goto(`http://${t.server.address}/`);
    const row = page.locator("tr", { has: page.getByRole("link", { name: "build", exact: true }) });
    await until(() => row.locator(".spark-text").count(), 2);
    assert.match(await row.locator(".c-cpu .spark-text").textContent(), /^\d+ %$/);
    assert.match(await row.locator(".c-memory .spark-text").textContent(), /iB$/);
  });

  await step("stats are drawn over the life of the job, and said in words", async () => {
    await page.goto(`http://${t.server.address}/job/build/stats`);
    await until(() => page.locator(".plot canvas").count(), 5);
    const summary = page.locator("figcaption p").first();
    assert.match(await summary.textContent(), /^Processors: now \d+ %, on average \d+ %, at most \d+ %\.$/);
    const before = await page.locator(".stats-line").first().textContent();
    // They are live.
    await until(async () => (await page.locator(".stats-line").first().textContent()) !== before, true);
    await page.locator(".plot").first().hover();
    await look(page, "stats");
    await page.emulateMedia({ colorScheme: "dark" });
    await look(page, "stats-dark");
    await page.emulateMedia({ colorScheme: "light" });
  });

  await step("connections are listed live, with the flag that would allow one", async () => {
    await page.goto(`http://${t.server.address}/job/build/network`);
    await seen(page, "Rules allow");
    const lookUp = (name) => `nslookup ${name} > /dev/null 2>&1; true`;
    tool.run("exec", "build", "sh", "-c", lookUp("denied.example.org"));
    await seen(page, "denied.example.org");
    tool.run("exec", "build", "sh", "-c", "nc -w 2 allowed.example.com 80 < /dev/null; true");
    await page.locator(".attempts th", { hasText: "allowed.example.com" }).first().waitFor();
    await page.getByRole("button", { name: "Only denied" }).click();
    await until(() => page.locator(".attempts tbody", { hasText: "allowed.example.com" }).count(), 0);
    const row = page.locator(".attempts tbody tr", { hasText: "denied.example.org" }).first();
    assert.match(await row.textContent(), /no rule allows it/);
    await row.getByRole("button", { name: /^Copy/ }).click();
    const flag = await page.evaluate(() => navigator.clipboard.readText());
    assert.match(flag, /^--allow-net denied\.example\.org/);
    // The tool knows the flag.
    tool.run("run", ...flag.split(" "), "--dry-run", "--", "true");
    await look(page, "network");
    await page.getByRole("button", { name: "Group" }).click();
    await look(page, "network-grouped");
  });
}
