// Files of a running job.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { look, seen, step, until } from "../harness.mjs";

const PNG =
  "iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4//8/w38GIAXDIBKE0DHxgljNBAAO9TXL0Y4OHwAAAABJRU5ErkJggg==";
/** Names that are markup, escapes, or more than they seem. */
const HOSTILE = "<img src=x onerror=alert(1)>";
const SCRIPT = [
  "mkdir -p /tmp/d/sub && cd /tmp/d",
  `echo text > '${HOSTILE}'`,
  "echo escaped > \"$(printf 'a\\033[31mb\\033]0;t\\007')\"",
  "echo turned > \"$(printf 'x\\342\\200\\256gnp.exe')\"",
  "echo '# a?b&c=d%2e' > 'a?b&c=d%2e #1'",
  "printf '<b>bold</b>\\n\\033[31mred\\n' > page.html",
  "head -c 100000 /dev/zero > zeros",
  "ln -s sub link && ln -s /nowhere broken",
  "mkfifo pipe",
  "echo inside > sub/inside",
].join("; ");

export default async function (t) {
  const { page, tool } = t;
  const address = `http://${t.server.address}/job/build/files?path=/tmp/d`;
  const entry = (name) => page.locator(".files th[scope=row]", { hasText: name });

  await step("the files of a guest are listed; their names are text", async () => {
    tool.run("exec", "build", "sh", "-c", SCRIPT);
    await page.goto(address);
    await entry(HOSTILE).waitFor();
    assert.equal(await page.locator("main img").count(), 0);
    await entry("a\ufffd[31mb\ufffd]0;t\ufffd").waitFor();
    await entry("x\ufffdgnp.exe").waitFor();
    assert.equal(
      await page.locator(".files tbody tr").first().locator("th a").textContent(),
      "sub",
      "directories are first",
    );
    assert.equal(await entry("pipe").locator("a").count(), 0);
    await look(page, "files");
    await page.getByRole("link", { name: "link", exact: true }).click();
    await page.waitForURL((url) => url.searchParams.get("path") === "/tmp/d/link");
    await entry("inside").waitFor();
    await page
      .getByRole("navigation", { name: "Directories" })
      .getByRole("link", { name: "d", exact: true })
      .click();
    await entry("zeros").waitFor();
  });

  await step("text and pictures are looked at, and nothing of them acts", async () => {
    await page.getByRole("link", { name: "page.html" }).click();
    await until(() => page.locator(".preview-text").textContent(), "<b>bold</b>\n\ufffd[31mred\n");
    await look(page, "file");
    await page.getByRole("link", { name: "a?b&c=d%2e #1" }).click();
    await until(() => page.locator(".preview-text").textContent(), "# a?b&c=d%2e\n");
    await page.getByRole("link", { name: "zeros" }).click();
    await seen(page, "This is not text");
    await page.getByRole("link", { name: "broken" }).click();
    await seen(page, "The file cannot be read");
    await page.getByRole("link", { name: "Close the file" }).click();
    const picture = { name: "picture.png", mimeType: "image/png", buffer: Buffer.from(PNG, "base64") };
    await page.getByLabel("Upload files").setInputFiles(picture);
    await page.getByRole("link", { name: "picture.png" }).click();
    await until(() => page.locator(".preview-picture img").evaluate((image) => image.naturalWidth), 5);
  });

  await step("files and directories are downloaded", async () => {
    await page.goto(`${address}&file=zeros`);
    const [file] = await Promise.all([
      page.waitForEvent("download"),
      page.getByRole("link", { name: "Download", exact: true }).click(),
    ]);
    assert.equal(file.suggestedFilename(), "zeros");
    assert.equal(readFileSync(await file.path()).length, 100_000);
    const [tar] = await Promise.all([
      page.waitForEvent("download"),
      page.getByRole("link", { name: "Download as tar" }).click(),
    ]);
    assert.match(tar.suggestedFilename(), /\.tar$/);
    assert.ok(readFileSync(await tar.path()).includes("sub/inside"));
  });

  await step("an upload shows its progress, and continues after a cut connection", async () => {
    const buffer = randomBytes(3 * 1024 * 1024 + 17);
    let cuts = 2;
    await page.route("**/api/uploads/*?offset=*", async (route) => {
      // The answer is lost, or the request is.
      if (new URL(route.request().url()).searchParams.get("offset") === "0" || cuts === 0)
        return route.continue();
      cuts -= 1;
      if (cuts === 0) await route.fetch();
      return route.abort("connectionfailed");
    });
    await page.goto(address);
    await entry("zeros").waitFor();
    await page.getByLabel("Upload files").setInputFiles({ name: "sent.bin", mimeType: "", buffer });
    await seen(page, /the connection was cut at 1.0 MiB/);
    await look(page, "upload");
    await seen(page, "uploaded, 3.0 MiB");
    await page.unroute("**/api/uploads/*?offset=*");
    const sum = tool.run("exec", "build", "sha256sum", "/tmp/d/sent.bin").toString().split(" ")[0];
    assert.equal(sum, createHash("sha256").update(buffer).digest("hex"));
    await entry("sent.bin").waitFor();
  });

  await step("files are uploaded by drop, and replaced after one question", async () => {
    const drop = (name, text) =>
      page.locator("main").evaluate(
        (main, [name, text]) => {
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([text], name));
          for (const type of ["dragover", "drop"]) {
            main.dispatchEvent(new DragEvent(type, { dataTransfer, bubbles: true, cancelable: true }));
          }
        },
        [name, text],
      );
    await drop("dropped", "one");
    await entry("dropped").waitFor();
    await drop("dropped", "two and more");
    await seen(page, "Replace files?");
    await page.getByRole("button", { name: "Replace", exact: true }).click();
    await until(() => tool.run("exec", "build", "cat", "/tmp/d/dropped").toString(), "two and more");
  });

  await step("directories are uploaded by a button and by drop, with what is in them", async () => {
    const from = join(tool.directory, "tree");
    const long = "long".repeat(40);
    mkdirSync(join(from, "a b", "deep", long), { recursive: true });
    mkdirSync(join(from, "none"));
    for (let n = 0; n < 30; n += 1) writeFileSync(join(from, `file ${n}`), "x".repeat(n));
    writeFileSync(join(from, "a b", "deep", long, "ä"), "deep inside");
    writeFileSync(join(from, "big"), randomBytes(1 << 20));
    const sums = "find . -type f -exec sha256sum {} +";
    const sorted = (text) => text.toString().trim().split("\n").sort();
    await page.getByLabel("Upload directory").setInputFiles(from);
    await seen(page, /uploaded, 1.0 MiB, 32 files/);
    await look(page, "upload-directory");
    const inGuest = tool.run("exec", "build", "sh", "-c", `cd /tmp/d/tree && ${sums}`);
    assert.deepEqual(sorted(inGuest), sorted(execFileSync("sh", ["-c", sums], { cwd: from })));
    await entry("tree").waitFor();
    await page.getByRole("button", { name: "Clear the list" }).click();

    writeFileSync(join(from, "file 1"), "changed");
    const session = await page.context().newCDPSession(page);
    const data = { items: [], files: [from], dragOperationsMask: 1 };
    for (const type of ["dragEnter", "dragOver", "drop"]) {
      await session.send("Input.dispatchDragEvent", { type, x: 400, y: 300, data });
    }
    await session.detach();
    await seen(page, "Replace files?");
    await page.getByRole("button", { name: "Replace", exact: true }).click();
    await seen(page, /uploaded, 1.0 MiB, 32 files/);
    assert.equal(tool.run("exec", "build", "cat", "/tmp/d/tree/file 1").toString(), "changed");
    await page.getByRole("button", { name: "Clear the list" }).click();
  });

  await step("the upload of a directory says what has failed, goes on, and is cancelled", async () => {
    const from = join(tool.directory, "parts");
    mkdirSync(join(from, "sub"), { recursive: true });
    for (const name of ["1", "2", "sub/3"]) writeFileSync(join(from, name), name);
    // A file is in the way of a directory.
    tool.run("exec", "build", "sh", "-c", "mkdir /tmp/d/parts && echo file > /tmp/d/parts/sub");
    await page.getByRole("button", { name: "Reload" }).click();
    await entry("parts").waitFor();
    await page.getByLabel("Upload directory").setInputFiles(from);
    await page.getByRole("button", { name: "Replace", exact: true }).click();
    await seen(page, /failed after \d of 3 files: parts\/sub\/3: /);
    tool.run("exec", "build", "rm", "/tmp/d/parts/sub");
    await page.getByRole("button", { name: "Try again" }).click();
    await seen(page, /uploaded, 7 B, 3 files/);
    assert.equal(tool.run("exec", "build", "cat", "/tmp/d/parts/sub/3").toString(), "sub/3");
    await page.getByRole("button", { name: "Clear the list" }).click();
    await page.route("**/api/uploads/*?offset=*", (route) => route.abort("connectionfailed"));
    await page.getByLabel("Upload directory").setInputFiles(from);
    await page.getByRole("button", { name: "Replace", exact: true }).click();
    await page.getByRole("button", { name: "Cancel the upload of /tmp/d/parts/" }).click();
    await until(() => page.getByText("/tmp/d/parts/").count(), 0);
    await page.unroute("**/api/uploads/*?offset=*");
    const many = join(tool.directory, "many");
    mkdirSync(many);
    for (let n = 0; n <= 2000; n += 1) writeFileSync(join(many, String(n)), "");
    await page.getByLabel("Upload directory").setInputFiles(many);
    await seen(page, "The directory has more than 2,000 files.");
  });

  await step("an upload is cancelled", async () => {
    await page.route("**/api/uploads/*?offset=*", (route) => route.abort("connectionfailed"));
    await page
      .getByLabel("Upload files")
      .setInputFiles({ name: "not.bin", mimeType: "", buffer: Buffer.alloc(10) });
    await page.getByRole("button", { name: "Cancel the upload of /tmp/d/not.bin" }).click();
    await until(() => page.getByText("/tmp/d/not.bin").count(), 0);
    await page.unroute("**/api/uploads/*?offset=*");
  });
}
