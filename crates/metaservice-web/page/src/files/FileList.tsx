import type { VNode } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { bytes, count, dateTime, plainLine } from "../format";
import { get } from "../server";
import { useKeys } from "../ui/keys";
import { Empty } from "../ui/States";
import {
  type Directory,
  type Entry,
  fileApi,
  filesAddress,
  join,
  modeText,
  parent,
  type Place,
  show,
} from "./api";

/** How many rows are made at first, and for each "more". */
const ROWS = 500;

type Sort = "name" | "size" | "modifiedMs";

const collator = new Intl.Collator("en", { numeric: true });

function ordered(entries: Entry[], sort: Sort, down: boolean): Entry[] {
  const sign = down ? -1 : 1;
  const isDirectory = (entry: Entry): number => (entry.kind === "directory" ? 0 : 1);
  return [...entries].sort(
    (a, b) =>
      isDirectory(a) - isDirectory(b) ||
      sign * (sort === "name" ? collator.compare(a.name, b.name) : a[sort] - b[sort]) ||
      collator.compare(a.name, b.name),
  );
}

interface Props {
  place: Place;
  directory: Directory;
  words: string;
  /** The file that is looked at. */
  chosen: string | undefined;
}

export function FileList({ place, directory, words, chosen }: Props): VNode {
  const [sort, setSort] = useState<Sort>("name");
  const [down, setDown] = useState(false);
  const [most, setMost] = useState(ROWS);
  const body = useRef<HTMLTableSectionElement>(null);
  useEffect(() => setMost(ROWS), [directory.path, words]);
  const shown = useMemo(() => {
    const filter = words.toLowerCase();
    const found = directory.entries.filter((entry) => entry.name.toLowerCase().includes(filter));
    return ordered(found, sort, down);
  }, [directory, words, sort, down]);
  useKeys((event) => {
    const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
    if (event.key === "Backspace") show(place.name, parent(directory.path));
    else if (step === undefined) return;
    else move(body.current, step);
    event.preventDefault();
  });
  if (shown.length === 0) {
    return <Empty title={words ? `No entry matches “${words}”` : "This directory is empty"} />;
  }
  const by = (key: Sort): void => {
    setDown(key === sort ? !down : key !== "name");
    setSort(key);
  };
  const column = (key: Sort, text: string): VNode => (
    <th
      scope="col"
      class={key === "name" ? "f-name" : `f-${key} number`}
      aria-sort={key === sort ? (down ? "descending" : "ascending") : undefined}
    >
      <button type="button" onClick={() => by(key)}>
        {text}
        <svg class="chevron" viewBox="0 0 12 12" aria-hidden="true">
          <path d={key === sort && !down ? "M3 7.5l3-3 3 3" : "M3 4.5l3 3 3-3"} />
        </svg>
      </button>
    </th>
  );
  return (
    <>
      <table class="files">
        <thead>
          <tr>
            {column("name", "Name")}
            {column("size", "Size")}
            {column("modifiedMs", "Changed")}
            <th scope="col" class="f-mode">
              Mode
            </th>
          </tr>
        </thead>
        <tbody ref={body}>
          {shown.slice(0, most).map((entry) => (
            <Line
              key={entry.name}
              place={place}
              path={directory.path}
              entry={entry}
              chosen={entry.name === chosen}
            />
          ))}
        </tbody>
      </table>
      {(shown.length > most || directory.more) && (
        <p class="files-more">
          {shown.length > most && (
            <button type="button" onClick={() => setMost(most + ROWS)}>
              Show more of {count(shown.length)}
            </button>
          )}
          {directory.more && (
            <span>
              Only the first {count(directory.entries.length)} entries are listed. Use the terminal for the
              others.
            </span>
          )}
        </p>
      )}
    </>
  );
}

function Line(props: { place: Place; path: string; entry: Entry; chosen: boolean }): VNode {
  const { place, path, entry, chosen } = props;
  const { kind, name } = entry;
  const whole = join(path, name);
  const address =
    kind === "directory" ? filesAddress(place.name, whole) : filesAddress(place.name, path, name);
  const open = async (): Promise<void> => {
    if (kind === "link") {
      // Only the guest knows what it leads to.
      const isDirectory = await get(fileApi(place, "files", whole)).then(
        () => true,
        () => false,
      );
      if (isDirectory) return show(place.name, whole);
    }
    show(place.name, kind === "directory" ? whole : path, kind === "directory" ? undefined : name);
  };
  const text = plainLine(name);
  return (
    <tr
      aria-selected={chosen ? "true" : undefined}
      class={chosen ? "chosen" : ""}
      onClick={(event) => {
        const selects = (getSelection()?.toString().length ?? 0) > 0;
        if (kind !== "other" && !selects && !(event.target instanceof HTMLAnchorElement)) void open();
      }}
    >
      <th scope="row" class="f-name">
        <Icon kind={kind} />
        {kind === "other" ? (
          <span>{text}</span>
        ) : (
          <a
            href={address}
            onClick={(event) => {
              if (event.ctrlKey || event.metaKey || event.shiftKey) return;
              event.preventDefault();
              void open();
            }}
          >
            {text}
          </a>
        )}
        {entry.target !== undefined && <span class="dim-text"> → {plainLine(entry.target)}</span>}
      </th>
      <td class="f-size number">{kind === "file" ? bytes(entry.size) : "–"}</td>
      <td class="f-modifiedMs number">{entry.modifiedMs > 0 ? dateTime(entry.modifiedMs) : "–"}</td>
      <td class="f-mode">
        <code>{modeText(entry.mode)}</code>
      </td>
    </tr>
  );
}

const ICONS: Record<Entry["kind"], [path: string, name: string]> = {
  directory: ["M1.5 4V3h4l1.5 1.5h7.5v8.5h-13z", "Directory"],
  file: ["M3.5 1.5h6l3 3v10h-9zM9.5 1.5v3h3", "File"],
  link: ["M3 12.5c0-5 3-7 8-7M8 2.5l3.5 3L8 8.5", "Link"],
  other: ["M8 2.5l5.5 5.5L8 13.5 2.5 8z", "Special file"],
};

function Icon({ kind }: { kind: Entry["kind"] }): VNode {
  const [path, name] = ICONS[kind];
  return (
    <svg class={`icon ${kind}`} viewBox="0 0 16 16" role="img" aria-label={name}>
      <path d={path} />
    </svg>
  );
}

function move(body: HTMLTableSectionElement | null, by: number): void {
  const links = [...(body?.querySelectorAll<HTMLAnchorElement>("th a") ?? [])];
  const at = links.findIndex((link) => link === document.activeElement);
  const next = at < 0 ? (by > 0 ? 0 : links.length - 1) : at + by;
  links[Math.max(0, Math.min(links.length - 1, next))]?.focus();
}
