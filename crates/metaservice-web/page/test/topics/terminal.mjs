// Shells in a running job.

import assert from "node:assert/strict";
import { look, seen, step, until } from "../harness.mjs";

const text = async (page, number = 0) => {
  const shown = await page.locator(".xterm-rows").nth(number).innerText();
  return shown.replaceAll("\u00a0", " ");
};

/** Types a command, and waits for what it writes. */
async function type(page, line, expected, number = 0) {
  await page.keyboard.type(`${line}\n`);
  await until(async () => expected.test(await text(page, number)), true);
}

export default async function (t) {
  const { page } = t;
  const address = `http://${t.server.address}/job/build/terminal`;

  await step("a terminal has a shell with its size, colours and unicode", async () => {
    await page.goto(address);
    await until(async () => /#/.test(await text(page)), true);
    await type(page, "tty; echo $((6 * 7))", /\/dev\/pts\/\d+\s+42/);
    const [columns, lines] = await page.evaluate(() => {
      const rows = document.querySelector(".xterm-rows");
      return [rows.clientWidth, rows.childElementCount];
    });
    assert.ok(columns > 400);
    await type(page, "stty size", new RegExp(`^${lines} \\d+`, "m"));
    await type(
      page,
      "printf '\\033[38;2;1;100;120mtrue\\033[0m \\033[38;5;208mindexed\\033[0m ä漢\\n'",
      /true indexed ä漢/,
    );
    const colors = await page
      .locator(".xterm-rows span", { hasText: /^true$/ })
      .last()
      .evaluate((span) => getComputedStyle(span).color);
    assert.equal(colors, "rgb(1, 100, 120)", "styles of the guest's colours are not blocked");
    await page.setViewportSize({ width: 1000, height: 600 });
    await until(
      () =>
        page
          .locator(".xterm-rows > div")
          .count()
          .then((count) => count < lines),
      true,
    );
    const fewer = await page.locator(".xterm-rows > div").count();
    await type(page, "clear; stty size", new RegExp(`^${fewer} \\d+`, "m"));
    await page.setViewportSize({ width: 1280, height: 800 });
  });

  await step("nothing that a guest writes to a terminal acts", async () => {
    const title = await page.title();
    await type(
      page,
      "clear; printf '\\033]0;evil\\007\\033]2;evil\\007\\033]52;c;ZXZpbA==\\007\\033]8;;http://evil.example\\033\\\\a link\\033]8;;\\033\\\\ http://evil.example/ <b>\\n'",
      /a link http:\/\/evil\.example\/ <b>/,
    );
    assert.equal(await page.title(), title);
    assert.equal(await page.locator(".shell a, .shell b, .shell img").count(), 0);
    const box = await page.locator(".xterm-rows span", { hasText: "a link" }).last().boundingBox();
    await page.mouse.click(box.x + 12, box.y + 5);
    assert.equal(page.context().pages().length, 1, "no page was opened");
  });

  await step("text is copied and pasted", async () => {
    await page.evaluate(() => navigator.clipboard.writeText("echo past''ed"));
    await page.getByRole("button", { name: "Paste", exact: true }).click();
    await until(async () => /echo past''ed/.test(await text(page)), true);
    await type(page, "", /^pasted/m);
    const word = await page
      .locator(".xterm-rows > div", { hasText: /^pasted/ })
      .first()
      .boundingBox();
    await page.mouse.dblclick(word.x + 12, word.y + 5);
    await page.keyboard.press("Control+Shift+C");
    await until(() => page.evaluate(() => navigator.clipboard.readText()), "pasted");
  });

  await step("a flood of output neither blocks nor grows the tab", async () => {
    const heap = () => page.evaluate(() => performance.memory?.usedJSHeapSize ?? 0);
    const before = await heap();
    await page.keyboard.type("yes | head -c 300000; echo the-end-of-it\n");
    await until(async () => /^y$/m.test(await text(page)), true);
    await until(async () => /^the-end-of-it/m.test(await text(page)), true, 120_000);
    const grown = (await heap()) - before;
    assert.ok(grown < 20_000_000, `the tab has grown by ${grown} bytes`);
    await type(page, "clear; echo still $((40 + 2))", /^still 42/m);
  });

  await step("several shells are side by side, and end alone", async () => {
    await page.getByRole("button", { name: "New shell" }).first().click();
    await page.getByRole("button", { name: "Side by side" }).click();
    await until(() => page.locator(".shell:visible").count(), 2);
    await until(async () => /#/.test(await text(page, 1)), true);
    await page.locator(".shell").nth(1).click();
    await type(page, "echo second", /^second/m, 1);
    await look(page, "terminals");
    await page.keyboard.type("exit 3\n");
    await seen(page, "It has ended with exit status 3.");
    await look(page, "terminal-ended");
    await page.locator(".shell").nth(0).click();
    await type(page, "echo first", /^first/m);
    await page.keyboard.press("Control+Shift+ArrowUp");
    await until(() => page.evaluate(() => document.activeElement.textContent), "Shell 1");
    await page.getByRole("button", { name: "Close Shell 2" }).click();
  });

  await step("a command has a terminal too, and shells outlive other views", async () => {
    await page.getByRole("button", { name: "Command…" }).click();
    await page.getByLabel("Program and arguments").fill("sh -c 'echo its own; sleep 1; exit 4'");
    await page.keyboard.press("Enter");
    await seen(page, "It has ended with exit status 4.");
    await page.getByRole("button", { name: "Close sh", exact: true }).click();
    await page.getByRole("link", { name: "Details", exact: true }).click();
    await seen(page, "The command runs.");
    await page.getByRole("link", { name: "Terminal", exact: true }).click();
    await until(async () => /first/.test(await text(page)), true);
  });

  await step("when the server is gone, the terminal says that its shell is too", async () => {
    const { address: at } = t.server;
    await t.server.end();
    await seen(page, "The connection was cut, and the shell has ended with it.");
    await look(page, "terminal-cut");
    t.server = await t.tool.web(at);
    await page.goto(await t.server.link());
    await page.getByRole("link", { name: "build", exact: true }).waitFor();
    await page.goto(address);
    await until(async () => /#/.test(await text(page)), true);
    await page.getByRole("button", { name: "Close Shell 1" }).click();
    await seen(page, "No shell is open");
  });
}
