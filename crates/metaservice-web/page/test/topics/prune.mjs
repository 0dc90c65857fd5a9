// The end of all jobs.

import { look, seen, step } from "../harness.mjs";

export default async function (t) {
  const { page } = t;
  await step("ended jobs are removed after one question: the old ones, or all", async () => {
    await page.goto(`http://${t.server.address}/`);
    await page.getByRole("button", { name: "More" }).click();
    await page.getByRole("menuitem", { name: "Remove ended jobs…" }).click();
    await seen(page, "Remove ended jobs?");
    await look(page, "prune");
    // All of them have ended today.
    await page.getByLabel("Ended more than a day ago").check();
    await page.getByRole("button", { name: "Remove them" }).click();
    await seen(page, "0 jobs were removed.");
    await page.getByRole("link", { name: "failing", exact: true }).waitFor();
    await page.getByRole("button", { name: "More" }).click();
    await page.getByRole("menuitem", { name: "Remove ended jobs…" }).click();
    await page.getByLabel("All ended jobs").check();
    await page.getByRole("button", { name: "Remove them" }).click();
    await seen(page, "No jobs yet");
  });

  await step("a session is ended", async () => {
    await page.getByRole("button", { name: "More" }).click();
    await page.getByRole("menuitem", { name: "Sign out" }).click();
    await seen(page, "Open the link from the terminal");
    await page.reload();
    await seen(page, "Open the link from the terminal");
  });
}
