import type { VNode } from "preact";
import { bytes, plainLine } from "../format";
import { again, drop, dropDone, type Sending, uploads } from "./upload";

/** The uploads of a job, with what became of them. */
export function Uploads({ name }: { name: string }): VNode | null {
  const own = uploads.value.filter((upload) => upload.place.name === name);
  if (own.length === 0) return null;
  const isDone = own.some((upload) => upload.state.value === "done");
  return (
    <section class="uploads" aria-label="Uploads">
      <ul class="lines columns-4">
        {own.map((upload, index) => (
          <Line key={`${index} ${upload.path}`} upload={upload} />
        ))}
      </ul>
      {isDone && (
        <button type="button" onClick={dropDone}>
          Clear the list
        </button>
      )}
    </section>
  );
}

function Line({ upload }: { upload: Sending }): VNode {
  const state = upload.state.value;
  const sent = upload.sent.value;
  const { size } = upload;
  const count = upload.count === undefined ? "" : `, ${upload.count.value}`;
  const path = plainLine(upload.path);
  const words = {
    waits: "waits",
    sends: `${bytes(sent)} of ${bytes(size)}${count}`,
    retries: `the connection was cut at ${bytes(sent)}; trying again`,
    done: `uploaded, ${bytes(size)}${count}`,
    failed: `failed${count && ` after ${count.slice(2)}`}: ${upload.error.value}`,
  };
  return (
    <li>
      <code class="grow">{path}</code>
      <progress
        value={state === "done" ? 1 : size > 0 ? sent / size : 0}
        max={1}
        aria-label={`Upload of ${path}`}
      />
      <span class={state === "failed" ? "upload-state problem" : "upload-state"} role="status">
        {words[state]}
      </span>
      <span class="tools">
        {state === "failed" && (
          <button type="button" onClick={() => again(upload)}>
            Try again
          </button>
        )}
        <button
          type="button"
          aria-label={`${state === "done" ? "Forget" : "Cancel"} the upload of ${path}`}
          onClick={() => drop(upload)}
        >
          {state === "done" || state === "failed" ? "×" : "Cancel"}
        </button>
      </span>
    </li>
  );
}
