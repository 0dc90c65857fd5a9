// How a browser gets in.

import assert from "node:assert/strict";
import { look, seen, step, tab } from "../harness.mjs";

export default async function (t) {
  const { tool } = t;
  let { page } = t;
  await step("without a session, the page says how to get one", async () => {
    page = await tab();
    await page.goto(`http://${t.server.address}/`);
    await seen(page, "Open the link from the terminal");
    await look(page, "no-session");
    await page.goto(`http://${t.server.address}/#token=${"0".repeat(64)}`);
    await seen(page, "This link was used already");
    await page.reload();
    await seen(page, "Open the link from the terminal");
  });

  const link = await t.server.link();
  await step("a link lets a browser in, once", async () => {
    await page.goto(link);
    await seen(page, "No jobs yet");
    assert.equal(page.url(), `http://${t.server.address}/`, "the token is out of the address");
    await look(page, "empty");
    const other = await tab();
    await other.goto(link);
    await seen(other, "This link was used already");
    await look(other, "used-link");
    await other.goto(await t.server.link());
    await seen(other, "No jobs yet");
    await other.context().close();
  });
  t.page = page;
}
