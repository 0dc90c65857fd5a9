import type { VNode } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { plainLine } from "../format";
import { reason } from "../server";
import { copyText } from "../ui/Copy";
import { say } from "../ui/Flash";
import { type Over, ShellConnection } from "./connection";
import type { Screen } from "./screen";

/** What others can do with a shell. */
export interface Handle {
  focus: () => void;
  copy: () => void;
  paste: () => void;
  readAloud: (on: boolean) => void;
}

interface Props {
  name: string;
  started: number;
  title: string;
  command: string[] | undefined;
  shown: boolean;
  /** Whether it gets the keys when it is opened. */
  active: boolean;
  handle: (handle: Handle | undefined) => void;
  activate: () => void;
  /** Leaves the terminal by the keyboard. */
  leave: () => void;
  ended: () => void;
}

type State =
  { is: "opening" } | { is: "open" } | { is: "over"; why: Over } | { is: "broken"; message: string };

/** A terminal with a shell or a command in the job. */
export function Shell(props: Props): VNode {
  const box = useRef<HTMLDivElement>(null);
  const [state, setState] = useState<State>({ is: "opening" });
  const [round, setRound] = useState(0);
  const latest = useRef(props);
  latest.current = props;
  useEffect(() => {
    let close = (): void => {};
    let isOver = false;
    setState({ is: "opening" });
    import("./screen").then(
      ({ openScreen }) => {
        if (isOver || !box.current) return;
        close = connect(openScreen(box.current), latest, setState);
      },
      (error: unknown) => setState({ is: "broken", message: reason(error) }),
    );
    return () => {
      isOver = true;
      close();
    };
  }, [round]);
  return (
    <section class="shell" hidden={!props.shown} aria-label={props.title} onFocusIn={props.activate}>
      <div class="screen" ref={box} />
      <div class={state.is === "opening" ? "vh" : "shell-state"} role="status">
        {message(state) && (
          <>
            <span>{message(state)}</span>
            {state.is !== "opening" && (
              <button type="button" onClick={() => setRound(round + 1)}>
                {props.command ? "Run it again" : "New shell"}
              </button>
            )}
          </>
        )}
      </div>
    </section>
  );
}

function message(state: State): string {
  if (state.is === "opening") return "Opening";
  if (state.is === "broken") return `The terminal cannot be loaded: ${state.message}.`;
  if (state.is === "open") return "";
  const { why } = state;
  if (why.kind === "ended") return `It has ended with exit status ${why.status}.`;
  if (why.kind === "failed") return `It was not started: ${plainLine(why.message)}.`;
  return why.opened
    ? "The connection was cut, and the shell has ended with it."
    : "There is no connection: the server does not answer, or does not allow it.";
}

function connect(screen: Screen, latest: { current: Props }, setState: (state: State) => void): () => void {
  const { terminal } = screen;
  const { name, started, command, active } = latest.current;
  const connection = new ShellConnection({
    name,
    started,
    columns: terminal.cols,
    rows: terminal.rows,
    command,
    output: (bytes) => terminal.write(bytes, () => connection.took(bytes.length)),
    over: (why) => {
      terminal.options.cursorBlink = false;
      terminal.options.disableStdin = true;
      setState({ is: "over", why });
      latest.current.ended();
    },
  });
  terminal.onData((text) => connection.type(text));
  terminal.onBinary((bytes) => connection.typeBytes(bytes));
  terminal.onResize(({ cols, rows }) => connection.resize(cols, rows));
  const copy = (): void => {
    const text = terminal.getSelection();
    if (text === "") say("Nothing is selected. Select text with the mouse first.");
    else copyText(text).catch(() => say("The browser does not allow this page to copy.", true));
  };
  terminal.attachCustomKeyEventHandler((event) => {
    if (!event.ctrlKey || !event.shiftKey || event.type !== "keydown") return true;
    if (event.code === "KeyC") copy();
    else if (event.code === "ArrowUp") latest.current.leave();
    // The browser pastes.
    else return event.code !== "KeyV";
    event.preventDefault();
    return false;
  });
  latest.current.handle({
    copy,
    focus: () => terminal.focus(),
    paste: () => {
      navigator.clipboard.readText().then(
        (text) => {
          terminal.paste(text);
          terminal.focus();
        },
        () => say("The browser does not allow this page to paste. Press Ctrl-Shift-V in the terminal."),
      );
    },
    readAloud: (on) => {
      terminal.options.screenReaderMode = on;
    },
  });
  setState({ is: "open" });
  if (active) terminal.focus();
  return () => {
    latest.current.handle(undefined);
    connection.close();
    screen.close();
  };
}
