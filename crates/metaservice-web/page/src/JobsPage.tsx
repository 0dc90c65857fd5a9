import type { VNode } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Head } from "./App";
import { duration, many } from "./format";
import { filter, listing, now, shown, tone } from "./jobs";
import { go, jobPath } from "./route";
import { lost } from "./server";
import type { Job } from "./types";

export function JobsPage(): VNode {
  const search = useRef<HTMLInputElement>(null);
  const rows = useRef<HTMLTableSectionElement>(null);
  const { known, jobs, more } = listing.value;
  useEffect(() => {
    document.title = "Jobs · metaservice";
    const keys = (event: KeyboardEvent): void => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const typing = event.target instanceof HTMLInputElement;
      if (event.key === "/" && !typing) {
        event.preventDefault();
        search.current?.focus();
      } else if (event.key === "Escape" && typing) {
        filter.value = "";
      } else if (event.key === "ArrowDown" || (event.key === "j" && !typing)) {
        event.preventDefault();
        move(rows.current, 1);
      } else if (event.key === "ArrowUp" || (event.key === "k" && !typing)) {
        event.preventDefault();
        move(rows.current, -1);
      }
    };
    addEventListener("keydown", keys);
    return () => removeEventListener("keydown", keys);
  }, []);
  const live = jobs.filter((job) => !job.ended).length;
  return (
    <>
      <Head>
        <h1>Jobs</h1>
        <p class="summary">
          {known && `${live} running, ${jobs.length - live} ended`}
          {more > 0 && `, ${many(more, "older one")} not listed`}
        </p>
        <div class="field">
          <input
            ref={search}
            type="search"
            placeholder="Filter"
            aria-label="Filter jobs by name, state, command or image"
            aria-keyshortcuts="/"
            value={filter.value}
            onInput={(event) => {
              filter.value = event.currentTarget.value;
            }}
          />
          <kbd aria-hidden="true">/</kbd>
        </div>
      </Head>
      <main id="content" class={`jobs ${lost.value.count > 0 ? "stale" : ""}`}>
        <List rows={rows} />
      </main>
    </>
  );
}

function List(props: { rows: { current: HTMLTableSectionElement | null } }): VNode {
  const { known, jobs } = listing.value;
  if (!known) return <Empty title="Loading the jobs" busy />;
  if (jobs.length === 0) {
    return (
      <Empty title="No jobs yet">
        <p>Start one in a terminal. It appears here at once.</p>
        <pre>
          <code>metaservice run -d --name build -- make test</code>
        </pre>
      </Empty>
    );
  }
  if (shown.value.length === 0) {
    return (
      <Empty title={`No job matches “${filter.value.trim()}”`}>
        <button
          type="button"
          onClick={() => {
            filter.value = "";
          }}
        >
          Show all jobs
        </button>
      </Empty>
    );
  }
  return (
    <table>
      <thead>
        <tr>
          <th scope="col">State</th>
          <th scope="col">Name</th>
          <th scope="col">Command</th>
          <th scope="col">Image</th>
          <th scope="col" class="number">
            Started
          </th>
          <th scope="col" class="number">
            Took
          </th>
        </tr>
      </thead>
      <tbody ref={props.rows}>
        {shown.value.map((job) => (
          <Row key={`${job.name} ${job.startedMs}`} job={job} />
        ))}
      </tbody>
    </table>
  );
}

function Empty(props: { title: string; busy?: boolean; children?: VNode | VNode[] }): VNode {
  const [late, setLate] = useState(!props.busy);
  // What loads at once shows no intermediate state.
  useEffect(() => {
    const timer = setTimeout(() => setLate(true), 200);
    return () => clearTimeout(timer);
  }, []);
  return (
    <div class="empty" role="status" aria-busy={props.busy ?? false}>
      {late && <h2>{props.title}</h2>}
      {props.children}
    </div>
  );
}

export function StateWord(props: { job: Job }): VNode {
  const [look, word] = tone(props.job);
  return <span class={`state ${look}`}>{word}</span>;
}

function Row(props: { job: Job }): VNode {
  const { job } = props;
  const path = jobPath(job.name);
  const took = (job.endedMs ?? (job.ended ? 0 : now.value)) - job.startedMs;
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
      <th scope="row" class="c-name">
        <a
          href={path}
          onClick={(event) => {
            if (event.ctrlKey || event.metaKey || event.shiftKey) return;
            event.preventDefault();
            go(path);
          }}
        >
          {job.name}
        </a>
      </th>
      <td class="c-command" title={job.command}>
        <code>{job.command || "–"}</code>
      </td>
      <td class="c-image">{job.image ?? "–"}</td>
      <td class="c-age number">
        {job.startedMs > 0 ? `${duration(now.value - job.startedMs)} ago` : "–"}
      </td>
      <td class="c-took number">{job.startedMs > 0 && took >= 0 ? duration(took) : "–"}</td>
    </tr>
  );
}

/** Moves the focus to another job. */
function move(rows: HTMLTableSectionElement | null, by: number): void {
  const links = [...(rows?.querySelectorAll<HTMLAnchorElement>("th a") ?? [])];
  const at = links.findIndex((link) => link === document.activeElement);
  const next = at < 0 ? (by > 0 ? 0 : links.length - 1) : at + by;
  links[Math.max(0, Math.min(links.length - 1, next))]?.focus();
}
