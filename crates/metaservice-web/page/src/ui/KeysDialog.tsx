import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { Dialog } from "./Dialog";
import { useKeys } from "./keys";

const KEYS: [string, [string, string][]][] = [
  [
    "Everywhere",
    [
      ["?", "show the keys"],
      ["/", "search or filter"],
      ["r", "run a job"],
      ["w", "show the workers of a queue"],
    ],
  ],
  [
    "List",
    [
      ["↑ ↓ k j", "select a job"],
      ["Enter", "show the job"],
      ["Escape", "show all jobs"],
    ],
  ],
  [
    "Job",
    [
      ["1 … 6", "log, terminal, files, stats, network, details"],
      ["u", "back to the list"],
    ],
  ],
  [
    "Log",
    [
      ["n N", "next match, previous match"],
      ["Home End g G", "first line, last line"],
      ["↑ ↓ k j", "scroll by a line"],
      ["Page Up, Page Down, Space", "scroll by a page"],
      ["f t", "follow; show times"],
      ["z", "wrap long lines"],
    ],
  ],
  [
    "Terminal",
    [
      ["Ctrl-Shift-C, Ctrl-Shift-V", "copy, paste"],
      ["Ctrl-Shift-↑", "leave the terminal"],
    ],
  ],
  [
    "Files",
    [
      ["↑ ↓ k j", "select an entry"],
      ["Enter", "open it"],
      ["Backspace", "the directory above"],
    ],
  ],
];

/** The keys of the page, which `?` shows. */
export function KeysDialog(): VNode | null {
  const [open, setOpen] = useState(false);
  useKeys((event) => {
    if (event.key !== "?") return;
    event.preventDefault();
    setOpen(true);
  });
  if (!open) return null;
  return (
    <Dialog title="Keys" class="keys" close={() => setOpen(false)}>
      <div class="columns">
        {KEYS.map(([place, keys]) => (
          <section key={place}>
            <h3>{place}</h3>
            <dl>
              {keys.map(([key, effect]) => (
                <div key={key}>
                  <dt>
                    <kbd>{key}</kbd>
                  </dt>
                  <dd>{effect}</dd>
                </div>
              ))}
            </dl>
          </section>
        ))}
      </div>
      <div class="choices">
        <button type="button" onClick={() => setOpen(false)}>
          Close
        </button>
      </div>
    </Dialog>
  );
}
