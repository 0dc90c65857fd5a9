import type { ComponentChildren, VNode } from "preact";
import { useEffect } from "preact/hooks";
import { follow, now } from "./jobs";
import { JobsPage } from "./JobsPage";
import { LogPage } from "./LogPage";
import { go, route } from "./route";
import { access, lost, tryNow } from "./server";

export function App(): VNode {
  switch (access.value) {
    case "unknown":
      return <Notice title="Opening" busy />;
    case "none":
      return (
        <Notice title="Open the link from the terminal">
          <p>
            <code>metaservice web</code> prints a link that lets this browser in. Each link works once.
          </p>
        </Notice>
      );
    case "used":
      return (
        <Notice title="This link was used already">
          <p>Each link works once. The terminal shows the next one.</p>
        </Notice>
      );
    case "slow":
      return (
        <Notice title="Too many wrong links">
          <p>Wait for a few seconds, then open the link from the terminal.</p>
        </Notice>
      );
    case "open":
      return <Open />;
  }
}

function Open(): VNode {
  useEffect(follow, []);
  const at = route.value;
  return (
    <>
      <a class="skip" href="#content">
        Skip to the content
      </a>
      <Lost />
      {at.page === "jobs" ? <JobsPage /> : <LogPage key={at.name} name={at.name} />}
    </>
  );
}

function Lost(): VNode {
  const { count, nextMs } = lost.value;
  const seconds = Math.max(0, Math.ceil((nextMs - now.value) / 1000));
  return (
    <div role="status">
      {count > 0 && (
        <div class="lost">
          <span>
            Connection lost. {seconds > 0 ? `The next try is in ${seconds} s.` : "Trying again."}
          </span>
          <button type="button" onClick={tryNow}>
            Try now
          </button>
        </div>
      )}
    </div>
  );
}

/** A page without anything else. */
function Notice(props: { title: string; busy?: boolean; children?: ComponentChildren }): VNode {
  return (
    <main class="notice" aria-busy={props.busy ?? false}>
      <Mark />
      <h1>{props.title}</h1>
      {props.children}
    </main>
  );
}

function Mark(): VNode {
  return (
    <svg class="mark" viewBox="0 0 32 32" aria-hidden="true">
      <rect width="32" height="32" rx="7" />
      <path d="M8 11l5 5-5 5M16 22h8" />
    </svg>
  );
}

/** The head of a page. */
export function Head(props: { children: ComponentChildren }): VNode {
  return (
    <header class="head">
      <a
        class="home"
        href="/"
        aria-label="All jobs"
        onClick={(event) => {
          if (event.ctrlKey || event.metaKey || event.shiftKey) return;
          event.preventDefault();
          go("/");
        }}
      >
        <Mark />
      </a>
      {props.children}
    </header>
  );
}
