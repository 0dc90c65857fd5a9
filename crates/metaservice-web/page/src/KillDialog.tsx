import type { VNode } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { post } from "./server";
import type { Job } from "./types";

/** Asks once, then kills the command of a job. */
export function KillDialog(props: { job: Job; close: () => void }): VNode {
  const { job, close } = props;
  const dialog = useRef<HTMLDialogElement>(null);
  const [state, setState] = useState<"asks" | "kills">("asks");
  const [error, setError] = useState("");
  useEffect(() => dialog.current?.showModal(), []);
  const kill = async (): Promise<void> => {
    setState("kills");
    setError("");
    try {
      await post(`/api/jobs/${encodeURIComponent(job.name)}/kill`, { startedMs: job.startedMs });
      close();
    } catch (reason) {
      setState("asks");
      setError(reason instanceof Error ? reason.message : String(reason));
    }
  };
  return (
    <dialog ref={dialog} onClose={close} aria-labelledby="kill-title">
      <h2 id="kill-title">Kill {job.name}?</h2>
      <p>Its command and all processes of the command end at once. What they wrote so far is kept.</p>
      <p class="problem" role="alert">
        {error}
      </p>
      <div class="choices">
        <button type="button" onClick={close}>
          Cancel
        </button>
        <button type="button" class="danger" disabled={state === "kills"} onClick={() => void kill()}>
          {state === "kills" ? "Killing" : "Kill the command"}
        </button>
      </div>
    </dialog>
  );
}
