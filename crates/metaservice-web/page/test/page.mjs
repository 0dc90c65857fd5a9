// What a user does with the page, in a real browser, with jobs in real machines. It prints each
// step, and writes pictures. With arguments, only these topics are run after the first ones.

import { chromium, shots } from "./harness.mjs";
import { Tool } from "./tool.mjs";

const TOPICS = [
  "access",
  "list",
  "details",
  "terminal",
  "files",
  "stats",
  "users",
  "log",
  "kill",
  "run",
  "long",
  "sizes",
  "prune",
  "queue",
];
const NEEDED = ["access", "list"];

const chosen = process.argv.slice(2);
const tool = new Tool();
try {
  const t = { tool, server: await tool.web(), page: undefined };
  for (const topic of TOPICS) {
    if (chosen.length > 0 && !chosen.includes(topic) && !NEEDED.includes(topic)) continue;
    const { default: run } = await import(`./topics/${topic}.mjs`);
    await run(t);
  }
  await t.server.end();
  console.log(`pictures are in ${shots}`);
} finally {
  await chromium.close();
  await tool.end();
}
