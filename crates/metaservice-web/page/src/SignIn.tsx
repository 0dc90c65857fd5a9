import type { VNode } from "preact";
import { useState } from "preact/hooks";
import { reason, Refused } from "./server";
import { signIn } from "./session";
import { Field } from "./ui/Field";
import { Mark } from "./ui/Head";

/** Asks for the token of a user. */
export function SignIn(): VNode {
  const [token, setToken] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string>();
  const submit = async (): Promise<void> => {
    setBusy(true);
    setError(undefined);
    try {
      await signIn(token.trim());
    } catch (problem) {
      const code = problem instanceof Refused ? problem.code : "";
      setError(
        code === "NoSession"
          ? "This token is wrong, or is no longer valid."
          : code === "TooMany"
            ? "There were too many wrong tokens. Wait for a few seconds."
            : reason(problem),
      );
      setBusy(false);
    }
  };
  return (
    <main class="notice">
      <Mark />
      <h1>Sign in</h1>
      <form
        class="sign-in"
        onSubmit={(event) => {
          event.preventDefault();
          if (token.trim() !== "") void submit();
        }}
      >
        <Field label="Your token" hint="Who runs the server has it." error={error}>
          {(attributes) => (
            <input
              {...attributes}
              type="password"
              autocomplete="current-password"
              autofocus
              value={token}
              onInput={(event) => setToken(event.currentTarget.value)}
            />
          )}
        </Field>
        <button type="submit" class="primary" disabled={busy}>
          {busy ? "Signing in" : "Sign in"}
        </button>
      </form>
    </main>
  );
}
