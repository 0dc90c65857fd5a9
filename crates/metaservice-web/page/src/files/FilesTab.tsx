import type { VNode } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { plainLine } from "../format";
import { jobPath } from "../route";
import { get, reason } from "../server";
import { may } from "../session";
import { Ask } from "../ui/Dialog";
import { say } from "../ui/Flash";
import { useKeys } from "../ui/keys";
import { Link } from "../ui/Link";
import { Empty, Problem } from "../ui/States";
import { type Directory, fileApi, filesAddress, join, type Place, steps } from "./api";
import { FileList } from "./FileList";
import { Preview } from "./Preview";
import { add, Upload } from "./upload";
import { Uploads } from "./Uploads";

type Listed =
  { state: "loading" } | { state: "listed"; directory: Directory } | { state: "failed"; message: string };

interface Props {
  name: string;
  /** When the job was started, if it runs. */
  started: number | undefined;
  query: string;
}

export function FilesTab({ name, started, query }: Props): VNode {
  if (!may("operate")) {
    return (
      <main id="content">
        <Empty title="You cannot look at files">
          <p>Your role allows you to watch.</p>
        </Empty>
      </main>
    );
  }
  if (started === undefined) {
    return (
      <main id="content">
        <Empty title="The job does not run">
          <p>
            The files of its machine are gone. What was fetched of them is in the{" "}
            <Link to={jobPath(name, "details")}>details</Link>.
          </p>
        </Empty>
      </main>
    );
  }
  return <Files place={{ name, started }} query={query} />;
}

function Files({ place, query }: { place: Place; query: string }): VNode {
  const asked = new URLSearchParams(query);
  const path = asked.get("path") ?? "/";
  const file = asked.get("file") ?? undefined;
  const [listed, reload] = useDirectory(place, path);
  const [words, setWords] = useState("");
  const [over, setOver] = useState(false);
  const [replaces, setReplaces] = useState<File[]>();
  const filter = useRef<HTMLInputElement>(null);
  useEffect(() => setWords(""), [path]);
  useKeys((event) => {
    if (event.key !== "/") return;
    event.preventDefault();
    filter.current?.focus();
  });
  const send = (files: File[]): void => {
    add(files.map((each) => new Upload(place, join(path, each.name), each, reload)));
  };
  const choose = (files: File[]): void => {
    const names = new Set(
      listed.state === "listed" ? listed.directory.entries.map((entry) => entry.name) : [],
    );
    if (files.some((each) => names.has(each.name))) setReplaces(files);
    else send(files);
  };
  return (
    <main
      id="content"
      class={over ? "file-page over" : "file-page"}
      onDragOver={(event) => {
        if (!event.dataTransfer?.types.includes("Files")) return;
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={(event) => {
        const { relatedTarget, currentTarget } = event;
        if (!(relatedTarget instanceof Node) || !currentTarget.contains(relatedTarget)) setOver(false);
      }}
      onDrop={(event) => {
        setOver(false);
        if (!event.dataTransfer) return;
        event.preventDefault();
        const files = dropped(event.dataTransfer);
        if (files.length > 0) choose(files);
      }}
    >
      <div class="toolbar">
        <Crumbs name={place.name} path={path} />
        <div class="tools">
          <div class="field">
            <input
              ref={filter}
              type="search"
              placeholder="Filter"
              aria-label="Filter the entries by name"
              aria-keyshortcuts="/"
              value={words}
              onInput={(event) => setWords(event.currentTarget.value)}
              onKeyDown={(event) => {
                if (event.key === "Escape") setWords("");
              }}
            />
            <kbd aria-hidden="true">/</kbd>
          </div>
          <button type="button" onClick={reload}>
            Reload
          </button>
          <a class="button" href={fileApi(place, "file", path, { as: "tar" })} download>
            Download as tar
          </a>
          <label class="button primary file-button">
            Upload
            <input
              type="file"
              multiple
              class="vh"
              onChange={(event) => {
                choose([...(event.currentTarget.files ?? [])]);
                event.currentTarget.value = "";
              }}
            />
          </label>
        </div>
      </div>
      <div class={file === undefined ? "file-panes" : "file-panes with-file"}>
        <div class="file-list">
          {listed.state === "loading" ? (
            <Empty title="Reading the directory" busy />
          ) : listed.state === "failed" ? (
            <Problem title={`${plainLine(path)} cannot be read`} message={listed.message} again={reload} />
          ) : (
            <FileList place={place} directory={listed.directory} words={words} chosen={file} />
          )}
        </div>
        {file !== undefined && <Preview key={`${path}/${file}`} place={place} directory={path} file={file} />}
      </div>
      <Uploads name={place.name} />
      {over && (
        <p class="drop" aria-hidden="true">
          Upload to {plainLine(path)}
        </p>
      )}
      {replaces && (
        <Ask
          title="Replace files?"
          verb="Replace"
          busy="Starting"
          close={() => setReplaces(undefined)}
          act={async () => send(replaces)}
        >
          <p>The directory has files of these names. Their content is lost.</p>
        </Ask>
      )}
    </main>
  );
}

function useDirectory(place: Place, path: string): [Listed, () => void] {
  const [listed, setListed] = useState<Listed>({ state: "loading" });
  const [round, setRound] = useState(0);
  const shown = useRef("");
  useEffect(() => {
    const abort = new AbortController();
    // What is shown stays while the same directory is read again.
    if (shown.current !== path) setListed({ state: "loading" });
    get<Directory>(fileApi(place, "files", path), abort.signal).then(
      (directory) => {
        shown.current = path;
        setListed({ state: "listed", directory: { ...directory, path } });
      },
      (error: unknown) => {
        if (!abort.signal.aborted) setListed({ state: "failed", message: reason(error) });
      },
    );
    return () => abort.abort();
  }, [place.name, place.started, path, round]);
  return [listed, () => setRound((round) => round + 1)];
}

/** The files that were dropped. Directories are left out. */
function dropped(data: DataTransfer): File[] {
  const items = [...data.items].filter((item) => item.kind === "file");
  const files = items.flatMap((item) => {
    const file = item.webkitGetAsEntry()?.isDirectory ? null : item.getAsFile();
    return file ? [file] : [];
  });
  if (files.length < items.length)
    say("Directories are not uploaded. Pack them into a tar file first.", true);
  return files;
}

function Crumbs({ name, path }: { name: string; path: string }): VNode {
  const all = steps(path);
  return (
    <nav class="crumbs" aria-label="Directories">
      <ol>
        {all.map(([to, text], index) => (
          <li key={to}>
            <Link to={filesAddress(name, to)} current={index === all.length - 1}>
              {plainLine(text)}
            </Link>
          </li>
        ))}
      </ol>
    </nav>
  );
}
