import type { VNode } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { count } from "../format";
import { type LogOf, logApi } from "./api";
import type { Match } from "./LogView";
import { get, Refused } from "../server";
import type { LogLength, Matches } from "../types";

interface Props {
  log: LogOf;
  started: number;
  length: LogLength;
  /** The first line on the screen. */
  top: () => number;
  show: (match: Match | undefined) => void;
  setPattern: (pattern: string | undefined) => void;
}

type Found = { pattern: string; matches: Matches; at: number; lines: number };

/** Searches the whole log on the server. */
export function Search(props: Props): VNode {
  const input = useRef<HTMLInputElement>(null);
  const asking = useRef<AbortController>(undefined);
  const [found, setFound] = useState<Found>();
  const [error, setError] = useState("");
  const [busy, setBusy] = useState(false);

  const clear = (): void => {
    asking.current?.abort();
    setFound(undefined);
    setError("");
    setBusy(false);
    props.setPattern(undefined);
    props.show(undefined);
  };
  const go = (to: Found): void => {
    setFound(to);
    const line = to.matches.lines[to.at];
    props.show(line === undefined ? undefined : { line });
  };
  const step = (by: number): void => {
    if (!found || found.matches.lines.length === 0) return;
    const many = found.matches.lines.length;
    go({ ...found, at: (found.at + by + many) % many });
  };
  const search = async (pattern: string): Promise<void> => {
    if (pattern === "") return clear();
    const { lines } = props.length;
    if (found?.pattern === pattern && found.lines === lines) return step(1);
    asking.current?.abort();
    const abort = new AbortController();
    asking.current = abort;
    setBusy(true);
    setError("");
    try {
      const query = { started: String(props.started), find: pattern };
      const matches = await get<Matches>(logApi(props.log, "/search", query), abort.signal);
      const top = props.top();
      const at = matches.lines.findIndex((line) => line >= top);
      props.setPattern(pattern);
      go({ pattern, matches, at: Math.max(0, at), lines });
    } catch (reason) {
      if (abort.signal.aborted) return;
      setFound(undefined);
      props.setPattern(undefined);
      setError(reason instanceof Refused ? reason.message : "the server does not answer");
    }
    setBusy(false);
  };

  useEffect(() => {
    const keys = (event: KeyboardEvent): void => {
      const typing = event.target instanceof HTMLInputElement;
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "/" && !typing) {
        event.preventDefault();
        input.current?.focus();
        input.current?.select();
      } else if (event.key === "Escape" && typing) {
        if (input.current) input.current.value = "";
        clear();
      } else if (!typing && (event.key === "n" || event.key === "N")) {
        step(event.key === "n" ? 1 : -1);
      }
    };
    addEventListener("keydown", keys);
    return () => removeEventListener("keydown", keys);
  });

  return (
    <form
      class="search"
      role="search"
      onSubmit={(event) => {
        event.preventDefault();
        void search(input.current?.value ?? "");
      }}
    >
      <div class="field">
        <input
          ref={input}
          type="search"
          placeholder="Search"
          aria-label="Search the log by a regular expression"
          aria-keyshortcuts="/"
          aria-invalid={error !== ""}
          aria-describedby="search-result"
          maxLength={1024}
          autocomplete="off"
          spellcheck={false}
          onInput={(event) => {
            if (event.currentTarget.value === "") clear();
          }}
        />
        <kbd aria-hidden="true">/</kbd>
      </div>
      <span id="search-result" class={`result ${error ? "problem" : ""}`} role="status">
        {busy ? "searching" : error || result(found)}
      </span>
      {found && found.matches.lines.length > 0 && (
        <>
          <button type="button" aria-label="Previous match" onClick={() => step(-1)}>
            ↑
          </button>
          <button type="button" aria-label="Next match" onClick={() => step(1)}>
            ↓
          </button>
        </>
      )}
    </form>
  );
}

function result(found: Found | undefined): string {
  if (!found) return "";
  const { total, lines, complete, searched } = found.matches;
  const part = complete ? "" : ` in the first ${count(searched)} lines`;
  if (total === 0) return `no line matches${part}`;
  const few = lines.length < total ? ` (the first ${count(lines.length)} are listed)` : "";
  return `${count(found.at + 1)} of ${count(total)}${few}${part}`;
}
