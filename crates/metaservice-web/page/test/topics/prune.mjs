// The end of all jobs.

import { look, seen, step } from "../harness.mjs";

export default async function (t) {
  const { page } = t;
  await step("all ended jobs are removed after one question", async () => {
    await page.goto(`http://${t.server.address}/`);
    await page.getByRole("button", { name: "More" }).click();
    await page.getByRole("menuitem", { name: "Remove all ended jobs…" }).click();
    await seen(page, "Remove all ended jobs?");
    await look(page, "prune");
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
