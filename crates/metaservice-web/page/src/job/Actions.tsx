import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { go, jobPath } from "../route";
import { jobApi, post, reason, Refused } from "../server";
import { isQueue, may, session } from "../session";
import type { Job } from "../types";
import { say } from "../ui/Flash";
import { type Item, Menu } from "../ui/Menu";
import { ForceDialog, KillDialog, RemoveDialog, SignalDialog, StopDialog } from "./dialogs";

type Asked = "stop" | "kill" | "force" | "signal" | "remove";

const STOPS = "Asks the command to end, with signal TERM, and gives it time";
const KILLS = "Ends all processes of the command within seconds";

/** What can be done with a job, as far as the role of the user allows it. */
export function Actions({ job }: { job: Job }): VNode {
  const [asked, setAsked] = useState<Asked>();
  const [busy, setBusy] = useState(false);
  const { can } = session.value;
  const waits = job.state === "waiting" && isQueue();
  const runs = !job.ended && job.state !== "silent";
  const close = (): void => setAsked(undefined);
  const again = async (): Promise<void> => {
    setBusy(true);
    try {
      const response = await post(`${jobApi(job.name)}/retry`, { startedMs: job.startedMs });
      const { name } = (await response.json()) as { name: string };
      go(jobPath(name));
      say(`The job was started again as ${name}.`);
    } catch (error) {
      const isRefused = error instanceof Refused && error.code === "Refused";
      const help = isRefused ? " Use “Run again with changes”." : "";
      say(`The job was not started again: ${reason(error)}.${help}`, true);
    }
    setBusy(false);
  };
  const items: Item[] = [];
  const hasCommand = runs && !waits && job.state !== "kept" && may("operate");
  if (hasCommand) {
    items.push({ text: "Send a signal…", act: () => setAsked("signal") });
  }
  if (can.run && may("operate")) {
    items.push({
      text: "Run again with changes…",
      act: () => go(`/run?from=${encodeURIComponent(job.name)}`),
    });
  }
  if (!job.ended && !waits && may("admin")) {
    items.push({ text: "End the machine by force…", act: () => setAsked("force"), danger: true });
  }
  if (job.ended && can.remove && may("admin")) {
    items.push({ text: "Remove…", act: () => setAsked("remove"), danger: true });
  }
  const target = { name: job.name, startedMs: job.startedMs, close };
  return (
    <div class="actions">
      {job.ended && can.run && may("operate") && (
        <button type="button" disabled={busy} onClick={() => void again()}>
          {busy ? "Starting" : "Run again"}
        </button>
      )}
      {hasCommand && (
        <button type="button" title={STOPS} onClick={() => setAsked("stop")}>
          Stop
        </button>
      )}
      {runs && may("operate") && (
        <button
          type="button"
          class="danger"
          title={hasCommand ? KILLS : undefined}
          onClick={() => setAsked("kill")}
        >
          {waits ? "Cancel" : job.state === "kept" ? "End" : "Kill"}
        </button>
      )}
      {items.length > 0 && <Menu label="More" items={items} />}
      {asked === "stop" && <StopDialog {...target} />}
      {asked === "kill" && <KillDialog {...target} waits={waits} kept={job.state === "kept"} />}
      {asked === "force" && <ForceDialog {...target} />}
      {asked === "signal" && <SignalDialog {...target} />}
      {asked === "remove" && <RemoveDialog {...target} />}
    </div>
  );
}
