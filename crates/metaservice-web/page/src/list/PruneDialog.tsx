import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { many } from "../format";
import { listing, now } from "../jobs";
import { post } from "../server";
import { Ask } from "../ui/Dialog";
import { say } from "../ui/Flash";

const DAY_MS = 86_400_000;

/** Which jobs are removed. */
const CHOICES: { text: string; olderThanMs?: number }[] = [
  { text: "All ended jobs" },
  { text: "Ended more than a day ago", olderThanMs: DAY_MS },
  { text: "Ended more than a week ago", olderThanMs: 7 * DAY_MS },
];

/** How many of the listed jobs ended so long ago. */
function endedBefore(olderThanMs = 0): number {
  const latest = now.value - olderThanMs;
  return listing.value.jobs.filter((job) => job.ended && (!olderThanMs || (job.endedMs ?? 0) <= latest)).length;
}

/** Removes jobs that have ended. */
export function PruneDialog(props: { close: () => void }): VNode {
  const [chosen, setChosen] = useState(0);
  const { olderThanMs } = CHOICES[chosen] ?? {};
  return (
    <Ask
      title="Remove ended jobs?"
      verb="Remove them"
      busy="Removing"
      close={props.close}
      act={async () => {
        const response = await post("/api/prune", olderThanMs === undefined ? {} : { olderThanMs });
        const { removed } = (await response.json()) as { removed: number };
        say(`${many(removed, "job was", "jobs were")} removed.`);
      }}
    >
      <fieldset class="radios wide">
        <legend class="vh">Which jobs</legend>
        {CHOICES.map(({ text, olderThanMs }, index) => (
          <label key={text}>
            <input type="radio" name="prune" checked={index === chosen} onChange={() => setChosen(index)} />
            <b>{text}</b>
            <span class="number">{many(endedBefore(olderThanMs), "job")}</span>
          </label>
        ))}
      </fieldset>
      <p>
        Their logs and results are deleted. Jobs that run are not touched. Fetched artifacts stay where they
        are.
      </p>
    </Ask>
  );
}
