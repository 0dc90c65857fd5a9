import type { VNode } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { count, plainLine } from "../format";
import { Artifacts } from "../job/Artifacts";
import { get, reason } from "../server";
import { may } from "../session";
import type { Details } from "../types";
import { Ask } from "../ui/Dialog";
import { say } from "../ui/Flash";
import { useKeys } from "../ui/keys";
import { Link } from "../ui/Link";
import { Empty, Problem } from "../ui/States";
import { type Directory, fileApi, filesAddress, join, type Place, steps } from "./api";
import { FileList } from "./FileList";
import { TreeUpload } from "./treeUpload";
import { Preview } from "./Preview";
import { chosenTree, type Dropped, dropped, type Tree, MAX_FILES, readTree, TooManyFiles } from "./tree";
import { add, Upload } from "./upload";
import { Uploads } from "./Uploads";

type Listed =
  { state: "loading" } | { state: "listed"; directory: Directory } | { state: "failed"; message: string };

interface Props {
  name: string;
  /** When the job was started, if it runs. */
  started: number | undefined;
  query: string;
  /** What is known of the job. */
  details: Details | undefined;
}

export function FilesTab({ name, started, query, details }: Props): VNode {
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
    const artifacts = details?.artifacts ?? [];
    return (
      <main id="content" class="scrolls">
        {artifacts.length > 0 && details && (
          <div class="details">
            <h2 class="vh">Files that were fetched</h2>
            <Artifacts name={name} started={details.job.startedMs} artifacts={artifacts} />
          </div>
        )}
        <Empty title="The job does not run">
          <p>
            The files of its machine are gone
            {artifacts.length > 0 ? ", except its artifacts." : ". Artifacts are kept: use --artifact PATH."}
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
  const [replaces, setReplaces] = useState<Chosen>();
  const filter = useRef<HTMLInputElement>(null);
  useEffect(() => setWords(""), [path]);
  useKeys((event) => {
    if (event.key !== "/") return;
    event.preventDefault();
    filter.current?.focus();
  });
  const send = ({ files, directories }: Chosen): void => {
    add([
      ...files.map((each) => new Upload(place, join(path, each.name), each, reload)),
      ...directories.map((each) => new TreeUpload(place, path, each, reload)),
    ]);
  };
  const choose = (chosen: Chosen): void => {
    const directories = chosen.directories.filter(({ members }) => members.length > 0);
    if (directories.length < chosen.directories.length) say("A directory without files is not uploaded.", true);
    const names = new Set(
      listed.state === "listed" ? listed.directory.entries.map((entry) => entry.name) : [],
    );
    const all = { files: chosen.files, directories };
    if ([...all.files, ...directories].some((each) => names.has(each.name))) setReplaces(all);
    else if (all.files.length + directories.length > 0) send(all);
  };
  const chooseDropped = async ({ files, directories }: Dropped): Promise<void> => {
    choose({ files, directories: await Promise.all(directories.map(readTree)) });
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
        chooseDropped(dropped(event.dataTransfer)).catch(sayUnread);
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
          <FileButton text="Upload files" choose={(files) => choose({ files, directories: [] })} />
          <FileButton
            text="Upload directory"
            isTree
            choose={(files) => choose({ files: [], directories: [chosenTree(files)] })}
          />
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
          <p>
            The directory has entries of these names. Files with the same path are replaced, and their content
            is lost.
          </p>
        </Ask>
      )}
    </main>
  );
}

/** What the user wants to upload. */
interface Chosen {
  files: File[];
  directories: Tree[];
}

function sayUnread(error: unknown): void {
  if (error instanceof TooManyFiles) {
    const most = count(MAX_FILES);
    say(`The directory has more than ${most} files. Pack it into a tar file, and upload that.`, true);
  } else say(`The directory cannot be read: ${reason(error)}.`, true);
}

function FileButton(props: { text: string; isTree?: boolean; choose: (files: File[]) => void }): VNode {
  return (
    <label class={props.isTree ? "button file-button tree-button" : "button primary file-button"}>
      {props.text}
      <input
        type="file"
        multiple
        ref={(input) => {
          if (input) input.webkitdirectory = props.isTree ?? false;
        }}
        class="vh"
        onChange={(event) => {
          const files = [...(event.currentTarget.files ?? [])];
          event.currentTarget.value = "";
          try {
            if (files.length > 0) props.choose(files);
          } catch (error) {
            sayUnread(error);
          }
        }}
      />
    </label>
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
