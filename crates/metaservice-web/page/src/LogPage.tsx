import type { VNode } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { Head } from "./App";
import { bytes, count, duration, many } from "./format";
import { find, listing, now } from "./jobs";
import { StateWord } from "./JobsPage";
import { KillDialog } from "./KillDialog";
import { LogView, type Match } from "./LogView";
import { Search } from "./Search";
import { Feed, get, lost, Refused } from "./server";
import type { Job, LogLength } from "./types";

type Opened =
  | { state: "loading" }
  | { state: "open"; started: number; length: LogLength }
  | { state: "none"; code: string; message: string };

/** Opens the log of a job, and follows its length. A later job of this name is opened again. */
function useLog(path: string): [Opened, () => void] {
  const [opened, setOpened] = useState<Opened>({ state: "loading" });
  const [round, setRound] = useState(0);
  useEffect(() => {
    let feed: Feed<LogLength> | undefined;
    let isOver = false;
    const fail = (error: unknown): void => {
      if (isOver) return;
      const code = error instanceof Refused ? error.code : "Failed";
      const message = error instanceof Error ? error.message : String(error);
      setOpened({ state: "none", code, message });
    };
    const open = async (): Promise<void> => {
      const { startedMs: started } = await get<{ startedMs: number }>(path);
      if (isOver) return;
      const received = (length: LogLength): void => setOpened({ state: "open", started, length });
      const retry = async (): Promise<boolean> => {
        const again = await get<{ startedMs: number }>(path);
        if (again.startedMs === started) return true;
        setRound((round) => round + 1);
        return false;
      };
      feed = new Feed(`${path}/length?started=${started}`, received, retry);
    };
    open().catch(fail);
    return () => {
      isOver = true;
      feed?.close();
    };
  }, [path, round]);
  return [opened, () => setRound((round) => round + 1)];
}

export function LogPage(props: { name: string }): VNode {
  const { name } = props;
  const path = `/api/jobs/${encodeURIComponent(name)}/log`;
  const [opened, again] = useLog(path);
  const [follow, setFollow] = useState(location.hash === "");
  const [times, setTimes] = useState(false);
  const [asksKill, setAsksKill] = useState(false);
  const [pattern, setPattern] = useState<string>();
  const [current, setCurrent] = useState<Match>();
  const view = useRef<LogView>(null);
  const job = find(name);
  useEffect(() => {
    document.title = `${name} · metaservice`;
  }, [name]);
  // A new job of this name has replaced the one whose log is open.
  const newer = useRef(0);
  useEffect(() => {
    if (opened.state !== "open" || !job || job.startedMs <= opened.started) return;
    if (newer.current === job.startedMs) return;
    newer.current = job.startedMs;
    again();
  });
  const length = opened.state === "open" ? opened.length : undefined;
  return (
    <div class={`job-page ${lost.value.count > 0 ? "stale" : ""}`}>
      <Head>
        <h1 title={name}>{name}</h1>
        {job && <StateWord job={job} />}
        <p class="summary" title={job?.command}>
          <code>{job?.command}</code>
        </p>
        <div class="tools">
          {opened.state === "open" && (
            <Search
              path={path}
              started={opened.started}
              length={opened.length}
              top={() => view.current?.top ?? 0}
              show={setCurrent}
              setPattern={setPattern}
            />
          )}
          <button type="button" aria-pressed={follow} onClick={() => setFollow(!follow)}>
            Follow
          </button>
          <button type="button" aria-pressed={times} onClick={() => setTimes(!times)}>
            Times
          </button>
          <a class="button" href={`${path}/download`} download>
            Download
          </a>
          {job && !job.ended && job.state !== "silent" && (
            <button type="button" class="danger" onClick={() => setAsksKill(true)}>
              Kill
            </button>
          )}
        </div>
      </Head>
      <main id="content">
        <Body opened={opened} again={again} name={name}>
          {opened.state === "open" && (
            <LogView
              key={opened.started}
              ref={view}
              name={name}
              path={path}
              started={opened.started}
              length={opened.length}
              times={times}
              follow={follow}
              pattern={pattern}
              current={current}
              setFollow={setFollow}
              failed={(error) => {
                if (error instanceof Refused && error.code === "Gone") again();
              }}
            />
          )}
        </Body>
      </main>
      {length && <Foot length={length} job={job} />}
      {asksKill && job && <KillDialog job={job} close={() => setAsksKill(false)} />}
    </div>
  );
}

function Body(props: {
  opened: Opened;
  again: () => void;
  name: string;
  children: VNode | false;
}): VNode {
  const { opened, again, name } = props;
  if (opened.state === "loading") {
    return (
      <div class="empty" role="status" aria-busy="true">
        <h2>Opening the log</h2>
      </div>
    );
  }
  if (opened.state === "none") {
    const titles: Record<string, string> = {
      NotFound: `There is no job named ${name}`,
      NoLog: "No log of this job is kept",
    };
    return (
      <div class="empty" role="alert">
        <h2>{titles[opened.code] ?? "The log cannot be read"}</h2>
        <p>
          {opened.code === "NotFound"
            ? "It was removed, or it never ran on this host."
            : `The server says: ${opened.message}.`}
        </p>
        <button type="button" onClick={again}>
          Try again
        </button>
      </div>
    );
  }
  const { length } = opened;
  if (length.lines === 0) {
    return (
      <div class="empty" role="status">
        {length.state === "open" ? (
          <>
            <h2>Nothing yet</h2>
            <p>The command has written nothing. Its first line appears here.</p>
          </>
        ) : (
          <>
            <h2>The log is empty</h2>
            <p>The command has written nothing.</p>
          </>
        )}
      </div>
    );
  }
  return <>{props.children}</>;
}

/** What is known of the log as a whole. */
function Foot(props: { length: LogLength; job: Job | undefined }): VNode {
  const { length, job } = props;
  const isKnown = listing.value.known && job !== undefined;
  const took = isKnown && job.startedMs > 0 ? (job.endedMs ?? now.value) - job.startedMs : undefined;
  const state =
    length.state === "complete"
      ? job?.status === undefined
        ? "The job has ended"
        : `The job has ended with exit status ${job.status}`
      : length.state === "broken"
        ? "The log can no longer be read"
        : "The job writes its log";
  return (
    <footer class="foot">
      <span role="status" class={length.state}>
        {state}
      </span>
      <span>{many(length.lines, "line")}</span>
      <span>{bytes(length.bytes)}</span>
      {length.missed > 0 && (
        <span class="odd">{bytes(length.missed)} before them are no longer kept</span>
      )}
      {length.first > 0 && length.missed === 0 && (
        <span class="odd">begins at line {count(length.first + 1)}</span>
      )}
      {took !== undefined && took >= 0 && <span>{duration(took)}</span>}
    </footer>
  );
}
