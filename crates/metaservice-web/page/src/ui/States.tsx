// What a view shows when it has nothing else to show.

import type { ComponentChildren, VNode } from "preact";
import { useEffect, useState } from "preact/hooks";

/** Nothing is there, or nothing is there yet. */
export function Empty(props: { title: string; busy?: boolean; children?: ComponentChildren }): VNode {
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

/** Something cannot be shown. */
export function Problem(props: { title: string; message?: string; again?: () => void }): VNode {
  return (
    <div class="empty" role="alert">
      <h2>{props.title}</h2>
      {props.message !== undefined && <p>The server says: {props.message}.</p>}
      {props.again && (
        <button type="button" onClick={props.again}>
          Try again
        </button>
      )}
    </div>
  );
}
