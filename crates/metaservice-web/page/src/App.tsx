import type { ComponentChildren, VNode } from "preact";
import { useEffect } from "preact/hooks";
import { lost, tryNow } from "./feed";
import { FleetPage } from "./fleet/FleetPage";
import { JobPage } from "./job/JobPage";
import { follow, now } from "./jobs";
import { JobsPage } from "./list/JobsPage";
import { RunPage } from "./run/RunPage";
import { go, route } from "./route";
import { access } from "./server";
import { isQueue, may, session } from "./session";
import { SignIn } from "./SignIn";
import { Flash } from "./ui/Flash";
import { Mark } from "./ui/Head";
import { useKeys } from "./ui/keys";
import { KeysDialog } from "./ui/KeysDialog";

export function App(): VNode {
  switch (access.value) {
    case "unknown":
      return <Notice title="Opening" busy />;
    case "signIn":
      return <SignIn />;
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
  useKeys((event) => {
    if (event.key === "r" && session.value.can.run && may("operate")) go("/run");
    else if (event.key === "w" && isQueue()) go("/workers");
  });
  return (
    <>
      <a class="skip" href="#content">
        Skip to the content
      </a>
      <Lost />
      <Page />
      <Flash />
      <KeysDialog />
    </>
  );
}

function Page(): VNode {
  const at = route.value;
  switch (at.page) {
    case "job":
      return <JobPage key={at.name} name={at.name} tab={at.tab} query={at.query} />;
    case "run":
      return <RunPage key={at.query} query={at.query} />;
    case "workers":
      return <FleetPage />;
    default:
      return <JobsPage />;
  }
}

function Lost(): VNode {
  const { count, nextMs } = lost.value;
  const seconds = Math.max(0, Math.ceil((nextMs - now.value) / 1000));
  return (
    <div role="status">
      {count > 0 && (
        <div class="lost">
          <span>Connection lost. {seconds > 0 ? `The next try is in ${seconds} s.` : "Trying again."}</span>
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
