import type { VNode } from "preact";
import { useMemo, useRef, useState } from "preact/hooks";
import { bytes, clock, count, dateTime, duration, many, plainLine } from "../format";
import type { JobSpec } from "../types";
import { Copy } from "../ui/Copy";
import { useKeys } from "../ui/keys";
import { Empty } from "../ui/States";
import {
  type Attempted,
  flagOf,
  grouped,
  type Network,
  type Policy,
  policyOf,
  reasonWords,
  type Row,
  single,
  useNetwork,
} from "./records";
import { Rules } from "./Rules";

const ROWS = 300;

interface Props {
  name: string;
  started: number | undefined;
  /** The description of a job that has ended. */
  spec: JobSpec | undefined;
}

export function NetworkTab({ name, started, spec }: Props): VNode {
  const network = useNetwork(name, started);
  return (
    <main id="content" class="network-page">
      {network === undefined ? (
        <Empty title="Reading the record of connections" busy />
      ) : network === "none" ? (
        <Without title="There is no record of connections" policy={policyOf(spec)}>
          The server does not have it for this job.
        </Without>
      ) : (
        <Found network={{ ...network, policy: network.policy ?? policyOf(spec) }} />
      )}
    </main>
  );
}

function Found({ network }: { network: Network }): VNode {
  const { live, policy, records } = network;
  if (records.length > 0 || (live && policy)) return <Known network={network} />;
  if (policy) {
    return (
      <Without title="No attempts are recorded" policy={policy}>
        The guest has not tried to reach anything but the service of the job.
      </Without>
    );
  }
  return (
    <Empty title={live ? "This job has no network policy" : "This job had no network policy"}>
      <p>
        Its guest {live ? "reaches" : "reached"} the service of the job and nothing else. Rules let it reach
        more:
      </p>
      <pre>
        <code>metaservice run --allow-net example.org:443 -- COMMAND</code>
      </pre>
    </Empty>
  );
}

/** The rules alone. */
function Without(props: { title: string; policy: Policy | null; children: string }): VNode {
  return (
    <>
      <Rules policy={props.policy} />
      <Empty title={props.title}>
        <p>{props.children}</p>
      </Empty>
    </>
  );
}

function Known({ network }: { network: Network }): VNode {
  const [denied, setDenied] = useState(false);
  const [isGrouped, setGrouped] = useState(false);
  const [words, setWords] = useState("");
  const [most, setMost] = useState(ROWS);
  const filter = useRef<HTMLInputElement>(null);
  useKeys((event) => {
    if (event.key !== "/") return;
    event.preventDefault();
    filter.current?.focus();
  });
  const { records } = network;
  const rows = useMemo(() => {
    const all = words.toLowerCase().split(/\s+/).filter(Boolean);
    const chosen = records.filter(
      (record) =>
        (!denied || record.verdict === "denied") && all.every((word) => textOf(record).includes(word)),
    );
    return isGrouped ? grouped(chosen) : single(chosen);
  }, [records, denied, isGrouped, words]);
  return (
    <>
      <div class="toolbar">
        <Totals network={network} />
        <div class="tools">
          <div class="field">
            <input
              ref={filter}
              type="search"
              placeholder="Filter"
              aria-label="Filter by name, address or port"
              aria-keyshortcuts="/"
              value={words}
              onInput={(event) => setWords(event.currentTarget.value)}
              onKeyDown={(event) => {
                if (event.key === "Escape") setWords("");
              }}
            />
            <kbd aria-hidden="true">/</kbd>
          </div>
          <button type="button" aria-pressed={denied} onClick={() => setDenied(!denied)}>
            Only denied
          </button>
          <button type="button" aria-pressed={isGrouped} onClick={() => setGrouped(!isGrouped)}>
            Group by name
          </button>
        </div>
      </div>
      <div class="scrolls attempts-box">
        <Rules policy={network.policy} />
        {rows.length === 0 ? (
          <Empty title={records.length === 0 ? "No attempts yet" : "No attempt matches"}>
            {records.length === 0 && <p>The guest has not tried to reach anything.</p>}
          </Empty>
        ) : (
          <Table rows={rows.slice(0, most)} isGrouped={isGrouped} />
        )}
        <p class="files-more">
          {rows.length > most && (
            <button type="button" onClick={() => setMost(most + ROWS)}>
              Show more of {count(rows.length)}
            </button>
          )}
          {network.more > 0 && <span>{many(network.more, "older attempt")} not listed</span>}
        </p>
      </div>
    </>
  );
}

function textOf({ name, address, port, protocol, reason }: Attempted): string {
  return `${name ?? ""} ${address ?? ""} ${port ?? ""} ${protocol} ${reason}`.toLowerCase();
}

function Totals({ network }: { network: Network }): VNode {
  const total = useMemo(() => {
    const made = { allowed: 0, denied: 0, sent: 0, received: 0 };
    for (const record of network.records) {
      made[record.verdict] += 1;
      made.sent += record.sent;
      made.received += record.received;
    }
    return made;
  }, [network.records]);
  return (
    <p class="stats-line">
      <span class="state good">{count(total.allowed)} allowed</span>
      <span class={total.denied > 0 ? "state bad" : "state calm"}>{count(total.denied)} denied</span>
      <span>{bytes(total.sent)} sent</span>
      <span>{bytes(total.received)} received</span>
      {!network.live && <span>the job has ended</span>}
    </p>
  );
}

function Table({ rows, isGrouped }: { rows: Row[]; isGrouped: boolean }): VNode {
  return (
    <table class="attempts">
      <thead>
        <tr>
          <th scope="col" class="a-time">
            {isGrouped ? "Last" : "Time"}
          </th>
          <th scope="col" class="a-verdict">
            Verdict
          </th>
          <th scope="col" class="a-target">
            Name or address
          </th>
          <th scope="col" class="a-port">
            Port
          </th>
          <th scope="col" class="a-bytes number">
            Sent
          </th>
          <th scope="col" class="a-bytes number">
            Received
          </th>
          <th scope="col" class="a-took number">
            {isGrouped ? "Times" : "Took"}
          </th>
          <th scope="col" class="a-why">
            Why
          </th>
        </tr>
      </thead>
      <tbody>
        {rows.map((row) => (
          <Line key={row.key} row={row} isGrouped={isGrouped} />
        ))}
      </tbody>
    </table>
  );
}

function Line({ row, isGrouped }: { row: Row; isGrouped: boolean }): VNode {
  const { last, times, sent, received } = row;
  const { name, address, port, protocol } = last;
  const flag = flagOf(last);
  return (
    <tr>
      <td class="a-time" title={dateTime(last.timeMs)}>
        {clock(last.timeMs).slice(0, 8)}
      </td>
      <td class="a-verdict">
        <span class={`state ${last.verdict === "allowed" ? "good" : "bad"}`}>{last.verdict}</span>
      </td>
      <th scope="row" class="a-target">
        {plainLine(name ?? address ?? "–")}
        {name !== undefined && address !== undefined && <span class="dim-text"> {address}</span>}
      </th>
      <td class="a-port">
        {port ?? ""} <span class="dim-text">{protocol}</span>
      </td>
      <td class="a-bytes number">{sent > 0 ? bytes(sent) : "–"}</td>
      <td class="a-bytes number">{received > 0 ? bytes(received) : "–"}</td>
      <td class="a-took number">{isGrouped ? count(times) : last.durationMs > 0 ? duration(last.durationMs, true) : "–"}</td>
      <td class="a-why">
        <span>{plainLine(reasonWords(last))}</span>
        {flag !== undefined && (
          <span class="flag">
            <code>{plainLine(flag)}</code>
            <Copy text={() => flag} what={`the flag that allows ${plainLine(name ?? address ?? "it")}`} />
          </span>
        )}
      </td>
    </tr>
  );
}
