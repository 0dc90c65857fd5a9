import type { VNode } from "preact";
import { bytes, duration, plainLine } from "../format";
import { now } from "../jobs";
import { go, jobPath } from "../route";
import { isQueue } from "../session";
import type { Job } from "../types";
import { Link } from "../ui/Link";
import { StateWord } from "../ui/StateWord";
import { title, took } from "./order";
import { Spark } from "./Spark";
import { usageOf } from "./usage";

export function JobRow({ job }: { job: Job }): VNode {
  const path = jobPath(job.name);
  const command = plainLine(job.command);
  const ran = took(job, now.value);
  const start = job.startedMs || job.queuedMs || 0;
  return (
    <tr
      class={job.ended ? "past" : ""}
      onClick={(event) => {
        const selects = (getSelection()?.toString().length ?? 0) > 0;
        if (event.target instanceof HTMLAnchorElement || selects) return;
        go(path);
      }}
    >
      <td class="c-state">
        <StateWord job={job} />
      </td>
      <th scope="row" class="c-name" title={job.label === undefined ? undefined : job.name}>
        <Link to={path}>{plainLine(title(job))}</Link>
      </th>
      <td class="c-command" title={command}>
        <code>{command || "–"}</code>
      </td>
      <Usages job={job} />
      <td class="c-image">{plainLine(job.image ?? "–")}</td>
      {isQueue() && (
        <>
          <td class="c-tenant">
            {plainLine(job.tenant ?? "–")}
            {job.priority !== undefined && job.priority !== "normal" && (
              <span class={`priority ${job.priority}`}> {job.priority}</span>
            )}
          </td>
          <td class="c-worker">
            {plainLine(job.worker ?? "–")}
            {job.attempt !== undefined && job.attempt > 1 && <span class="odd"> attempt {job.attempt}</span>}
          </td>
        </>
      )}
      <td class="c-age number">{start > 0 ? `${duration(now.value - start)} ago` : "–"}</td>
      <td class="c-took number">{ran === undefined ? "–" : duration(ran)}</td>
    </tr>
  );
}

function Usages({ job }: { job: Job }): VNode {
  const usage = usageOf(job);
  const cpu = usage?.cpu.at(-1);
  const memory = usage?.memory.at(-1);
  return (
    <>
      <td class="c-cpu">
        {usage && cpu !== undefined && (
          <Spark values={usage.cpu} most={100} text={`${Math.round(cpu)} %`} what="Processors" />
        )}
      </td>
      <td class="c-memory">
        {usage && memory !== undefined && (
          <Spark values={usage.memory} most={usage.memoryTotal} text={bytes(memory)} what="Memory" />
        )}
      </td>
    </>
  );
}
