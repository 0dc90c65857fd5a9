import type { VNode } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { split } from "../run/shell";
import { may } from "../session";
import { Dialog } from "../ui/Dialog";
import { Field } from "../ui/Field";
import { Empty } from "../ui/States";
import { type Handle, Shell } from "./Shell";

interface Opened {
  id: number;
  title: string;
  command: string[] | undefined;
  over: boolean;
}

interface Props {
  name: string;
  /** When the job was started, if it runs. */
  started: number | undefined;
  shown: boolean;
}

/** The shells of a job. They stay open while other views are shown. */
export function TerminalTab({ name, started, shown }: Props): VNode {
  const [shells, setShells] = useState<Opened[]>([]);
  const [active, setActive] = useState(0);
  const [beside, setBeside] = useState(false);
  const [aloud, setAloud] = useState(false);
  const [asks, setAsks] = useState(false);
  const next = useRef(1);
  const handles = useRef(new Map<number, Handle>());
  const list = useRef<HTMLDivElement>(null);
  const allowed = may("operate");

  const open = (command?: string[]): void => {
    const id = next.current;
    next.current += 1;
    setShells((before) => [
      ...before,
      { id, title: command ? (command[0] ?? "Command") : `Shell ${id}`, command, over: false },
    ]);
    setActive(id);
  };
  const close = (id: number): void => {
    const at = shells.findIndex((shell) => shell.id === id);
    const left = shells.filter((shell) => shell.id !== id);
    setShells(left);
    if (id === active) setActive(left[Math.min(at, left.length - 1)]?.id ?? 0);
  };
  const choose = (id: number): void => {
    setActive(id);
    requestAnimationFrame(() => handles.current.get(id)?.focus());
  };
  useEffect(() => {
    if (shown && started !== undefined && allowed && next.current === 1) open();
    else if (shown) handles.current.get(active)?.focus();
  }, [shown, started]);
  const current = handles.current.get(active);

  if (!allowed || (started === undefined && shells.length === 0)) {
    return (
      <main id={shown ? "content" : undefined} hidden={!shown}>
        {allowed ? (
          <Empty title="The job does not run">
            <p>
              A terminal needs its machine. To look at a machine after a failure, run the job again with
              changes, and keep the machine on failure.
            </p>
          </Empty>
        ) : (
          <Empty title="You cannot open a terminal">
            <p>Your role allows you to watch.</p>
          </Empty>
        )}
      </main>
    );
  }
  return (
    <main id={shown ? "content" : undefined} class="terminals" hidden={!shown}>
      <div class="toolbar">
        <div class="shell-tabs" ref={list}>
          {shells.map(({ id, title, over }) => (
            <span key={id} class="shell-tab">
              <button
                type="button"
                aria-pressed={id === active}
                class={over ? "over" : ""}
                onClick={() => choose(id)}
              >
                {title}
                {over && <span class="vh">, ended</span>}
              </button>
              <button type="button" aria-label={`Close ${title}`} onClick={() => close(id)}>
                ×
              </button>
            </span>
          ))}
          {started !== undefined && (
            <>
              <button type="button" onClick={() => open()}>
                New shell
              </button>
              <button type="button" onClick={() => setAsks(true)}>
                Command…
              </button>
            </>
          )}
        </div>
        <div class="tools">
          <button
            type="button"
            class="beside-button"
            aria-pressed={beside}
            onClick={() => setBeside(!beside)}
          >
            Side by side
          </button>
          <button
            type="button"
            aria-pressed={aloud}
            title="Makes the output readable for screen readers"
            onClick={() => {
              setAloud(!aloud);
              for (const handle of handles.current.values()) handle.readAloud(!aloud);
            }}
          >
            Screen reader
          </button>
          <button type="button" onClick={() => current?.copy()}>
            Copy
          </button>
          <button type="button" onClick={() => current?.paste()}>
            Paste
          </button>
        </div>
      </div>
      {shells.length === 0 && <Empty title="No shell is open" />}
      <div class={beside ? "shells beside" : "shells"}>
        {shells.map(({ id, title, command }) => (
          <Shell
            key={id}
            name={name}
            started={started ?? 0}
            title={title}
            command={command}
            shown={shown && (beside || id === active)}
            active={id === active}
            activate={() => setActive(id)}
            leave={() => list.current?.querySelector<HTMLElement>('[aria-pressed="true"]')?.focus()}
            handle={(handle) => {
              if (!handle) return void handles.current.delete(id);
              handles.current.set(id, handle);
              handle.readAloud(aloud);
              setOver(id, false);
            }}
            ended={() => setOver(id, true)}
          />
        ))}
      </div>
      {asks && <CommandDialog open={open} close={() => setAsks(false)} />}
    </main>
  );

  function setOver(id: number, over: boolean): void {
    setShells((before) => before.map((shell) => (shell.id === id ? { ...shell, over } : shell)));
  }
}

/** Asks for a command to run in a terminal. */
function CommandDialog(props: { open: (command: string[]) => void; close: () => void }): VNode {
  const [line, setLine] = useState("");
  const [tried, setTried] = useState(false);
  const read = split(line);
  const error = "error" in read ? read.error : read.words.length === 0 ? "Write a command, such as top." : undefined;
  return (
    <Dialog title="Run a command in the job" close={props.close}>
      <form
        class="dialog-form"
        onSubmit={(event) => {
          event.preventDefault();
          setTried(true);
          if ("error" in read || error !== undefined) return;
          props.close();
          props.open(read.words);
        }}
      >
        <Field
          label="Program and arguments"
          hint="It gets a terminal of its own."
          error={tried ? error : undefined}
        >
          {(attributes) => (
            <input
              {...attributes}
              class="code"
              autocomplete="off"
              spellcheck={false}
              value={line}
              onInput={(event) => setLine(event.currentTarget.value)}
            />
          )}
        </Field>
        <div class="choices">
          <button type="button" onClick={props.close}>
            Cancel
          </button>
          <button type="submit" class="primary">
            Run
          </button>
        </div>
      </form>
    </Dialog>
  );
}
